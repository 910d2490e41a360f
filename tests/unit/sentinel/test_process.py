"""A stop that comes before anything is under way."""

import threading
from typing import Any, cast

import pytest

from mjumbe import setup
from mjumbe.cached_vault import CachedVault
from mjumbe.couch import Couch
from mjumbe.status import LEADER_ID
from sentinel.lease import Lease
from sentinel.process import Sentinel
from tests.unit.sentinel.memory import MemoryDatabase

SOON = 60.0


@pytest.fixture
def sentinel() -> Sentinel:
    """One that leads a database in memory."""
    sentinel = Sentinel(Couch("http://nobody.invalid/medic"), cast(CachedVault, None))
    sentinel._lease = Lease(MemoryDatabase())
    return sentinel


def test_a_stop_does_not_wait_for_a_changed_index(sentinel: Sentinel, monkeypatch: pytest.MonkeyPatch) -> None:
    """`setup.prepare` builds it, for minutes on a large database."""
    stop, built = threading.Event(), threading.Event()

    def prepare(_: Couch) -> None:
        stop.set()
        built.wait()

    monkeypatch.setattr(setup, "prepare", prepare)
    monkeypatch.setattr(sentinel._settings, "refresh", lambda: None)
    run = threading.Thread(target=sentinel.run, args=(stop,))
    run.start()
    run.join(SOON)
    ended = not run.is_alive()
    built.set()
    run.join()
    assert ended


def test_a_stop_does_not_wait_for_the_first_index(sentinel: Sentinel, monkeypatch: pytest.MonkeyPatch) -> None:
    stop, looks = threading.Event(), list[object]()

    def is_built(*_: object) -> bool:
        looks.append(stop.is_set())
        if len(looks) == 2:
            stop.set()
        return False

    monkeypatch.setattr(setup, "is_built", is_built)
    monkeypatch.setattr(sentinel, "_prepare", lambda _: None)
    sentinel.run(stop)
    assert looks == [False, False]
    assert cast(Any, sentinel._lease)._database.docs[LEADER_ID]["released"]


def test_what_the_preparation_fails_with_ends_the_process(sentinel: Sentinel, monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare(_: Couch) -> None:
        raise ValueError("no CouchDB's fault")

    monkeypatch.setattr(setup, "prepare", prepare)
    with pytest.raises(ValueError, match="no CouchDB's fault"):
        sentinel.run(threading.Event())
