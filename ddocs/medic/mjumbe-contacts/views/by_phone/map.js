// Key: a person's phone number as it was entered. No value: with an `_id` in it, include_docs would give that document.
function (doc) {
  if (doc.phone && (doc.type === 'person' || (doc.type === 'contact' && doc.contact_type))) {
    emit(doc.phone, null);
  }
}
