// Key: the code by which CHT's reports name a person or a place.
function (doc) {
  var code = doc.patient_id || doc.place_id;
  if (code && doc.type !== 'data_record') { emit(String(code), null); }
}
