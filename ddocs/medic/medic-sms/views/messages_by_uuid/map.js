// Key: the uuid of an outgoing message.
function (doc) {
  function each(tasks) {
    if (!tasks || !tasks.forEach) { return; }
    tasks.forEach(function (task) {
      if (!task || !task.messages || !task.messages.forEach) { return; }
      task.messages.forEach(function (message) {
        if (message && message.uuid) { emit(message.uuid, null); }
      });
    });
  }
  each(doc.tasks);
  each(doc.scheduled_tasks);
}
