// What is still to be done: [state, when in ms], where 'assigned' stands for pending messages that wait for the phone
// gateway's poll, 'bound' for those that were written for it alone. Pending answers are there twice, also as ['reply',
// when]: no broadcast keeps them waiting. And what may have been sent: ['in-doubt', the number's digits].
// Value: the message's uuid, the service it was given to, and the one that it was written for.
// And what a service took and has not settled: ['open', service, when its state changed in ms]; value: its reference.
function (doc) {
  var WAITING = { scheduled: true, pending: true, 'forwarded-to-gateway': true };
  function moment(value) {
    // Others write anything. Keys are compared with moments, and what is none stands first, not behind all of them.
    if (typeof value !== 'string') { return typeof value === 'number' ? value : 0; }
    // ISO 8601's T for the space that other software writes: not every engine of CouchDB's reads that.
    value = value.replace(/^(\d{4}-\d\d-\d\d) /, '$1T');
    // What names no zone is UTC, as our own code reads it; newer engines take the server's zone.
    return Date.parse(/^[\d-]+T[\d:.]+$/.test(value) ? value + 'Z' : value);
  }
  var OPEN = { 'received-by-gateway': true, 'forwarded-by-gateway': true, sent: true };
  function each(tasks, answers) {
    if (!tasks || !tasks.forEach) { return; }
    tasks.forEach(function (task) {
      if (task && OPEN[task.state] && task.service && task.gateway_ref) {
        var history = task.state_history || [];
        emit(['open', task.service, moment((history[history.length - 1] || {}).timestamp) || 0], task.gateway_ref);
      }
      if (!task || !WAITING[task.state]) { return; }
      var message = (task.messages && task.messages[0]) || {};
      var at = moment(task.retry_at || task.due || task.timestamp || doc.reported_date) || 0;
      var via = typeof task.via === 'string' ? task.via : null;
      var value = { uuid: message.uuid || null, service: task.service || null, via: via };
      var left = task.state === 'pending' && task.service === 'medic-gateway';
      emit([left ? (task.via ? 'bound' : 'assigned') : task.state, at], value);
      if (answers && task.state === 'pending' && !left) { emit(['reply', at], value); }
      if (task.in_doubt) { emit(['in-doubt', String(message.to).replace(/\D/g, '')], value); }
    });
  }
  each(doc.tasks, doc.type === 'data_record' && doc.sms_message && doc.from);
  each(doc.scheduled_tasks, false);
}
