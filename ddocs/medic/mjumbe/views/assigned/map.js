// What the phone gateway is given when it asks: [service, 0 for an answer to somebody or else 1, due in ms] of its messages
// that are due or handed out.
// Value: the message's uuid, its state, and since when and by whom it is claimed.
function (doc) {
  var POLLING = { 'medic-gateway': true };
  var OPEN = { pending: true, 'forwarded-to-gateway': true };
  function moment(value) {
    // Others write anything. Keys are compared with moments, and what is none stands first, not behind all of them.
    if (typeof value !== 'string') { return typeof value === 'number' ? value : 0; }
    // ISO 8601's T for the space that other software writes: not every engine of CouchDB's reads that.
    value = value.replace(/^(\d{4}-\d\d-\d\d) /, '$1T');
    // What names no zone is UTC, as our own code reads it; newer engines take the server's zone.
    return Date.parse(/^[\d-]+T[\d:.]+$/.test(value) ? value + 'Z' : value);
  }
  function each(tasks, rank) {
    if (!tasks || !tasks.forEach) { return; }
    tasks.forEach(function (task) {
      var message = task && POLLING[task.service] && OPEN[task.state] && task.messages && task.messages[0];
      if (!message || !message.uuid) { return; }
      var history = task.state_history || [];
      var last = history[history.length - 1] || {};
      emit([task.service, rank, moment(task.due || task.timestamp || doc.reported_date) || 0], {
        uuid: message.uuid, state: task.state, claim: task.claim || null, since: last.timestamp || null
      });
    });
  }
  var incoming = doc.type === 'data_record' && doc.sms_message && doc.from;
  each(doc.tasks, incoming ? 0 : 1);
  each(doc.scheduled_tasks, 1);
}
