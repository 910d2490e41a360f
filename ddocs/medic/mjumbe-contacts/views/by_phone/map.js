// Key: a person's phone number as it was entered; value: the lineage that CHT keeps on documents.
function (doc) {
  if (doc.phone && (doc.type === 'person' || (doc.type === 'contact' && doc.contact_type))) {
    emit(doc.phone, doc.parent || null);
  }
}
