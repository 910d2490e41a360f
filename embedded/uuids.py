"""Ids for documents that come without one, by CouchDB's default algorithm, `sequential` (couch_uuids.erl): those made
one after the other stand together in every B-tree, so that writing them touches few pages."""

import secrets

_LAST = 0xFFF000
_STEP = 0xFFE


class SequentialUuids:
    """26 random digits, which change seldom, and 6 that grow by steps of chance. For one thread."""

    def __init__(self) -> None:
        self._number = _LAST

    def next(self) -> str:
        """A new id of 32 hexadecimal digits."""
        if self._number >= _LAST:
            self._prefix, self._number = secrets.token_hex(13), 0
        self._number += 1 + secrets.randbelow(_STEP)
        return f"{self._prefix}{self._number:06x}"


next_uuid = SequentialUuids().next
