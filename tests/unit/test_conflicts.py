"""What a conflicting revision of a document tells of its messages."""

import copy
from collections.abc import Sequence
from typing import Any

import pytest

from mjumbe.conflicts import settle
from mjumbe.documents import Document
from mjumbe.edits import apply_edits
from tests.unit.memory import MemoryDatabase

REV = "2-b"


class Torn(MemoryDatabase):
    """A database with one document in conflict."""

    def __init__(self, doc: Document, other: Document | None) -> None:
        super().__init__()
        self.store({"_id": "a", "type": "data_record", **doc})
        self.other = other and {"_id": "a", "_rev": REV, "type": "data_record", **other}
        self.asked: list[tuple[str, str]] = []

    def fetch(self, ids: Any) -> dict[str, Document]:
        return {doc_id: {**doc, "_conflicts": [REV]} for doc_id, doc in super().fetch(ids).items()}

    def read_revisions(self, named: Sequence[tuple[str, str]]) -> list[Document]:
        self.asked += named
        return [copy.deepcopy(self.other)] if named and self.other else []


def settled(doc: Document, other: Document | None) -> Document:
    """The document after it was compared with the other revision of it."""
    database = Torn(doc, other)
    (found,) = database.fetch(["a"]).values()
    settle(database, [found])
    return found


def entry(state: str, second: int = 0) -> dict[str, Any]:
    return {"state": state, "timestamp": f"2026-01-01T00:00:{second:02}.000Z"}


def task(*states: str, uuid: str | None = "u", due: str | None = None, **facts: Any) -> dict[str, Any]:
    """A task that went through these states, a second each."""
    messages = {"messages": [{"to": "+254700000001", "message": "hello", "uuid": uuid}]} if uuid else {}
    dated = {"due": due} if due else {}
    history = [entry(state, second) for second, state in enumerate(states)]
    return {**messages, **dated, "state": states[-1], "state_history": history, **facts}


@pytest.mark.parametrize(
    ("ours", "theirs", "state"),
    [
        (["scheduled"], ["scheduled", "pending", "forwarded-to-gateway"], "forwarded-to-gateway"),
        (["scheduled"], ["scheduled", "cleared"], "cleared"),
        (["scheduled"], ["scheduled", "pending"], "scheduled"),  # who rescheduled it is right
        (["pending"], ["pending", "forwarded-to-gateway", "sent", "delivered"], "delivered"),
        (["pending"], ["pending", "forwarded-to-gateway", "failed"], "failed"),
        (["pending"], ["pending", "muted"], "muted"),
        (["pending", "forwarded-to-gateway", "sent"], ["pending"], "sent"),
        (["pending", "cleared"], ["pending", "forwarded-to-gateway", "sent"], "sent"),
        (["pending", "forwarded-to-gateway", "sent"], ["pending", "cleared"], "sent"),
        (["pending", "forwarded-to-gateway", "failed"], ["pending", "forwarded-to-gateway", "delivered"], "delivered"),
        # What this one has been through already is no news: it was put back since.
        (
            ["pending", "forwarded-to-gateway", "failed", "pending"],
            ["pending", "forwarded-to-gateway", "failed"],
            "pending",
        ),
        # It was tried again there, since.
        (
            ["pending", "forwarded-to-gateway", "failed", "pending"],
            ["pending", "forwarded-to-gateway", "failed", "pending", "forwarded-to-gateway", "failed"],
            "failed",
        ),
        (["pending", "failed"], ["pending", "received-by-gateway"], "received-by-gateway"),
        (["pending", "received-by-gateway"], ["pending", "failed"], "received-by-gateway"),
        (["pending", "sent"], ["pending", "pending", "sent"], "sent"),  # as far: it stays as it is
        (["pending"], ["pending", "nobody-knows"], "pending"),
    ],
    ids=lambda states: states if isinstance(states, str) else states[-1],
)
@pytest.mark.parametrize("name", ["tasks", "scheduled_tasks"])
def test_the_state_that_says_more_stands(name: str, ours: list[str], theirs: list[str], state: str) -> None:
    doc = settled({name: [task(*ours)]}, {name: [task(*theirs, gateway_ref="ATXid_1")]})
    assert doc[name][0]["state"] == state
    is_taken = state == theirs[-1] != ours[-1]
    assert doc[name][0].get("gateway_ref") == ("ATXid_1" if is_taken else None)
    assert doc["settled_conflicts"] == [REV]


def test_the_history_holds_both_in_order_and_says_where_from() -> None:
    ours = task("pending", retry_at="2026-01-01T00:00:09.000Z") | {
        "state_history": [entry("pending", 0), entry("pending", 1), entry("pending", 3)]
    }
    theirs = task("pending") | {"state": "sent", "state_history": [entry("pending", 0), entry("sent", 2)]}
    doc = settled({"tasks": [ours]}, {"tasks": [theirs]})
    history = doc["tasks"][0]["state_history"]
    assert "retry_at" not in doc["tasks"][0], "it is what the other is"
    known = [entry("pending", 0), entry("pending", 1), entry("sent", 2), entry("pending", 3)]
    assert history[:4] == known
    assert (history[4]["state"], history[4]["state_details"]) == ("sent", "from the conflicting revision 2-b")
    assert len(history) == 5


def test_a_state_without_a_history_is_news_too() -> None:
    theirs = task("pending") | {"state": "sent"}
    assert settled({"tasks": [task("pending")]}, {"tasks": [theirs]})["tasks"][0]["state"] == "sent"


@pytest.mark.parametrize(
    ("ours", "theirs", "is_known"),
    [
        (task("scheduled", uuid=None, due="2026-02-01"), task("sent", due="2026-02-01"), True),
        (task("scheduled", uuid=None, due="2026-02-02"), task("sent", due="2026-02-01"), False),
        (task("scheduled", uuid="other", due="2026-02-01"), task("sent", due="2026-02-01"), False),
        (task("scheduled", uuid=None), task("cleared", uuid=None), True),
    ],
    ids=["no message yet", "another date", "another message", "no message at all"],
)
def test_a_task_without_message_is_known_by_its_place_and_date(ours: Any, theirs: Any, is_known: bool) -> None:
    first = task("scheduled", uuid="first")
    doc = settled({"scheduled_tasks": [first, ours]}, {"scheduled_tasks": [first, theirs]})
    assert [one["state"] for one in doc["scheduled_tasks"]] == [
        "scheduled",
        theirs["state"] if is_known else "scheduled",
    ]


def test_the_tasks_of_another_list_are_others() -> None:
    doc = settled({"tasks": [task("scheduled", uuid=None)]}, {"scheduled_tasks": [task("sent", uuid=None)]})
    assert doc["tasks"][0]["state"] == "scheduled"


@pytest.mark.parametrize(
    ("marks", "tasks", "has"),
    [
        ({}, [], ["reply"]),
        (None, None, ["reply"]),
        ("nonsense", "nonsense", ["reply"]),
        ({"default_responses": {"ok": True}}, [], []),  # somebody took it away
        ({}, [task("pending", uuid="reply")], ["reply"]),
        ({}, [task("pending", uuid="mine")], ["mine", "reply"]),
    ],
)
def test_answers_are_taken_with_the_marks_of_who_made_them(marks: Any, tasks: Any, has: list[str]) -> None:
    incoming = {"from": "+254700000001", "sms_message": {"message": "HELP"}}
    given = {name: value for name, value in (("transitions", marks), ("tasks", tasks)) if value is not None}
    other = {"transitions": {"default_responses": {"ok": True}}, "tasks": [task("sent", uuid="reply")]}
    doc = settled({**incoming, **given}, {**incoming, **other})
    assert doc["transitions"] == {"default_responses": {"ok": True}}
    uuids = [one["messages"][0]["uuid"] for one in doc.get("tasks") or []]
    assert uuids == has
    assert all(one["state"] == "sent" for one in doc.get("tasks") or [] if one["messages"][0]["uuid"] == "reply")


def test_a_mark_that_both_have_is_ours_and_whose_marks_are_all_known_has_nothing_to_tell() -> None:
    marks = {"a": {"ok": 1}, "b": {"ok": 1}}
    other = {"transitions": {"a": {"ok": 2}}, "tasks": [task("sent", uuid="reply")]}
    doc = settled({"tasks": [], "transitions": marks}, other)
    assert (doc["tasks"], doc["transitions"]) == ([], marks), "somebody took the answer away"
    doc = settled({"tasks": [], "transitions": {"a": {"ok": 1}}}, {**other, "transitions": {"a": {"ok": 2}, "b": {}}})
    assert (len(doc["tasks"]), doc["transitions"]) == (1, {"a": {"ok": 1}, "b": {}})


@pytest.mark.parametrize(
    ("doc", "other"),
    [
        ({"tasks": [task("pending")]}, {"name": "x"}),
        ({}, {"tasks": [task("sent")]}),
        ({"from": "+254700000001", "sms_message": {"message": "HELP"}}, {"name": "x"}),
        ({}, {"from": "+254700000001", "sms_message": {"message": "HELP"}}),
    ],
)
def test_where_either_has_to_do_with_messages_it_is_noted_that_they_were_compared(
    doc: Document, other: Document
) -> None:
    database = Torn({**doc, "settled_conflicts": ["2-a"]}, other)
    (found,) = database.fetch(["a"]).values()
    assert settle(database, [found]) == {"a"}
    assert found["settled_conflicts"] == ["2-a", REV]


@pytest.mark.parametrize("other", [None, {"name": "a clinic"}])
def test_what_is_no_message_is_left_alone(other: Document | None) -> None:
    database = Torn({"name": "the clinic"}, other)
    (found,) = database.fetch(["a"]).values()
    assert settle(database, [found]) == set()
    assert "_conflicts" not in found
    assert "settled_conflicts" not in found


def test_a_revision_is_looked_at_once() -> None:
    database = Torn({"tasks": [task("pending")]}, {"tasks": [task("sent")]})
    seen: list[str] = []

    def look(doc: Document) -> bool:
        seen.append(doc["tasks"][0]["state"])
        return False

    assert apply_edits(database, {"a": look})["a"].written, "what the other revision knew is not stored"
    assert not apply_edits(database, {"a": look})["a"].written
    assert (seen, database.asked) == (["sent", "sent"], [("a", REV)])
    assert "_conflicts" not in database.docs["a"]


@pytest.mark.parametrize("kept", ["nonsense", None, {}])
def test_others_write_anything_there(kept: Any) -> None:
    doc = settled({"tasks": [task("pending")], "settled_conflicts": kept}, {"tasks": [task("sent")]})
    assert (doc["tasks"][0]["state"], doc["settled_conflicts"]) == ("sent", [REV])
