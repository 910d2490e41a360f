// Every message, in and out: ['all', ms], ['phone', number, ms] and ['state', state, ms]; value: the message's uuid.
function (doc) {
  function moment(value) {
    return typeof value === 'string' ? Date.parse(value) : value;
  }
  function message(phone, state, at, id) {
    emit(['all', at], id);
    emit(['phone', phone, at], id);
    emit(['state', state, at], id);
  }
  function each(tasks) {
    if (!tasks || !tasks.forEach) { return; }
    tasks.forEach(function (task) {
      var first = task && task.messages && task.messages[0];
      if (!first || !first.uuid) { return; }
      message(first.to, task.state, moment(task.due || task.timestamp || doc.reported_date) || 0, first.uuid);
    });
  }
  if (doc.type === 'data_record' && doc.sms_message) {
    message(doc.from, 'received', moment(doc.reported_date) || 0, doc._id);
  }
  each(doc.tasks);
  each(doc.scheduled_tasks);
}
