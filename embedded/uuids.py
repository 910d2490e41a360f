"""Ids for documents that come without one, by CouchDB's default algorithm, `sequential` (couch_uuids.erl): those made
one after the other stand together in every B-tree, so that writing them touches few pages."""

import secrets
from collections.abc import Iterator

_LAST = 0xFFF000
_STEP = 0xFFE


def sequential_uuids() -> Iterator[str]:
    """Without end, of 32 hexadecimal digits: 26 of chance, which change seldom, and 6 that grow by steps of chance."""
    while True:
        prefix, number = secrets.token_hex(13), 0
        while number < _LAST:
            number += 1 + secrets.randbelow(_STEP)
            yield f"{prefix}{number:06x}"


next_uuid = sequential_uuids().__next__
