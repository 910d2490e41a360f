// What is still to be done: [state, when in ms]; value: the message's uuid and the service it was given to.
function (doc) {
  var WAITING = { scheduled: true, pending: true, 'forwarded-to-gateway': true };
  function moment(value) {
    return typeof value === 'string' ? Date.parse(value) : value;
  }
  function each(tasks) {
    if (!tasks || !tasks.forEach) { return; }
    tasks.forEach(function (task) {
      if (!task || !WAITING[task.state]) { return; }
      var message = (task.messages && task.messages[0]) || {};
      var at = moment(task.retry_at || task.due || task.timestamp || doc.reported_date) || 0;
      emit([task.state, at], { uuid: message.uuid || null, service: task.service || null });
    });
  }
  each(doc.tasks);
  each(doc.scheduled_tasks);
}
