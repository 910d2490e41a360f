"""What a vault remembers, for how long, and that it answers while CouchDB is away."""

import threading
from collections.abc import Iterable
from typing import cast

import pytest

from mjumbe.cached_vault import CachedVault
from mjumbe.couch import Couch, CouchError, UnavailableError
from mjumbe.credentials import CredentialError
from mjumbe.documents import Document
from tests.unit.clock import Clock
from tests.unit.vault import INCOMING, MemoryCouch, MemoryDatabase, keys, vault_of


@pytest.fixture
def couch() -> MemoryCouch:
    return MemoryCouch()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cached(couch: MemoryCouch, clock: Clock) -> CachedVault:
    return CachedVault(cast(Couch, couch), keys(), ttl=5, clock=clock)


def test_a_read_value_is_remembered_for_the_time_to_live(couch: MemoryCouch, cached: CachedVault, clock: Clock) -> None:
    vault_of(couch).set(INCOMING, "one")
    couch.vault.reads = 0
    for _ in range(3):
        assert cached.get(INCOMING) == "one"
    assert couch.vault.reads == 1
    vault_of(couch).set(INCOMING, "two")
    assert cached.get(INCOMING) == "one"
    clock.now += 5.1
    assert cached.get(INCOMING) == "two"


def test_what_is_read_anew_is_read_at_once(couch: MemoryCouch, cached: CachedVault, clock: Clock) -> None:
    """A sentinel asks every few seconds for the keys of all services, most of which nobody has."""
    ids = ("a", "b", "odd", "unset")
    for credential_id in ("a", "b"):
        vault_of(couch).set(credential_id, f"first {credential_id}")
    couch.vault.docs["credential:odd"] = {"_id": "credential:odd", "secret": "no token"}
    cached.remember(ids)
    assert cached.get("unset") is None
    vault_of(couch).set("b", "second b")
    clock.now += 5.1
    couch.vault.reads = 0
    assert [cached.get(credential_id) for credential_id in ("a", "b", "unset")] == ["first a", "second b", None]
    assert couch.vault.reads == 1
    with pytest.raises(CredentialError):
        cached.get("odd")


def test_its_own_writes_show_at_once(cached: CachedVault) -> None:
    assert cached.get(INCOMING) is None
    cached.set(INCOMING, " one\n")
    assert cached.get(INCOMING) == "one"
    assert cached.delete(INCOMING) is True
    assert cached.get(INCOMING) is None


def test_it_answers_from_memory_while_couchdb_is_away(couch: MemoryCouch, cached: CachedVault, clock: Clock) -> None:
    cached.set(INCOMING, "one")
    assert cached.get("unset") is None
    couch.vault.away = True
    clock.now += 100_000
    assert cached.get(INCOMING) == "one"
    assert cached.get("unset") is None
    assert cached.matches(INCOMING, "one") is True
    with pytest.raises(UnavailableError):
        cached.get("never read")
    couch.vault.reads = 0
    for _ in range(10):
        cached.get(INCOMING)
    assert couch.vault.reads == 0, "asked again only after the time to live: an outage must not slow each request"
    couch.vault.away = False
    vault_of(couch).set(INCOMING, "two")
    clock.now += 5.1
    assert cached.get(INCOMING) == "two"


def test_what_it_was_told_to_remember_is_known_when_couchdb_goes_away(couch: MemoryCouch, cached: CachedVault) -> None:
    vault_of(couch).set(INCOMING, "one")
    couch.vault.docs["credential:odd"] = {"_id": "credential:odd", "secret": "no token"}
    cached.remember([INCOMING, "odd", "unset"])
    couch.vault.away = True
    assert cached.matches(INCOMING, "one")
    for credential_id in ("odd", "unset"):  # the second may have been set since
        with pytest.raises(UnavailableError):
            cached.get(credential_id)


def test_what_an_earlier_process_knew_is_read_anew_once_couchdb_is_there(
    couch: MemoryCouch, cached: CachedVault
) -> None:
    vault_of(couch).set(INCOMING, "two")
    cached.recall({INCOMING: "one"})
    couch.vault.away = True
    assert cached.matches(INCOMING, "one")
    couch.vault.away = False
    cached.recall({INCOMING: "one"})
    assert cached.matches(INCOMING, "two") and not cached.matches(INCOMING, "one")


@pytest.mark.parametrize(
    ("given", "expected"),
    [("one", True), ("One", False), ("one ", False), ("", False), ("ön", False), ("\udc80", False)],
)
def test_matches(cached: CachedVault, given: str, expected: bool) -> None:
    cached.set(INCOMING, "one")
    assert cached.matches(INCOMING, given) is expected
    assert cached.matches("unset", given) is False


def test_a_key_changed_elsewhere_works_at_once(couch: MemoryCouch, cached: CachedVault, clock: Clock) -> None:
    cached.set(INCOMING, "one")
    vault_of(couch).set(INCOMING, "two")
    clock.now += 1.1
    assert cached.matches(INCOMING, "two") is True
    assert cached.matches(INCOMING, "one") is False


def test_what_is_made_of_a_credential(couch: MemoryCouch, cached: CachedVault, clock: Clock) -> None:
    cached.set(INCOMING, "one")
    assert cached.matches(INCOMING, "eno", lambda value: value[::-1])
    assert not cached.matches(INCOMING, "one", lambda value: value[::-1])
    assert not cached.matches("unset", "", lambda value: value[::-1])
    vault_of(couch).set(INCOMING, "two")
    clock.now += 1.1
    assert cached.matches(INCOMING, "owt", lambda value: value[::-1])


def test_wrong_keys_read_at_most_once_a_second(couch: MemoryCouch, cached: CachedVault, clock: Clock) -> None:
    cached.set(INCOMING, "one")
    clock.now += 1.1
    couch.vault.reads = 0
    for _ in range(50):
        assert cached.matches(INCOMING, "wrong") is False
    assert couch.vault.reads == 1


def test_while_one_thread_reads_the_others_answer_from_memory(
    couch: MemoryCouch, cached: CachedVault, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached.set(INCOMING, "one")
    vault_of(couch).set(INCOMING, "two")
    clock.now += 6
    reading, go_on = threading.Event(), threading.Event()
    fetch = couch.vault.fetch

    def slow(ids: Iterable[str]) -> dict[str, Document]:
        reading.set()
        assert go_on.wait(30)
        return fetch(ids)

    monkeypatch.setattr(MemoryDatabase, "fetch", lambda self, ids: slow(ids))
    answers: list[object] = []
    couch.vault.reads = 0
    first = threading.Thread(target=lambda: answers.append(cached.get(INCOMING)))
    first.start()
    assert reading.wait(30)
    assert cached.get(INCOMING) == "one"
    # A key that does not match what is remembered waits for the newest: it may be the new one.
    second = threading.Thread(target=lambda: answers.append(cached.matches(INCOMING, "two")))
    second.start()
    go_on.set()
    first.join()
    second.join()
    assert sorted(map(str, answers)) == ["True", "two"]
    assert couch.vault.reads == 1, "the second has what the first has just read"


class Door:
    """A lock that tells when somebody wants it who has to wait, or does not want to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.tried = threading.Semaphore(0)

    def acquire(self, blocking: bool = True) -> bool:
        if self._lock.acquire(blocking=False):
            return True
        self.tried.release()
        return blocking and self._lock.acquire()

    def release(self) -> None:
        self._lock.release()


def test_what_was_never_read_is_waited_for_while_another_thread_reads(
    couch: MemoryCouch, cached: CachedVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a callback that comes while the first is being checked has no key."""
    vault_of(couch).set(INCOMING, "one")
    door, go_on = Door(), threading.Event()
    monkeypatch.setattr(cached, "_reading", door)
    fetch, reading = couch.vault.fetch, threading.Event()

    def slow(ids: Iterable[str]) -> dict[str, Document]:
        reading.set()
        assert go_on.wait(30)
        return fetch(ids)

    monkeypatch.setattr(couch.vault, "fetch", slow)
    answers: list[str | None] = []
    threads = [threading.Thread(target=lambda: answers.append(cached.get(INCOMING))) for _ in range(2)]
    threads[0].start()
    assert reading.wait(30)
    threads[1].start()
    assert door.tried.acquire(timeout=30)
    go_on.set()
    for thread in threads:
        thread.join()
    assert answers == ["one", "one"]


def test_who_wants_to_know_is_told_of_what_has_changed(couch: MemoryCouch, clock: Clock) -> None:
    told: list[tuple[str, str | None]] = []
    cached = CachedVault(cast(Couch, couch), keys(), 5, clock, lambda *change: told.append(change))
    cached.set(f" {INCOMING} ", "one")
    for _ in range(2):
        clock.now += 6
        assert cached.get(INCOMING) == "one"
        assert cached.get("unset") is None
    cached.set(INCOMING, "one")
    assert told == [(INCOMING, "one")]
    vault_of(couch).set(INCOMING, "two")
    clock.now += 6
    cached.get(INCOMING)
    cached.delete(INCOMING)
    assert told[1:] == [(INCOMING, "two"), (INCOMING, None)]


def test_what_couchdb_does_not_let_us_read_is_as_it_was(
    couch: MemoryCouch, cached: CachedVault, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached.set(INCOMING, "one")

    def refuse(ids: Iterable[str]) -> dict[str, Document]:
        raise CouchError(401, "the session has ended")

    monkeypatch.setattr(couch.vault, "fetch", refuse)
    clock.now += 6
    assert cached.get(INCOMING) == "one"
    with pytest.raises(CouchError):
        cached.get("never read")
