// Key: a service's reference of an outgoing message, that of its newest attempt or of one before; value: the message's uuid.
function (doc) {
  function each(tasks) {
    if (!tasks || !tasks.forEach) { return; }
    tasks.forEach(function (task) {
      var message = task && task.messages && task.messages[0];
      if (!message || !message.uuid) { return; }
      var known = {};
      function reference(holder) {
        var ref = holder && holder.gateway_ref;
        if (typeof ref !== 'string' || !ref || known['ref ' + ref]) { return; }
        known['ref ' + ref] = true;
        emit(ref, message.uuid);
      }
      reference(task);
      if (task.state_history && task.state_history.forEach) { task.state_history.forEach(reference); }
    });
  }
  each(doc.tasks);
  each(doc.scheduled_tasks);
}
