// Key: the state of a message that a gateway has taken; value: its uuid and the gateway's reference.
function (doc) {
  function each(tasks) {
    if (!tasks || !tasks.forEach) { return; }
    tasks.forEach(function (task) {
      if (!task || !task.gateway_ref || !task.messages || !task.messages.forEach) { return; }
      task.messages.forEach(function (message) {
        if (message && message.uuid) { emit(task.state, { id: message.uuid, gateway_ref: task.gateway_ref }); }
      });
    });
  }
  each(doc.tasks);
  each(doc.scheduled_tasks);
}
