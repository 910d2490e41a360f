"""Ids for new documents and messages: UUIDs that begin with the time (version 7, RFC 9562, section 5.7).

What is written together then stands together in every B-tree that is ordered by it, CouchDB's and the embedded store's.
Random ids (version 4) touch another page with each document, the more of them the more are stored.
"""

import os
import time
import uuid


def new_uuid() -> str:
    """A new one, in lower case with hyphens. The time is in ms; ids of one ms are in no order."""
    bits = time.time_ns() // 1_000_000 << 80 | int.from_bytes(os.urandom(10))
    return str(uuid.UUID(int=bits & ~(0xF << 76) & ~(0x3 << 62) | 0x7 << 76 | 0x2 << 62))
