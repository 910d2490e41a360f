"""Who leads: takeover, conflicts, lost answers and the fence, on a clock of ours."""

import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from mjumbe.cached_vault import CachedVault
from mjumbe.couch import ConflictError, Couch, UnavailableError
from mjumbe.documents import Document
from mjumbe.gateways.base import FencedError
from mjumbe.status import LEADER_ID, ServiceStatus, read_status
from sentinel import lease
from sentinel.lease import LEASE_SECONDS, MARGIN_SECONDS, Lease, Owner, is_dead
from sentinel.process import Sentinel
from sentinel.schedule import GRACE_SECONDS
from tests.unit.sentinel.memory import MemoryDatabase

ALIVE = asdict(Owner.here())


@pytest.mark.parametrize(
    ("before", "grace"),
    [
        (None, 0.0),
        ({"owner": ALIVE, "released": True}, 0.0),
        ({"owner": ALIVE | {"started": "before"}}, 0.0),
        ({"owner": ALIVE}, GRACE_SECONDS),
        ({"owner": ALIVE | {"host": "another machine"}}, GRACE_SECONDS),
    ],
    ids=["nobody", "handed on", "died", "stopped", "cut off"],
)
def test_a_leader_before_that_may_be_alive_has_time_to_store_its_answers(before: Document | None, grace: float) -> None:
    sentinel = Sentinel(Couch("http://nobody.invalid/medic"), cast(CachedVault, None))
    sentinel._lease.previous = before
    assert sentinel._grace() == grace


def test_the_clock_goes_on_while_the_machine_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else whoever wakes takes its lease, which another has had for hours, for its own."""
    clocks = {time.CLOCK_MONOTONIC: 1.0, time.CLOCK_BOOTTIME: 3_601.0}
    monkeypatch.setattr(time, "clock_gettime", clocks.__getitem__)
    assert lease.clock() == 3_601.0


class Clock:
    """Waiting moves it on; `at` makes something happen at a moment."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.events: list[tuple[float, Callable[[], None]]] = []
        self.stop = threading.Event()

    def now(self) -> float:
        return self.seconds

    def at(self, seconds: float, event: Callable[[], None]) -> None:
        self.events.append((1000.0 + seconds, event))
        self.events.sort(key=lambda entry: entry[0])

    def is_set(self) -> bool:
        return self.stop.is_set()

    def wait(self, seconds: float) -> bool:
        self.seconds += seconds
        while self.events and self.events[0][0] <= self.seconds:
            self.events.pop(0)[1]()
        return self.stop.is_set()

    @property
    def elapsed(self) -> float:
        return self.seconds - 1000.0


class LeaderDatabase(MemoryDatabase):
    """`before` and `after` are raised by the next writes, before or after they are stored. `beside` is what conflicts
    with the document, by its revision; `looked` runs when its leaves were read."""

    def __init__(self) -> None:
        super().__init__("medic-sentinel")
        self.before: list[Exception | None] = []
        self.after: list[Exception | None] = []
        self.beside: dict[str, Document] = {}
        self.looked: Callable[[], None] = lambda: None

    def meet(self, doc: Document) -> None:
        """The other half of a cluster that was cut in two is back, with what was written there."""
        self.beside["1-other"] = doc | {"_rev": "1-other"}

    def leaves(self, *ids: str) -> dict[str, list[Document]]:
        found = [*self.fetch(ids).values(), *self.beside.values()]
        self.looked()
        return {LEADER_ID: found}

    def put(self, doc: Mapping[str, Any], *, surely: bool = False) -> str:
        assert surely, "a write that a minority took holds no lease"
        if self.before and (error := self.before.pop(0)):
            raise error
        rev = str(doc.get("_rev"))
        if rev in self.beside:
            del self.beside[rev]
            if not doc.get("_deleted"):
                self.beside[f"{rev}+"] = {**doc, "_rev": f"{rev}+"}
            return f"{rev}+"
        rev = super().put(doc)
        if self.after and (error := self.after.pop(0)):
            raise error
        return rev


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(lease, "clock", made.now)
    return made


@pytest.fixture
def database() -> LeaderDatabase:
    return LeaderDatabase()


AWAY = UnavailableError("CouchDB is away")


def acquire(subject: Lease, clock: Clock) -> bool:
    return subject.acquire(clock)  # type: ignore[arg-type]


def keep(subject: Lease, clock: Clock) -> None:
    subject.keep(clock)  # type: ignore[arg-type]


def stranger(**more: Any) -> dict[str, Any]:
    """A leader on another machine."""
    return {"_id": LEADER_ID, "owner": {"id": "x", "host": "elsewhere", "pid": 1, "started": "1"}, **more}


def test_the_first(clock: Clock, database: LeaderDatabase) -> None:
    subject = Lease(database, lambda: {"africas-talking": ServiceStatus(held=True, reason="no money")})
    with pytest.raises(FencedError):
        subject.check()
    assert acquire(subject, clock)
    assert clock.elapsed == 0
    subject.check()
    assert subject.previous is None
    status = read_status(database.docs[LEADER_ID])
    assert (status.released, status.services["africas-talking"].reason) == (False, "no money")


def test_a_newer_sentinel_may_say_more_of_its_services() -> None:
    """While they are brought up one after the other."""
    facts = {"held": True, "said_by_a_newer_one": 1}
    status = read_status({"_id": LEADER_ID, "owner": ALIVE, "services": {"viber": facts}, "more": {}})
    assert status.services == {"viber": ServiceStatus(held=True)}


def test_a_living_leader_is_left_alone(clock: Clock, database: LeaderDatabase) -> None:
    database.store(stranger())
    for second in range(0, 60, 2):
        clock.at(second, lambda: database.store(stranger()))
    clock.at(60, clock.stop.set)
    with capture_logs() as logs:
        assert not acquire(Lease(database), clock)
    assert [line["event"] for line in logs] == ["another sentinel holds the lease; this one stands by"]


def test_waiting_for_couchdb_is_said_once(clock: Clock, database: LeaderDatabase) -> None:
    subject = Lease(database)
    database.before = [AWAY] * 10
    with capture_logs() as logs:
        assert acquire(subject, clock)
        database.before = [AWAY] * 3
        clock.at(clock.elapsed + 15, clock.stop.set)
        keep(subject, clock)
    assert [line["event"] for line in logs] == [
        "waiting for CouchDB to see who leads",
        "this sentinel leads",
        "the heartbeat could not be written",
        "no longer: the heartbeat could not be written",
    ]


def test_a_silent_leader_is_replaced_after_the_lease(clock: Clock, database: LeaderDatabase) -> None:
    database.store(stranger())
    clock.at(5, lambda: database.store(stranger()))
    subject = Lease(database)
    assert acquire(subject, clock)
    assert 5 + LEASE_SECONDS < clock.elapsed <= 5 + LEASE_SECONDS + 3, "counted from its last heartbeat"
    assert subject.previous is not None
    assert subject.previous["owner"]["id"] == "x"


@pytest.mark.parametrize(
    "leader",
    [
        stranger(released=True),
        {"_id": LEADER_ID, "owner": {"id": "x", "host": lease._host(), "pid": 2**22 + 1, "started": "1"}},
        {"_id": LEADER_ID, "owner": {"id": "x", "host": lease._host(), "pid": 1, "started": "not then"}},
    ],
)
def test_a_leader_that_left_or_died_is_replaced_at_once(
    clock: Clock, database: LeaderDatabase, leader: dict[str, Any]
) -> None:
    database.store(leader)
    assert acquire(Lease(database), clock)
    assert clock.elapsed == 0


@pytest.mark.parametrize(
    ("owner", "dead"),
    [
        ({}, False),
        ({"host": "elsewhere", "pid": 2**22 + 1, "started": "1"}, False),
        ({"host": lease._host(), "pid": None, "started": "1"}, False),
        ({"host": lease._host(), "pid": 2**22 + 1, "started": "1"}, True),
        (ALIVE | {"pid": 1}, True),
    ],
    ids=["nobody", "another machine", "no number", "gone", "its number is another's by now"],
)
def test_who_is_dead(owner: dict[str, Any], dead: bool) -> None:
    assert is_dead(owner) is dead


def test_a_process_is_dead_when_it_has_ended_whatever_its_name() -> None:
    """Its parent may yet have to hear of it, as the first process of a container never does."""
    rename = "printf 'x) Z (' >/proc/$$/comm; echo; read -r _"
    with subprocess.Popen(["sh", "-c", rename], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as popen:
        assert popen.stdin and popen.stdout
        popen.stdout.readline()
        owner = ALIVE | {"pid": popen.pid, "started": lease._started(popen.pid)}
        assert not is_dead(owner)
        popen.stdin.close()
        os.waitid(os.P_PID, popen.pid, os.WEXITED | os.WNOWAIT)
        assert is_dead(owner)


@pytest.mark.parametrize("other", ["boot", "name", "processes"])
def test_a_pid_is_another_machine_s_though_most_is_the_same(monkeypatch: pytest.MonkeyPatch, other: str) -> None:
    """Copies of one machine have its name, and containers of one machine its boot."""
    here = lease._host()
    if other == "boot":
        monkeypatch.setattr(Path, "read_text", lambda _: "another boot")
    elif other == "name":
        monkeypatch.setattr("socket.gethostname", lambda: "another name")
    else:
        monkeypatch.setattr(Path, "readlink", lambda _: Path("pid:[1]"))
    assert lease._host() != here


def test_ourselves_are_not_dead(clock: Clock, database: LeaderDatabase) -> None:
    acquire(Lease(database), clock)
    assert not is_dead(database.docs[LEADER_ID]["owner"])


def test_of_two_only_one_takes_over(clock: Clock, database: LeaderDatabase) -> None:
    database.store(stranger(released=True))
    first, second = Lease(database), Lease(database)
    seen = [database.docs[LEADER_ID]]
    assert first._take(seen)
    assert not second._take(seen)
    first.check()
    with pytest.raises(FencedError):
        second.check()


def test_couchdb_is_away_while_waiting(clock: Clock, database: LeaderDatabase) -> None:
    database.before = [AWAY, AWAY, None]
    assert acquire(Lease(database), clock)
    assert clock.elapsed == 2


def test_the_answer_to_the_first_write_is_lost(clock: Clock, database: LeaderDatabase) -> None:
    database.after = [AWAY]
    subject = Lease(database)
    assert acquire(subject, clock)
    subject.check()
    assert clock.elapsed <= LEASE_SECONDS + 3


# ---- heartbeats and the fence


def lead(clock: Clock, database: LeaderDatabase) -> Lease:
    subject = Lease(database)
    assert acquire(subject, clock)
    return subject


def test_heartbeats_move_the_fence(clock: Clock, database: LeaderDatabase) -> None:
    subject = lead(clock, database)
    clock.at(60, clock.stop.set)
    for second in range(1, 60):
        clock.at(second, subject.check)
    keep(subject, clock)


def test_the_fence_comes_before_a_standby_may_take_over(clock: Clock, database: LeaderDatabase) -> None:
    subject = lead(clock, database)
    clock.seconds += LEASE_SECONDS - MARGIN_SECONDS - 0.1
    subject.check()
    clock.seconds += 0.2
    with pytest.raises(FencedError, match="no longer leads"):
        subject.check()


def test_a_write_counts_from_when_it_began(clock: Clock, database: LeaderDatabase) -> None:
    """The standby may see the heartbeat as soon as it is written, however late its answer comes."""
    subject = lead(clock, database)

    class Slow(LeaderDatabase):
        def put(self, doc: Mapping[str, Any], *, surely: bool = False) -> str:
            clock.seconds += 7
            return database.put(doc, surely=surely)

    subject._database = Slow()
    subject._write(released=False)
    clock.seconds += 1.5
    with pytest.raises(FencedError):
        subject.check()


def test_couchdb_is_away_for_too_long(clock: Clock, database: LeaderDatabase) -> None:
    subject = lead(clock, database)
    database.before = [AWAY] * 100
    keep(subject, clock)
    assert clock.elapsed <= LEASE_SECONDS
    with pytest.raises(FencedError):
        subject.check()


def test_cut_off_with_a_minority_of_a_cluster(clock: Clock, database: LeaderDatabase) -> None:
    """Every write there is stored, answered 202, and counts for nothing."""
    standby = Lease(database)
    database.after = [AWAY] * 20
    clock.at(15, clock.stop.set)
    assert not acquire(standby, clock)
    database.after, clock.stop = [], threading.Event()
    subject = lead(clock, LeaderDatabase())
    minority = subject._database
    assert isinstance(minority, LeaderDatabase)
    minority.after = [AWAY] * 100
    keep(subject, clock)
    with pytest.raises(FencedError):
        subject.check()


def test_where_two_halves_meet_a_leader_of_the_other_is_left_alone(clock: Clock, database: LeaderDatabase) -> None:
    """Each wrote on from its own revision, which CouchDB takes, and both led from then on, for good."""
    subject = lead(clock, database)
    other = Lease(database)
    other._rev = "1-other"
    database.meet(stranger(owner=asdict(other._owner)))
    for second in range(2, 60, 2):
        clock.at(second, lambda: other._write(released=False))
    clock.at(60, clock.stop.set)
    assert not acquire(subject, clock)


def test_a_leader_of_the_other_half_that_is_met_while_we_take_over_is_left_alone(
    clock: Clock, database: LeaderDatabase
) -> None:
    subject = Lease(database)

    def meet() -> None:
        database.meet(stranger())
        database.looked = lambda: None

    database.looked = meet
    assert acquire(subject, clock)
    assert clock.elapsed > LEASE_SECONDS, "it may be alive"
    assert database.beside == {}
    assert subject.previous is not None
    assert subject.previous["owner"]["id"] == "x", "its requests may be under way"


def test_a_leader_removes_what_another_half_left(clock: Clock, database: LeaderDatabase) -> None:
    subject = lead(clock, database)
    database.meet(stranger())
    clock.at(70, clock.stop.set)
    keep(subject, clock)
    assert clock.elapsed >= 70
    subject.check()
    assert database.beside == {}, "or everybody might be shown it"


def test_what_stands_beside_our_lease_does_not_end_it_with_an_answer_that_is_lost(
    clock: Clock, database: LeaderDatabase
) -> None:
    subject = lead(clock, database)
    database.meet(stranger())
    database.after = [AWAY]
    clock.at(20, clock.stop.set)
    keep(subject, clock)
    assert clock.elapsed >= 20
    subject.check()


def test_our_own_lease_that_ran_out_is_taken_again_at_once(clock: Clock, database: LeaderDatabase) -> None:
    subject = lead(clock, database)
    clock.seconds += 2 * LEASE_SECONDS
    began = clock.elapsed
    assert acquire(subject, clock)
    assert clock.elapsed == began
    subject.check()


def test_couchdb_is_away_for_a_moment(clock: Clock, database: LeaderDatabase) -> None:
    subject = lead(clock, database)
    database.before = [AWAY, AWAY, None]
    clock.at(60, clock.stop.set)
    keep(subject, clock)
    assert clock.elapsed >= 60
    subject.check()


def test_a_heartbeat_whose_answer_is_lost_is_no_conflict(clock: Clock, database: LeaderDatabase) -> None:
    subject = lead(clock, database)
    database.after = [AWAY]
    clock.at(20, clock.stop.set)
    keep(subject, clock)
    assert clock.elapsed >= 20
    subject.check()


def test_another_has_taken_over(clock: Clock, database: LeaderDatabase) -> None:
    subject = lead(clock, database)
    database.store(stranger())
    keep(subject, clock)
    assert clock.elapsed <= 2
    with pytest.raises(FencedError):
        subject.check()
    subject.release()
    assert database.docs[LEADER_ID]["owner"]["id"] == "x", "what is another's is left alone"


def test_a_release(clock: Clock, database: LeaderDatabase) -> None:
    subject = lead(clock, database)
    subject.release()
    assert database.docs[LEADER_ID]["released"] is True
    with pytest.raises(FencedError):
        subject.check()
    assert acquire(Lease(database), clock)
    assert clock.elapsed == 0


@pytest.mark.parametrize("error", [AWAY, ConflictError(409, "Document update conflict.")])
def test_a_release_that_fails_is_only_said(clock: Clock, database: LeaderDatabase, error: Exception) -> None:
    subject = lead(clock, database)
    database.before = [error, error]
    subject.release()
    with pytest.raises(FencedError):
        subject.check()
