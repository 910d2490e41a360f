"""What is claimed, and what is not, against a CouchDB that conflicts, refuses, and loses answers."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from mjumbe import settings
from mjumbe.couch import Saved
from mjumbe.documents import Document, OutgoingMessage, outgoing_message
from mjumbe.gateways.base import Batch, FencedError, Outcome
from mjumbe.states import State, Task
from sentinel import patience, pipeline
from sentinel.pipeline import due_messages
from tests.unit.sentinel.desk import PHONE, Lab, doc
from tests.unit.sentinel.memory import away


@pytest.fixture
def lab() -> Iterator[Lab]:
    made = Lab()
    yield made
    made.close()


def dispatch(lab: Lab) -> None:
    """Send what may go now, once."""
    lab.outbox._dispatch()
    lab.outbox._workers.shutdown(wait=True)


def test_no_task_is_claimed_under_the_uuid_of_one_that_went(lab: Lab) -> None:
    both = doc()
    went = {**both["tasks"][0], "state": "sent"}
    lab.database.store({**both, "tasks": [went, both["tasks"][0]]})
    lab.outbox.offer(due_messages(lab.stored()))
    lab.run()
    assert lab.desk.batches == []
    assert lab.task()["state"] == "sent"


def test_no_copy_that_says_otherwise_is_claimed_for_what_it_was_made_of(lab: Lab) -> None:
    """It counted as sent with the other's text, and the other was sent again."""
    lab.offer(doc())
    both = lab.stored()
    (task,) = both["tasks"]
    copied = {**task, "messages": [{**task["messages"][0], "message": "Come on Tuesday"}]}
    lab.database.store({**both, "tasks": [copied, task]})
    lab.run()
    assert lab.desk.batches == []
    assert [each["state"] for each in lab.stored()["tasks"]] == ["pending"] * 2


def test_what_is_answered_of_a_message_is_not_stored_with_a_copy_before_it(lab: Lab) -> None:
    """The copy counted as sent, and never went; the other was taken for one whose answer never came, and went twice."""

    def answer(batch: Batch) -> list[Outcome]:
        meanwhile = lab.stored()
        (task,) = meanwhile["tasks"]
        copied = {**task, "state": "pending", "messages": [{**task["messages"][0], "to": "+254711000002"}]}
        lab.database.store({**meanwhile, "tasks": [copied, task]})
        return [Outcome("Sent", State.SENT, ref="r")]

    lab.desk.answer = answer
    lab.offer(doc())
    lab.run()
    assert [task["state"] for task in lab.stored()["tasks"]] == ["pending", "sent"]


def test_the_work_for_a_document_with_many_messages_grows_with_their_number(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CHT's app writes one document for all whom somebody writes to. Each claim looked at all its messages, and every
    result and other claim waited for that."""
    looked = 0

    def counted(doc: Document, task: Task) -> OutgoingMessage | None:
        nonlocal looked
        looked += 1
        return outgoing_message(doc, task)

    monkeypatch.setattr(pipeline, "outgoing_message", counted)
    one, many = doc(), 100
    tasks = [
        {**one["tasks"][0], "messages": [{"uuid": f"u{n}", "to": f"{PHONE}{n}", "message": "x"}]} for n in range(many)
    ]
    lab.offer({**one, "tasks": tasks})
    lab.run()
    assert sum(len(batch.recipients) for batch in lab.desk.batches) == many
    times = 1 + 1 + len(lab.desk.batches)  # when they are offered, when each is claimed, and after each request
    assert looked <= many * times


@pytest.mark.parametrize(
    ("correction", "sent"),
    [
        ({"messages": [{"uuid": "u", "to": "+254711000002", "message": "Habari"}]}, [("Habari", "+254711000002")]),
        ({"messages": [{"uuid": "u", "to": PHONE, "message": "Come on Tuesday"}]}, [("Come on Tuesday", PHONE)]),
        ({"premium": True}, [("Habari", PHONE)]),
        ({"via": "textbee"}, [("Habari", PHONE)]),
        ({"state_details": "seen by Amina"}, [("Habari", PHONE)]),
    ],
    ids=["number", "text", "charge", "service", "nothing that is sent"],
)
def test_what_is_corrected_while_it_waits_is_sent_as_it_is_now(
    lab: Lab, correction: dict[str, Any], sent: list[tuple[str, str]]
) -> None:
    lab.offer(doc(message_uuid="u"))
    corrected = lab.stored()
    corrected["tasks"][0] |= correction
    lab.database.store(corrected)
    lab.run()
    lab.outbox.offer(due_messages(lab.stored()))  # as the clock does
    lab.run()
    assert [(batch.text, *batch.recipients) for batch in lab.desk.batches] == sent
    assert [batch.premium.wanted for batch in lab.desk.batches] == [correction.get("premium")]
    assert lab.task()["state"] == "sent"


def test_what_gets_a_second_message_while_it_waits_is_not_claimed_for_both(lab: Lab) -> None:
    """The first was sent, and the second counted as sent with it. The clock has it made a task of its own."""
    lab.offer(doc())
    longer = lab.stored()
    longer["tasks"][0]["messages"].append({"uuid": "u2", "to": "+254711000002", "message": "Come on Tuesday"})
    lab.database.store(longer)
    lab.run()
    assert lab.desk.batches == []
    assert lab.task()["state"] == "pending"
    assert not lab.outbox.knows(("d", longer["tasks"][0]["messages"][0]["uuid"])), "the clock may offer it"


def change(lab: Lab, state: str) -> None:
    """Somebody else writes between our read and our write, once."""
    lab.database.before_bulk = lambda: None
    stored = lab.database.docs["d"]
    stored["tasks"][0]["state"] = state
    lab.database.store(stored)


@pytest.mark.parametrize(("state", "sent"), [("pending", 1), ("cleared", 0), ("muted", 0), ("delivered", 0)])
def test_somebody_writes_before_the_claim(lab: Lab, state: str, sent: int) -> None:
    lab.offer(doc())
    lab.database.before_bulk = lambda: change(lab, state)
    lab.run()
    assert len(lab.desk.batches) == sent
    assert lab.task()["state"] == ("sent" if sent else state)


@pytest.mark.parametrize("by", ["africas-talking", "medic-gateway"])
def test_a_claim_that_somebody_wrote_before_counts_for_nothing(by: str) -> None:
    """It was put off at that moment; when it was due again, it was a duplicate of itself, and never sent."""
    lab = Lab(sms={"duplicate_limit": 1})
    lab.offer(doc())
    lab.database.before_bulk = lambda: change(lab, "scheduled")
    if by == "medic-gateway":
        lab.service = by
    lab.run()
    assert lab.task()["state"] == "scheduled"
    change(lab, "pending")
    lab.outbox.offer(due_messages(lab.stored()))
    lab.run()
    assert lab.task()["state"] == ("sent" if by == "africas-talking" else "pending")
    assert lab.task()["service"] == by
    lab.close()


def test_the_document_is_gone(lab: Lab) -> None:
    lab.offer(doc())
    lab.database.before_bulk = lambda: cast(None, lab.database.docs.clear())
    lab.run()
    assert lab.desk.batches == []


def test_the_answer_to_the_claim_is_lost(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PAUSE_SECONDS", 0.0)
    lab.offer(doc())

    def lose() -> None:
        lab.database.after_bulk = lambda: None
        away()

    lab.database.after_bulk = lose
    lab.run()
    assert len(lab.desk.batches) == 1
    assert (lab.task()["state"], lab.task()["attempts"]) == ("sent", 1)


def few(lab: Lab, monkeypatch: pytest.MonkeyPatch, times: int) -> list[list[Saved]]:
    """So many writes are stored by fewer than half of a cluster's nodes; what was answered to all."""
    monkeypatch.setattr(patience, "PAUSE_SECONDS", 0.0)
    bulk, answers = lab.database.bulk, list[list[Saved]]()

    def by_few(docs: Sequence[Document]) -> list[Saved]:
        answers.append([replace(saved, by_few=len(answers) < times) for saved in bulk(docs)])
        return answers[-1]

    monkeypatch.setattr(lab.database, "bulk", by_few)
    return answers


def test_a_claim_that_few_nodes_took_is_made_until_more_do(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = few(lab, monkeypatch, 3)
    lab.offer(doc())
    lab.run()
    assert [saved.by_few for (saved,) in answers[:4]] == [True] * 3 + [False]
    assert len(lab.desk.batches) == 1
    assert (lab.task()["state"], lab.task()["attempts"]) == ("sent", 1)


def test_nothing_is_sent_by_a_claim_that_few_nodes_took(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are cut off: who leads there sent it too."""
    answers = few(lab, monkeypatch, 3)

    def fence() -> None:
        if len(answers) == 3:
            raise FencedError("this sentinel no longer leads")

    lab.offer(doc())
    lab.fence = fence
    dispatch(lab)
    assert lab.desk.batches == []


def test_a_claim_that_couchdb_refuses_is_none(lab: Lab) -> None:
    """Without its claim stored a message would be sent again and again."""
    lab.database.refused = {"d"}
    lab.offer(doc(), doc("e", "+254711000002"))
    lab.run()
    assert [batch.recipients for batch in lab.desk.batches] == [("+254711000002",)]
    assert lab.task()["state"] == "pending"
    lab.database.refused = set()
    lab.outbox.offer(due_messages(lab.stored()))
    lab.run()
    assert lab.task()["state"] == "sent"


def test_nothing_is_claimed_behind_the_fence(lab: Lab) -> None:
    def fence() -> None:
        raise FencedError("this sentinel no longer leads")

    lab.offer(doc())
    lab.fence = fence
    with pytest.raises(FencedError):
        lab.outbox._dispatch()
    assert lab.task()["state"] == "pending"


def test_nothing_is_claimed_by_whoever_has_ceased_to_lead_since_it_was_chosen(lab: Lab) -> None:
    def fence() -> None:
        lab.fence = fallen

    def fallen() -> None:
        raise FencedError("this sentinel no longer leads")

    lab.offer(doc())
    lab.fence = fence
    dispatch(lab)
    assert lab.desk.batches == []
    assert (lab.task()["state"], "claim" in lab.task()) == ("pending", False)


def test_a_result_is_stored_whoever_leads_by_then(lab: Lab) -> None:
    """One that is not is a message sent twice."""

    def fallen() -> None:
        raise FencedError("this sentinel no longer leads")

    def answer(batch: Batch) -> list[Outcome]:
        lab.fence = fallen
        return [Outcome("Sent", State.SENT, ref="r1")]

    lab.desk.answer = answer
    lab.offer(doc())
    dispatch(lab)
    assert (lab.task()["state"], lab.task()["gateway_ref"]) == ("sent", "r1")


def test_nothing_expired_leaves_the_queue(lab: Lab) -> None:
    """It was queued in time, but the service was held for longer than the message lives."""
    lab.offer(doc(due=datetime.now(UTC) - timedelta(days=6)))
    lab.live.current = settings.parse({"sms": {"expire_after": "5d"}})
    lab.run()
    assert lab.desk.batches == []
    assert lab.task()["state"] == "pending"
    assert not lab.outbox.knows(("d", lab.task()["messages"][0]["uuid"])), "the clock finds and expires it"


def test_who_opts_out_while_a_message_waits_gets_none(lab: Lab) -> None:
    lab.offer(doc())
    lab.registers.learn({"_id": f"opt-out:{PHONE}", "value": "opted-out"})
    lab.run()
    assert lab.desk.batches == []
    assert (lab.task()["state"], lab.task()["state_history"][-1]["rule"]) == ("denied", "opted_out")


def test_what_the_settings_refuse_since_it_waits_does_not_go(lab: Lab) -> None:
    lab.offer(doc(), doc("e", "0722000001"))
    lab.live.current = settings.parse({"outgoing_deny_list": PHONE[:6]})
    lab.run()
    assert (lab.task("d")["state"], lab.task("e")["state"]) == ("denied", "sent")
    assert lab.task("d")["state_history"][-1]["rule"] == "deny_list"


# ---- duplicates


def test_the_duplicate_limit(lab: Lab) -> None:
    for number in range(7):
        lab.offer(doc(f"d{number}", "0711000001" if number % 2 else PHONE))
        lab.run()
    counted = [lab.task(f"d{number}")["state"] for number in range(7)]
    assert counted == ["sent"] * 5 + ["duplicate"] * 2
    assert "sms.duplicate_limit" in lab.task("d6")["state_details"]
    assert PHONE not in lab.task("d6")["state_details"]


def test_another_attempt_is_no_duplicate(lab: Lab) -> None:
    for _ in range(5):
        lab.recent.add(PHONE, "Habari")
    lab.offer(doc(), doc("e") | {"tasks": [doc("e")["tasks"][0] | {"service": "africas-talking"}]})
    lab.run()
    assert (lab.task("d")["state"], lab.task("e")["state"]) == ("duplicate", "sent")


def test_conflicts_count_once(lab: Lab) -> None:
    lab.offer(doc())
    lab.database.before_bulk = lambda: change(lab, "pending")
    lab.run()
    assert lab.recent.count(PHONE, "Habari") == 1
