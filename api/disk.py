"""Waiting for a disk while the other requests go on."""

import sqlite3
from collections.abc import Callable
from typing import TypeVar

import gevent
from gevent import monkey
from gevent.util import wrap_errors

Answer = TypeVar("Answer")


def elsewhere(work: Callable[[], Answer]) -> Answer:
    """What `work` answers. Under gevent another thread does it: it may wait for a lock or a disk, and all with it."""
    if not monkey.is_module_patched("threading"):
        return work()
    # An error that ends a thread's work is printed by gevent, so it comes back as an answer.
    answer = gevent.get_hub().threadpool.apply(wrap_errors((sqlite3.Error, OSError), work))
    if isinstance(answer, Exception):
        raise answer
    return answer  # type: ignore[no-any-return]
