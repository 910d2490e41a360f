// Key: [service, day of the last change in UTC, state]; counted.
function (doc) {
  function each(tasks) {
    if (!tasks || !tasks.forEach) { return; }
    tasks.forEach(function (task) {
      if (!task || !task.service || !task.state_history || !task.state_history.length) { return; }
      var last = task.state_history[task.state_history.length - 1];
      if (last && last.timestamp) { emit([task.service, String(last.timestamp).slice(0, 10), task.state], 1); }
    });
  }
  each(doc.tasks);
  each(doc.scheduled_tasks);
}
