// Key: [group, when the state last changed in ms, state].
function (doc) {
  var GROUPS = {
    scheduled: 'scheduled',
    pending: 'pending', 'forwarded-to-gateway': 'pending', 'received-by-gateway': 'pending',
    'forwarded-by-gateway': 'pending',
    sent: 'final', delivered: 'final', failed: 'final',
    denied: 'muted', cleared: 'muted', muted: 'muted', duplicate: 'muted'
  };
  function moment(value) {
    return typeof value === 'string' ? Date.parse(value) : value;
  }
  function each(tasks) {
    if (!tasks || !tasks.forEach) { return; }
    tasks.forEach(function (task) {
      if (!task || !GROUPS[task.state]) { return; }
      var history = task.state_history || [];
      var last = history[history.length - 1];
      emit([GROUPS[task.state], moment((last && last.timestamp) || task.timestamp || doc.reported_date), task.state], 1);
    });
  }
  each(doc.tasks);
  each(doc.scheduled_tasks);
}
