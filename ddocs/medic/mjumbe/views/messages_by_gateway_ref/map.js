// Key: a service's reference of an outgoing message; value: the message's uuid.
function (doc) {
  function each(tasks) {
    if (!tasks || !tasks.forEach) { return; }
    tasks.forEach(function (task) {
      var message = task && task.gateway_ref && task.messages && task.messages[0];
      if (message && message.uuid) { emit(task.gateway_ref, message.uuid); }
    });
  }
  each(doc.tasks);
  each(doc.scheduled_tasks);
}
