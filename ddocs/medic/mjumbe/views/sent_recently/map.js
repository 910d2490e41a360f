// Key: when a message was given to a service, in ms; value: what the duplicate limit counts.
function (doc) {
  function each(tasks) {
    if (!tasks || !tasks.forEach) { return; }
    tasks.forEach(function (task) {
      var message = task && task.messages && task.messages[0];
      if (!message || !message.uuid || !task.state_history || !task.state_history.forEach) { return; }
      var taken = null;
      task.state_history.forEach(function (entry) {
        if (entry && entry.state === 'forwarded-to-gateway') { taken = taken || entry.timestamp; }
      });
      if (taken) { emit(Date.parse(taken), { to: message.to, message: message.message, uuid: message.uuid }); }
    });
  }
  each(doc.tasks);
  each(doc.scheduled_tasks);
}
