// CHT's queue: [state, due in ms], and 'pending-or-forwarded' for what a gateway may be given.
function (doc) {
  function moment(value) {
    return typeof value === 'string' ? Date.parse(value) : value;
  }
  function each(tasks) {
    if (!tasks || !tasks.forEach) { return; }
    tasks.forEach(function (task) {
      if (!task || !task.messages || !task.messages.forEach) { return; }
      var due = moment(task.due || task.timestamp || doc.reported_date);
      task.messages.forEach(function (message) {
        if (!message || !message.uuid || !message.to || !message.message) { return; }
        var value = { content: message.message, to: message.to, id: message.uuid };
        emit([task.state, due], value);
        if (task.state === 'pending' || task.state === 'forwarded-to-gateway') {
          emit(['pending-or-forwarded', due], value);
        }
      });
    });
  }
  each(doc.tasks);
  each(doc.scheduled_tasks);
}
