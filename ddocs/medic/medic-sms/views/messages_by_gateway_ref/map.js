// Key: a service's reference; value: the message's uuid. Incoming messages have theirs in sms_message.
function (doc) {
  function each(tasks) {
    if (!tasks || !tasks.forEach) { return; }
    tasks.forEach(function (task) {
      if (!task || !task.gateway_ref || !task.messages || !task.messages.forEach) { return; }
      task.messages.forEach(function (message) {
        if (message && message.uuid) { emit(task.gateway_ref, message.uuid); }
      });
    });
  }
  if (doc.sms_message && doc.sms_message.gateway_ref) { emit(doc.sms_message.gateway_ref, doc._id); }
  each(doc.tasks);
  each(doc.scheduled_tasks);
}
