"""What a conflicting revision of a document tells of its messages."""

import copy
from collections.abc import Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from mjumbe.conflicts import settle
from mjumbe.documents import Document
from mjumbe.edits import apply_edits
from tests.unit.memory import MemoryDatabase

REV, FORK = "2-b", "0-fork"


class Torn(MemoryDatabase):
    """A database with one document in conflict; `fork` is what it was before, if that is still there."""

    def __init__(self, doc: Document, other: Document | None, fork: Document | None = None) -> None:
        super().__init__()
        self.store({"_id": "a", "type": "data_record", **doc})
        self.other = other and {"_id": "a", "_rev": REV, "type": "data_record", **other}
        self.fork = fork and {"_id": "a", "_rev": FORK, "type": "data_record", **fork}
        self.asked: list[tuple[str, str]] = []

    def fetch(self, ids: Any) -> dict[str, Document]:
        return {doc_id: {**doc, "_conflicts": [REV]} for doc_id, doc in super().fetch(ids).items()}

    def read_revisions(self, named: Sequence[tuple[str, str]], *, revs: bool = False) -> list[Document]:
        self.asked += [] if revs else named
        bodies = [self.other, self.fork, *self.docs.values()]
        there = [copy.deepcopy(doc) for doc in bodies if doc and ("a", doc["_rev"]) in named]
        for doc in there if revs else ():
            generation, _, digest = doc["_rev"].partition("-")
            doc["_revisions"] = {"start": int(generation), "ids": [digest, *["x1"] * (int(generation) - 1), "fork"]}
        return there


def settled(doc: Document, other: Document | None, fork: Document | None = None) -> Document:
    """The document after it was compared with the other revision of it."""
    database = Torn(doc, other, fork)
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
        # Who went on from what this one is knows more, whatever that is.
        (["pending", "forwarded-to-gateway", "sent"], ["pending", "forwarded-to-gateway", "sent", "failed"], "failed"),
        (
            ["pending", "forwarded-to-gateway", "failed"],
            ["pending", "forwarded-to-gateway", "failed", "pending"],
            "pending",
        ),
        (["scheduled", "muted"], ["scheduled", "muted", "scheduled"], "scheduled"),
        (["scheduled", "pending", "cleared"], ["scheduled", "pending"], "cleared"),
        (["scheduled", "cleared"], ["scheduled", "pending"], "cleared"),
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


@pytest.mark.parametrize(
    ("ours", "theirs", "is_taken"),
    [
        (task("pending"), task("pending", "forwarded-to-gateway", "pending", attempts=1), True),
        (
            task("pending", "forwarded-to-gateway", "pending", attempts=1),
            task("pending", "forwarded-to-gateway", "pending", "forwarded-to-gateway", "pending", attempts=2),
            True,
        ),
        (task("pending"), task("pending", "pending"), False),
        (task("pending", "forwarded-to-gateway", "pending", attempts=1), task("pending"), False),
        (
            task("pending") | {"state_history": None},
            task("pending", "forwarded-to-gateway", "pending", attempts=1),
            True,
        ),
        (task("pending") | {"state_history": None}, task("pending"), False),
    ],
    ids=["the first attempt", "another attempt", "none", "an attempt here", "no history here", "nor an attempt there"],
)
def test_attempts_that_failed_count_on(ours: Any, theirs: Any, is_taken: bool) -> None:
    """Else an edit from a phone starts them anew, at once, and for ever if there are enough."""
    doc = settled({"tasks": [ours]}, {"tasks": [{**theirs, "retry_at": "2026-01-01T00:10:00.000Z"}]})
    assert doc["tasks"][0].get("attempts") == (theirs if is_taken else ours).get("attempts")
    assert ("retry_at" in doc["tasks"][0]) == is_taken


def test_what_was_taken_back_without_a_word_in_its_history_stays_so() -> None:
    doc = settled({"tasks": [task("scheduled") | {"state": "cleared"}]}, {"tasks": [task("scheduled", "pending")]})
    assert doc["tasks"][0]["state"] == "cleared"


def test_what_an_earlier_conflict_left_in_a_history_is_no_news() -> None:
    """Neither here, where somebody else went on from the same, nor there, where it hides that this one went on."""
    note = entry("sent", 9) | {"state_details": "from the conflicting revision 2-a", "conflict": "2-a"}
    sent = task("pending", "sent")
    noted = sent | {"state_history": [*sent["state_history"], note]}
    again = task("pending", "sent", "pending")
    for ours, theirs in ((noted, again), (again, noted)):
        assert settled({"tasks": [ours]}, {"tasks": [copy.deepcopy(theirs)]})["tasks"][0]["state"] == "pending"


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


def composed(*states: str, text: str, uuid: str | None = None, **facts: Any) -> dict[str, Any]:
    """A task of a schedule, which gets its message with a uuid when it falls due."""
    made = task(*states, uuid=uuid, **{"due": "2026-02-01", "message": text, **facts})
    for message in made.get("messages", ()):
        message["message"] = text
    return made


SENT = ("scheduled", "pending", "forwarded-to-gateway", "sent")
VISIT = {"type": "visit", "state": "scheduled", "due": "2026-02-01"}


@pytest.mark.parametrize(
    ("ours", "theirs", "states"),
    [
        (
            [composed("scheduled", text="two"), composed("scheduled", text="three")],
            [composed(*SENT, text="one", uuid="1"), composed(*SENT, text="two", uuid="2")],
            ["sent", "scheduled"],
        ),
        (
            [composed("scheduled", text=text) for text in ("one", "two", "three")],
            [composed(*SENT, text="two", uuid="2"), composed("scheduled", text="three")],
            ["scheduled", "sent", "scheduled"],
        ),
        (
            [composed("scheduled", text="corrected")],
            [composed(*SENT, text="one", uuid="1")],
            ["sent"],
        ),
        (
            [composed("scheduled", text="one"), composed("scheduled", text="one")],
            [composed(*SENT, text="one", uuid="1"), composed("scheduled", "cleared", text="one")],
            ["sent", "cleared"],
        ),
        (
            [composed("scheduled", text="one")],
            [composed(*SENT, text="one", uuid="1", due=None, timestamp="2026-02-01")],
            ["sent"],
        ),
        ([composed("scheduled", text="one", due="29/12/2026")], [composed(*SENT, text="one", uuid="1")], ["sent"]),
        ([composed(*SENT, text="one", uuid="1")], [composed("scheduled", text="one")], ["sent"]),
        ([composed("pending", text="one", uuid="1")], [composed("pending", "cleared", text="one")], ["cleared"]),
        ([composed("pending", text="one", uuid="2")], [composed(*SENT, text="one", uuid="1")], ["sent"]),
        (
            [composed("pending", text="one", uuid="2", group=2)],
            [composed(*SENT, text="one", uuid="1", group=1)],
            ["pending"],
        ),
        ([composed("scheduled", text="one", due="2026-02-02")], [composed(*SENT, text="one", uuid="1")], ["scheduled"]),
        ([VISIT], [composed("scheduled", text="one"), VISIT | task(*SENT)], ["sent"]),
        ([VISIT | task("pending")], [composed("scheduled", text="one"), VISIT | {"state": "cleared"}], ["cleared"]),
        ([VISIT | task("pending", uuid="1")], [composed("scheduled", text="one"), VISIT | task(*SENT)], ["pending"]),
    ],
    ids=[
        "one was removed here",
        "one was removed there",
        "a text was corrected",
        "two of one text",
        "dated there",
        "dated readably there",
        "no uuid there",
        "taken back without a uuid",
        "fallen due on both sides",
        "another of the same text",
        "put to another day",
        "no message here",
        "no message there",
        "another message",
    ],
)
def test_a_task_without_a_uuid_is_known_by_what_it_says(ours: Any, theirs: Any, states: list[str]) -> None:
    """CHT's tasks have no message until they fall due; the places change where a task was removed."""
    doc = settled({"scheduled_tasks": ours}, {"scheduled_tasks": theirs})
    assert [one["state"] for one in doc["scheduled_tasks"]] == states


@pytest.mark.parametrize("held", ["here", "there"])
def test_a_message_has_the_uuid_of_the_side_where_it_fell_due(held: str) -> None:
    """The outbox may hold it by that already: under another it went a second time."""
    fresh = composed("scheduled", text="one")
    due = composed("scheduled", "pending", text="one", uuid="held")
    ours, theirs = (due, fresh) if held == "here" else (fresh, due)
    doc = settled({"scheduled_tasks": [ours]}, {"scheduled_tasks": [theirs]})
    (found,) = doc["scheduled_tasks"]
    assert (found["state"], found["messages"]) == (ours["state"], due["messages"])


def test_a_corrected_text_stands_under_that_uuid() -> None:
    ours = {"messages": [{"to": "+254700000001", "message": "corrected"}], "state": "pending", "due": "2026-02-01"}
    doc = settled({"tasks": [ours]}, {"tasks": [task("pending", uuid="held", due="2026-02-01")]})
    assert doc["tasks"][0]["messages"] == [{"to": "+254700000001", "message": "corrected", "uuid": "held"}]


def together(count: int, state: str) -> dict[str, Any]:
    """A task with so many messages."""
    messages = [{"to": f"+25470000000{place}", "message": f"text {place}"} for place in range(count)]
    return {"messages": messages, "state": state, "due": "2026-02-01"}


def parted(*tasks: dict[str, Any]) -> list[dict[str, Any]]:
    """What the sentinel makes of it when it falls due: a task for each message, as far as these have come."""
    messages = together(len(tasks), "scheduled")["messages"]
    return [
        {**one, "due": "2026-02-01", "messages": [{**message, "uuid": f"uuid {place}"}]}
        for place, (one, message) in enumerate(zip(tasks, messages, strict=True))
    ]


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("is_parted_here", [False, True])
def test_a_task_with_several_messages_is_what_became_of_each(count: int, is_parted_here: bool) -> None:
    several = parted(*(task(*SENT[: 2 + place]) for place in range(count)))
    one = [together(count, "scheduled")]
    ours, theirs = (several, one) if is_parted_here else (one, several)
    found = settled({"scheduled_tasks": ours}, {"scheduled_tasks": theirs})["scheduled_tasks"]
    first = "pending" if is_parted_here else "scheduled"  # what is merely due is as it was here
    assert [one["state"] for one in found] == [first, "forwarded-to-gateway", "sent"][:count]
    assert [one["messages"] for one in found] == [one["messages"] for one in several]


def test_all_messages_of_a_task_that_was_taken_back_are() -> None:
    ours = parted(task("pending"), task("pending"))
    doc = settled({"scheduled_tasks": ours}, {"scheduled_tasks": [together(2, "cleared")]})
    assert [one["state"] for one in doc["scheduled_tasks"]] == ["cleared", "cleared"]


def test_a_task_with_several_messages_that_was_removed_here_comes_back_by_none_of_them() -> None:
    theirs = parted(task("pending"), task("pending"))
    doc = settled({"tasks": []}, {"tasks": theirs}, {"tasks": [together(2, "scheduled")]})
    assert doc["tasks"] == []


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
        ({"default_responses": {"ok": True}, "replies": {"ok": True}}, [task("pending", uuid="mine")], ["mine"]),
    ],
)
def test_answers_are_taken_with_the_marks_of_who_made_them(marks: Any, tasks: Any, has: list[str]) -> None:
    incoming = {"from": "+254700000001", "sms_message": {"message": "HELP"}}
    given = {name: value for name, value in (("transitions", marks), ("tasks", tasks)) if value is not None}
    other = {"transitions": {"default_responses": {"ok": True}}, "tasks": [task("sent", uuid="reply")]}
    doc = settled({**incoming, **given}, {**incoming, **other})
    assert doc["transitions"]["default_responses"] == {"ok": True}
    uuids = [one["messages"][0]["uuid"] for one in doc.get("tasks") or []]
    assert uuids == has
    assert all(one["state"] == "sent" for one in doc.get("tasks") or [] if one["messages"][0]["uuid"] == "reply")


def test_a_mark_of_anothers_transition_brings_no_task_a_second_time() -> None:
    """CHT's transitions mark the phone's revision, where the message has no uuid yet."""
    marked = {"transitions": {"accept_patient_reports": {"ok": True}}, "tasks": [composed("pending", text="one")]}
    doc = settled({"tasks": [composed(*SENT, text="one", uuid="1")]}, marked)
    assert [one["state"] for one in doc["tasks"]] == ["sent"]
    assert doc["transitions"] == marked["transitions"]


ADDED = composed("scheduled", text="added")
OLD = composed("scheduled", text="old", due="2026-01-31")


@pytest.mark.parametrize(
    ("fork", "ours", "theirs", "texts"),
    [
        ([], [], [ADDED], ["added"]),
        ([OLD], [OLD], [OLD, ADDED], ["old", "added"]),
        ([OLD], [OLD], [ADDED, OLD], ["old", "added"]),
        ([OLD, ADDED], [OLD], [OLD, ADDED], ["old"]),
        ([OLD, ADDED], [OLD], [OLD, composed("scheduled", "pending", text="added", uuid="u")], ["old"]),
        ([OLD, ADDED], [OLD], [OLD, ADDED | {"due": "2026-03-01"}], ["old"]),
        ([OLD], [OLD], [OLD, OLD | {"due": "2026-03-01"}], ["old", "old"]),
        ([OLD], [OLD, ADDED], [OLD], ["old", "added"]),
        ([OLD], [OLD, ADDED], [OLD, ADDED], ["old", "added"]),
        (None, [OLD], [OLD, ADDED], ["old"]),
    ],
    ids=[
        "the first there",
        "added there",
        "added there before",
        "removed here",
        "removed here, fallen due there",
        "removed here, put to another day there",
        "the same again to another day",
        "added here",
        "added on both sides",
        "what was is not known",
    ],
)
def test_what_was_added_on_one_side_counts(fork: Any, ours: Any, theirs: Any, texts: list[str]) -> None:
    """CHT's schedules come to a report at the server, and the phone edits it without them."""
    known = None if fork is None else {"scheduled_tasks": fork}
    doc = settled({"scheduled_tasks": ours}, {"scheduled_tasks": theirs}, known)
    assert [one["message"] for one in doc["scheduled_tasks"]] == texts


@pytest.mark.parametrize("states", [("pending",), SENT])
def test_two_phones_may_each_have_added_a_message_in_the_same_place(states: tuple[str, ...]) -> None:
    """Neither has a uuid or a date until it is seen here."""
    ours, theirs = ({**composed("pending", text=text), "due": None} for text in ("ours", "theirs"))
    theirs |= composed(*states, text="theirs", uuid="1", due=None) if len(states) > 1 else {}
    doc = settled({"tasks": [ours]}, {"tasks": [theirs]}, {"tasks": []})
    assert [(one["message"], one["state"]) for one in doc["tasks"]] == [("ours", "pending"), ("theirs", states[-1])]


def test_an_answer_that_was_made_on_both_sides_is_one() -> None:
    seen = {"from": "+254700000001", "sms_message": {"message": "HELP"}, "transitions": {"replies": {"ok": True}}}
    ours, theirs = ({**seen, "tasks": [task("pending", uuid=uuid)]} for uuid in ("ours", "theirs"))
    assert settled(ours, theirs, {**seen, "transitions": {}, "tasks": []})["tasks"] == ours["tasks"]


@pytest.mark.parametrize(("here", "linked"), [({}, "theirs"), ({"contact": {"_id": "ours"}}, "ours")])
def test_the_sender_is_taken_with_the_mark_of_who_looked_for_them(here: Document, linked: str) -> None:
    incoming = {"from": "+254700000001", "sms_message": {"message": "HELP"}}
    other = {"transitions": {"link_sender": {"ok": True}}, "contact": {"_id": "theirs"}}
    assert settled({**incoming, **here}, {**incoming, **other})["contact"] == {"_id": linked}


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
    assert found["settled_conflicts"] == [REV], "the other conflict was ended"


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


def test_conflicts_that_ended_are_forgotten() -> None:
    """Each edit of a losing revision makes another one."""
    doc = settled({"tasks": [task("pending")], "settled_conflicts": ["1-a", "2-a"]}, {"tasks": [task("sent")]})
    assert doc["settled_conflicts"] == [REV]


@pytest.mark.parametrize("kept", ["nonsense", None, {}])
def test_others_write_anything_there(kept: Any) -> None:
    doc = settled({"tasks": [task("pending")], "settled_conflicts": kept}, {"tasks": [task("sent")]})
    assert (doc["tasks"][0]["state"], doc["settled_conflicts"]) == ("sent", [REV])


@pytest.mark.parametrize("odd", [None, "nonsense", 7, [], {"messages": "x"}, {"messages": [None, 7, {"to": 7}]}])
def test_what_is_no_task_is_left_as_it_is(odd: Any) -> None:
    doc = settled({"tasks": [odd, task("pending"), odd]}, {"tasks": [odd, odd, task("sent")]})
    assert [one if one == odd else one["state"] for one in doc["tasks"]] == [odd, "sent", odd]


def test_messages_that_wait_in_a_conflicting_revision_only_are_said_to() -> None:
    """Nobody can tell whether they were added there or taken out here, so they are for people to see to."""
    theirs = [task("pending", uuid="1"), task("scheduled", uuid="2"), task("sent", uuid="3")]
    with capture_logs() as lines:
        settled({"tasks": []}, {"tasks": theirs})
    assert [(line["log_level"], line["doc"], line["rev"], line["n"]) for line in lines] == [("warning", "a", REV, 2)]
