// Every message, in and out: ['all', ms], ['phone', ending, ms] and ['state', state, ms]; value: the message's uuid.
function (doc) {
  function moment(value) {
    // Others write anything. Keys are compared with moments, and what is none stands first, not behind all of them.
    if (typeof value !== 'string') { return typeof value === 'number' ? value : 0; }
    // ISO 8601's T for the space that other software writes: not every engine of CouchDB's reads that.
    value = value.replace(/^(\d{4}-\d\d-\d\d) /, '$1T');
    // What names no zone is UTC, as our own code reads it; newer engines take the server's zone.
    return Date.parse(/^[\d-]+T[\d:.]+$/.test(value) ? value + 'Z' : value);
  }
  // The end of a number is the same in every spelling: authors write it with the country's code, or without.
  function ending(phone) {
    var digits = String(phone).replace(/[^0-9]/g, '');
    return digits.length < 7 ? phone : digits.slice(-7);
  }
  function message(phone, state, at, id) {
    emit(['all', at], id);
    emit(['phone', ending(phone), at], id);
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
