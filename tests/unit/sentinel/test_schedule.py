"""What the clock brings to the outbox: fairly from what waits, and back from the phone gateway. A store in memory."""

import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mjumbe import documents, settings, states
from mjumbe.couch import CouchError, NotFoundError
from mjumbe.documents import Document, Key
from mjumbe.gateways import PHONE_GATEWAY
from mjumbe.gateways.base import Failure, Gateway, Outcome
from mjumbe.live_settings import LiveSettings
from mjumbe.settings import ServiceSettings
from sentinel import schedule
from sentinel.outbox import Outbox
from sentinel.pipeline import Pipeline
from sentinel.queue import CAPACITY
from sentinel.reports import Reports
from sentinel.schedule import PAGE, Clock
from sentinel.service import Service
from sentinel.services import Services
from tests.unit.sentinel.memory import MemoryCouch, due

AT = "africas-talking"


class Lab:
    """A clock, and what it brought. `chosen` takes messages now; `left` are those that only the phone takes."""

    def __init__(self) -> None:
        self.couch = MemoryCouch()
        self.couch.main.views = {"due": due, "by_phone": lambda doc: []}
        self.chosen: Service | str | None = None
        self.left: Callable[[str], bool] = lambda doc_id: False
        self.brought: list[str] = []
        self.known: set[Key] = set()  # queued or under way
        self.order = [AT]
        self.has_room = True
        self.full: set[str | None] = set()  # those by whom so many messages wait that no more fit into memory
        self.changed = settings.parse({})  # the settings in CouchDB
        self.live = SimpleNamespace(
            current=self.changed, refresh=self._refresh, refresh_if_older=lambda seconds: self._refresh()
        )
        outbox = SimpleNamespace(
            has_room=lambda: self.has_room,
            takes=lambda route: route.via not in self.full,
            knows=self.known.__contains__,
            leaves_to_phone=lambda key: self.left(key[0]),
        )
        self.clock = Clock(
            self.couch.as_couch(),
            cast(LiveSettings, self.live),
            cast(Pipeline, SimpleNamespace(process=self._process)),
            cast(Services, SimpleNamespace(choose=lambda route: self.chosen, order=lambda: self.order)),
            cast(Outbox, outbox),
            cast(Reports, SimpleNamespace(look_again=lambda: None)),
        )

    def _refresh(self) -> None:
        self.live.current = self.changed

    def _process(self, docs: Sequence[Document]) -> None:
        self.brought += [doc["_id"] for doc in docs]

    def write(self, name: str, count: int, minutes_ago: float, **facts: Any) -> None:
        """A broadcast: so many messages, a millisecond apart."""
        began = states.now() - timedelta(minutes=minutes_ago)
        for n in range(count):
            at = began + timedelta(milliseconds=n)
            doc = documents.outgoing_document(documents.new_task("+254711000001", name, at, due=at, **facts), at, None)
            self.couch.main.store({**doc, "_id": f"{name}{n:05}"})

    def bring(self) -> list[str]:
        self.brought.clear()
        self.clock._due()
        return self.brought


@pytest.fixture
def lab() -> Lab:
    return Lab()


def service(**limits: Any) -> Service:
    return Service(AT, cast(Gateway, None), ServiceSettings(**limits))


# ---- what is due


def test_what_fits_into_a_page_is_brought_oldest_first(lab: Lab) -> None:
    lab.write("b", 10, 1)
    lab.write("a", 10, 2)
    assert lab.bring() == [f"{name}{n:05}" for name in "ab" for n in range(10)]


def test_what_was_written_after_the_settings_changed_goes_by_the_new_ones(lab: Lab) -> None:
    """The feed may not have heard of the change yet."""
    lab.changed = settings.parse({"sms": {"outgoing_service": "textbee"}})
    lab.write("a", 1, 0)
    assert lab.bring() == ["a00000"]
    assert lab.live.current is lab.changed


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_long_broadcast_keeps_no_other_waiting_in_couchdb(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    monkeypatch.setattr(schedule.random, "uniform", lambda first, last: first + share * (last - first))
    lab.write("a", PAGE + CAPACITY + 100, 60)
    lab.write("b", 20, 20)
    lab.write("c", 20, 1)
    brought = lab.bring()
    assert len(brought) == len(set(brought))
    assert brought[: PAGE // 2] == [f"a{n:05}" for n in range(PAGE // 2)], "the oldest get on, whatever comes"
    assert {doc_id[0] for doc_id in brought[PAGE // 2 :]} == {0.0: set(), 0.5: {"b", "c"}, 1.0: {"c"}}[share]


def test_what_waits_for_a_held_service_keeps_no_other_waiting_in_couchdb(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule.random, "uniform", lambda first, last: last)
    clock = SimpleNamespace(monotonic=lambda: 1000.0)
    monkeypatch.setattr(schedule, "time", clock)
    lab.write("a", PAGE + CAPACITY + 100, 60, via="textbee")
    lab.full.add("textbee")
    assert lab.bring() == []
    lab.write("b", 20, 1)
    assert lab.bring() == [], "it looks again after a while"
    clock.monotonic = lambda: 1000.0 + schedule.STUCK_SECONDS
    monkeypatch.setattr(schedule.random, "uniform", lambda first, last: (first + last) / 2)
    assert lab.bring() == [f"b{n:05}" for n in range(20)]


@pytest.mark.parametrize(
    ("reason", "again"),
    [("not_found: missing", True), ("not_found: deleted", True), ("not_found: Database does not exist.", False)],
)
def test_what_somebody_deleted_is_made_again_but_for_the_database(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, reason: str, again: bool
) -> None:
    made: list[object] = []
    stop = threading.Event()

    def gone(*_: object, **__: object) -> None:
        stop.set()
        raise NotFoundError(404, reason)

    monkeypatch.setattr(lab.couch.main, "view", gone)
    monkeypatch.setattr(schedule.setup, "prepare", made.append)
    lab.clock.run(stop)
    assert made == [lab.couch] * again


def test_an_index_is_brought_up_once_a_tick(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a broadcast each question would wait anew for what was written since the one before."""
    lab.write("a", PAGE + CAPACITY, 1)
    asked = _record_questions(lab, monkeypatch)
    lab.clock._tick()
    # whether anything is scheduled, to be answered, pending, left to phones
    each_tick: list[object] = [[("due", update) for update in ("true", "false", "false", "false")]]
    # the pending ones, the newest of them, those from a moment of chance
    each_tick += [("due", "false")] * 3
    # what waits, is left to phones, or is bound to them, for too long
    each_minute = [*[("due", "false")] * 3, ("by_phone", "lazy")]
    assert asked == each_tick + each_minute
    assert lab.brought
    lab.clock._tick()
    assert asked == each_tick + each_minute + each_tick


def test_where_nothing_waits_the_index_is_asked_one_question_a_tick(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.clock._tick()
    asked = _record_questions(lab, monkeypatch)
    lab.clock._tick()
    assert len(asked) == 1


def _record_questions(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Requests of views from now on: the view and `update`, or a list of them."""
    asked: list[object] = []
    main = lab.couch.main

    def view(design: str, name: str, **query: Any) -> Any:
        asked.append((name, query.get("update", "true")))
        return type(main).view(main, design, name, **query)

    def view_queries(design: str, name: str, queries: Sequence[Mapping[str, Any]]) -> Any:
        asked.append([(name, query.get("update", "true")) for query in queries])
        return [type(main).view(main, design, name, **query) for query in queries]

    monkeypatch.setattr(main, "view", view)
    monkeypatch.setattr(main, "view_queries", view_queries)
    return asked


def test_while_the_outbox_has_no_room_what_is_due_is_looked_for_less_often(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=1000.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(schedule, "time", clock)

    def tick(at: float) -> list[str]:
        clock.now = at
        lab.brought.clear()
        lab.clock._tick()
        return list(lab.brought)

    due = states.now() + timedelta(seconds=0.1)
    task = documents.new_task("+254711000001", "a", states.now(), due=due)
    lab.couch.main.store({**documents.outgoing_document(task, due, None), "_id": "a"})
    monkeypatch.setattr(states, "now", lambda: due)
    lab.has_room = False
    looks = {seconds: tick(1000.0 + seconds) for seconds in (0.0, 1.0, 4.9, 5.0, 5.1, 9.9, 10.0)}
    assert [seconds for seconds, brought in looks.items() if brought] == [0.0, 5.0, 10.0]
    assert looks[5.0] == ["a"]
    lab.order = [AT, PHONE_GATEWAY]
    assert tick(1010.5) == ["a"], "a phone waits for what is left to it"
    lab.order, lab.has_room = [AT], True
    assert tick(1011.0) == ["a"]


def test_without_an_index_of_contacts_messages_go_out_or_expire(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.write("a", 1, 1)
    lab.write("old", 1, 8 * 24 * 60, service=PHONE_GATEWAY)
    view = lab.couch.main.view

    def damaged(design: str, name: str, **query: Any) -> Any:
        if name == "by_phone":
            raise CouchError(500, "file_corruption")
        return view(design, name, **query)

    monkeypatch.setattr(lab.couch.main, "view", damaged)
    with pytest.raises(CouchError):
        lab.clock._tick()
    assert lab.brought == ["a00000", "old00000"]


def test_while_bulk_leaves_no_room_answers_and_what_goes_another_way_are_brought(lab: Lab) -> None:
    """They were tried before, or another sentinel left them; where a service is slow there is no room for hours."""
    lab.write("bulk", PAGE + CAPACITY + 1, 60)
    lab.write("elsewhere", 1, 61, via="textbee")
    task = documents.new_task("+254711000001", "answer", states.now())
    incoming = {"type": "data_record", "from": "+254711000001", "sms_message": {"message": "HELP"}, "tasks": [task]}
    lab.couch.main.store({"_id": "answer", **incoming})
    lab.has_room, lab.full = False, {None}
    assert lab.bring() == ["answer", "elsewhere00000"]
    lab.has_room, lab.full = True, set()
    assert len(lab.bring()) > 2, "as soon as there is room"


def test_of_many_that_fall_due_at_once_the_next_page_does_not_wait(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "time", SimpleNamespace(monotonic=lambda: 1000.0))
    lab.has_room = False
    lab.write("a", PAGE, 1, state="scheduled")
    lab.write("b", 1, 1)
    for _ in range(2):
        lab.brought.clear()
        lab.clock._tick()
        assert lab.brought[:PAGE] == [f"a{n:05}" for n in range(PAGE)]


# ---- what was left to the phone gateway


def test_it_is_brought_only_when_another_service_takes_it(lab: Lab) -> None:
    lab.write("a", 10, 1, service=PHONE_GATEWAY)
    for chosen in (None, PHONE_GATEWAY):
        lab.chosen = chosen
        assert lab.bring() == []
    lab.chosen = service()
    assert len(lab.bring()) == 10


def test_what_was_written_for_the_phone_alone_stays_there(lab: Lab) -> None:
    lab.write("a", 10, 1, service=PHONE_GATEWAY, via=PHONE_GATEWAY)
    lab.chosen = service()
    assert lab.bring() == []


def test_what_only_the_phone_takes_does_not_stand_before_the_others(lab: Lab) -> None:
    lab.write("a", 10, 2, service=PHONE_GATEWAY)
    lab.write("b", 10, 1, service=PHONE_GATEWAY)
    lab.left = lambda doc_id: doc_id.startswith("a")
    lab.chosen = service()
    assert {doc_id[0] for doc_id in lab.bring()} == {"b"}


def test_as_many_as_the_service_takes(lab: Lab) -> None:
    lab.write("a", 10, 1, service=PHONE_GATEWAY)
    lab.chosen = service(max_per_second=3, batch_size=2)
    assert len(lab.bring()) == 6
    lab.chosen.answered([Outcome("InsufficientBalance", failure=Failure.CONFIGURATION)])
    assert lab.bring() == ["a00000"], "a probe"


# ---- what CHT gave to phones


def given(lab: Lab, days_ago: float, **facts: Any) -> Document:
    """A message in the state in which CHT leaves what a phone was given, when the clock has looked at claims."""
    at = states.now() - timedelta(days=days_ago)
    task = {**documents.new_task("+254711000001", "a", at), "state": "forwarded-to-gateway", **facts}
    lab.couch.main.store({**documents.outgoing_document(task, at, None), "_id": "given"})
    lab.clock.doubt_claims(0.0)
    lab.clock.doubt_claims(0.0)
    doc = lab.couch.main.get("given")
    assert doc is not None
    found: Document = doc["tasks"][0]
    return found


def test_what_cht_gave_to_a_phone_is_left_to_phones(lab: Lab) -> None:
    task = given(lab, 1)
    assert (task["state"], task["service"]) == ("forwarded-to-gateway", PHONE_GATEWAY)
    assert len(task["state_history"]) == 2, "said once"


@pytest.mark.parametrize(
    ("days_ago", "facts"),
    [(8, {}), (1, {"service": PHONE_GATEWAY, "claim": "phone1"}), (1, {"service": PHONE_GATEWAY})],
    ids=["too old", "a phone's", "left to phones already"],
)
def test_what_is_not_left_to_phones_anew(lab: Lab, days_ago: float, facts: dict[str, Any]) -> None:
    task = given(lab, days_ago, **facts)
    assert task["state_history"] == [task["state_history"][0]]
    assert {name: task.get(name) for name in ("service", "claim")} == {"service": None, "claim": None} | facts


@pytest.mark.parametrize("facts", [{}, {"service": PHONE_GATEWAY}, {"service": PHONE_GATEWAY, "via": PHONE_GATEWAY}])
def test_what_grew_too_old_is_brought_wherever_it_waits(lab: Lab, facts: dict[str, Any]) -> None:
    """Also where nothing else brings it: with a phone that is gone, nobody would ever call it failed."""
    lab.write("old", 1, 8 * 24 * 60, **facts)
    lab.has_room, lab.full = False, {None, PHONE_GATEWAY}
    lab.clock._tick()
    assert lab.brought == ["old00000"]


# ---- claims that nobody answered


def claimed_long_ago() -> Document:
    task = documents.new_task("+254711000001", "x", states.now(), message_uuid="u")
    states.claim(task, states.now() - timedelta(hours=1), AT, "another's")
    return documents.outgoing_document(task, states.now(), None) | {"_id": "d"}


def test_a_claim_is_in_doubt_when_its_grace_is_over_by_our_own_clock(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever made it may still be storing the answer; when that was, another machine's clock says."""
    moments = iter((1_000.0, 1_089.0, 1_090.0))
    monkeypatch.setattr(schedule, "time", SimpleNamespace(monotonic=lambda: next(moments)))
    lab.couch.main.store(claimed_long_ago())
    in_doubt = []
    for _ in range(3):
        lab.clock.doubt_claims(90.0)
        in_doubt.append("in_doubt" in lab.couch.main.docs["d"]["tasks"][0])
    assert in_doubt == [False, False, True]


def test_a_claim_that_is_seen_for_a_minute_and_a_half_is_in_doubt_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not sooner: a leader that may still be alive has so long for storing the answer to its request."""
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(schedule, "time", clock)
    lab = Lab()
    lab.couch.main.store(claimed_long_ago())
    while "in_doubt" not in lab.couch.main.docs["d"]["tasks"][0] and clock.now < 1000:
        clock.now += 1
        lab.clock._tick()
    assert 90 < clock.now < 130


def test_what_is_under_way_here_is_not_in_doubt(lab: Lab) -> None:
    lab.couch.main.store(claimed_long_ago())
    lab.known.add(("d", "u"))
    lab.clock.doubt_claims(0.0)
    assert "in_doubt" not in lab.couch.main.docs["d"]["tasks"][0]


def test_a_claim_that_nobody_answered_puts_no_phone_s_message_in_doubt(lab: Lab) -> None:
    at, claimed = states.now(), {"state": "forwarded-to-gateway"}
    phone_s = {**documents.new_task("+254711000001", "a", at), **claimed, "service": PHONE_GATEWAY, "claim": "phone1"}
    lost = {**documents.new_task("+254711000002", "a", at), **claimed, "service": AT, "claim": "c1"}
    lab.couch.main.store({**documents.outgoing_document(phone_s, at, None), "_id": "d", "tasks": [phone_s, lost]})
    lab.clock.doubt_claims(0.0)
    first, second = lab.couch.main.docs["d"]["tasks"]
    assert first == phone_s, "the phone has it, and may have sent it"
    assert (second["state"], second.get("claim"), second["in_doubt"]) == ("pending", None, True)
