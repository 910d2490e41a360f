"""Phones with CHT's app bring edits of documents that were changed here meanwhile: what was sent stays sent."""

import copy
from datetime import timedelta
from typing import Any

import pytest

from mjumbe import documents, states
from mjumbe.documents import Document
from tests.integration.processes import eventually
from tests.integration.sentinel.world import SOON, World, number


def settled(world: World, doc_id: str, rev: str) -> Document:
    """The document when the sentinel has compared it with this revision of it, or made it from that one."""
    found: list[Document] = []

    def is_settled() -> bool:
        found[:] = [world.doc(doc_id)]
        return bool(found[0].get("settled_conflicts")) and found[0]["_rev"] != rev

    eventually(is_settled, SOON)
    return found[0]


def request_counts(world: World, *texts: str) -> list[int]:
    return [len(world.simulator.requests(text)) for text in texts]


def task_texts(doc: Document) -> list[Any]:
    return [(documents.message_of(task).get("message"), task["state"]) for task in documents.tasks_of(doc)]


@pytest.mark.parametrize("edits", [1, 9])
def test_an_edit_from_a_phone_sends_nothing_twice(own_world: World, edits: int) -> None:
    """With few edits our revision is the document, with many the phone's."""
    world = own_world
    due = states.now() + timedelta(seconds=2)
    doc_id = world.write(number(), "come to the clinic", due=due)
    held_by_phone = copy.deepcopy(world.doc(doc_id))
    assert world.tasks(doc_id)[0]["state"] == "scheduled"
    assert world.api.url
    world.start_sentinel()
    world.until(doc_id, "delivered")
    rev = world.bring({**held_by_phone, "fields": {"note": "seen by the nurse"}}, edits)
    doc = settled(world, doc_id, rev)
    assert task_texts(doc) == [("come to the clinic", "delivered")]
    assert doc["fields"] == ({"note": "seen by the nurse"} if edits == 9 else {})
    last = world.write(number(), "afterwards")
    world.until(last, "delivered")
    assert request_counts(world, "come to the clinic", "afterwards") == [1, 1]


def test_an_edit_that_came_while_the_sentinel_was_down_sends_nothing_twice(own_world: World) -> None:
    world = own_world
    doc_id = world.write(number(), "come to the clinic")
    held_by_phone = copy.deepcopy(world.doc(doc_id))
    sentinel = world.start_sentinel()
    world.until(doc_id, "sent")
    assert sentinel.stop() == 0
    rev = world.bring(held_by_phone, 9)
    world.start_sentinel()
    assert task_texts(settled(world, doc_id, rev)) == [("come to the clinic", "sent")]
    world.until(world.write(number(), "afterwards"), "sent")
    assert request_counts(world, "come to the clinic", "afterwards") == [1, 1]


def test_nobody_is_answered_twice(own_world: World) -> None:
    """The phone has the message as it came in, without the answer."""
    world = own_world
    world.set(sms={"replies": [{"keyword": "HELP", "message": "we are here"}]})
    doc_id = world.receive(number(), "HELP")
    held_by_phone = copy.deepcopy(world.doc(doc_id))
    world.start_sentinel()
    world.until(doc_id, "delivered")
    doc = settled(world, doc_id, world.bring(held_by_phone, 9))
    assert task_texts(doc) == [("we are here", "delivered")]
    world.until(world.write(number(), "afterwards"), "delivered")
    assert request_counts(world, "we are here", "afterwards") == [1, 1]


def test_a_message_that_a_phone_took_back_is_not_sent(own_world: World) -> None:
    world = own_world
    later = states.now() + timedelta(seconds=4)
    doc_id = world.write(number(), "come to the clinic", due=later)
    taken_back = copy.deepcopy(world.doc(doc_id))
    states.move(taken_back["tasks"][0], states.State.CLEARED, states.now())
    for edit in range(3):  # ours is the longer line
        world.couch.main.put({**world.doc(doc_id), "fields": {"edit": edit}})
    rev = world.bring(taken_back, 1)
    world.start_sentinel()
    assert task_texts(settled(world, doc_id, rev)) == [("come to the clinic", "cleared")]


def test_a_message_that_was_added_here_goes_though_the_phone_did_not_know_of_it(own_world: World) -> None:
    """A schedule comes to a report at the server. What was there before, and the phone took out, does not come back."""
    world = own_world
    added, removed = ({"_id": doc_id, "type": "data_record", "from": number()} for doc_id in ("added", "removed"))
    held_by_phone = {**added, "_rev": world.couch.main.put(added)}
    schedule = [documents.new_task(number(), "come to the clinic", states.now())]
    world.couch.main.put({**held_by_phone, "scheduled_tasks": schedule})
    removed["_rev"] = world.couch.main.put(
        {**removed, "tasks": [documents.new_task(number(), "stay away", states.now())]}
    )
    world.couch.main.put({**world.doc("removed"), "fields": {"note": "seen at the office"}})
    revs = {doc["_id"]: world.bring(doc, 9) for doc in (held_by_phone, removed)}
    world.start_sentinel()
    for doc_id, rev in revs.items():
        settled(world, doc_id, rev)
    world.until("added", "sent")
    assert "tasks" not in world.doc("removed")
    assert request_counts(world, "come to the clinic", "stay away") == [1, 0]


def test_whom_a_message_goes_to_is_looked_up_when_it_comes_from_a_conflicting_revision(own_world: World) -> None:
    world = own_world
    world.set(sms={"clear_failing_schedules": True})
    clinic = {"_id": "clinic", "type": "clinic", "contact": {"phone": number()}}
    nurse = {"_id": "nurse", "type": "person", "phone": number(), "parent": {"_id": "clinic"}}
    assert all(saved.rev for saved in world.couch.main.bulk([clinic, nurse]))
    contact = {"_id": "nurse", "parent": {"_id": "clinic"}}
    report: Document = {"_id": "report", "type": "data_record", "contact": contact}
    held_by_phone = {**report, "_rev": world.couch.main.put(report)}
    task = {"due": states.timestamp(states.now()), "state": "scheduled", "message": "come", "recipient": "clinic"}
    world.couch.main.put({**held_by_phone, "scheduled_tasks": [task]})
    rev = world.bring(held_by_phone, 9)
    world.start_sentinel()
    settled(world, "report", rev)
    world.until("report", "sent")
    assert [request["to"] for request in world.simulator.requests("come")] == [[clinic["contact"]["phone"]]]


def write_scheduled(world: World, text: str) -> Document:
    """A document with a task as in CHT's schedules, which gets its message when it falls due, at once."""
    now = states.now()
    task = {"due": states.timestamp(now), "state": "scheduled", "message": text, "recipient": "reporting_unit"}
    doc = {"_id": f"report {text}", "type": "data_record", "from": number(), "scheduled_tasks": [task]}
    doc["reported_date"] = documents.milliseconds(now)
    return {**doc, "_rev": world.couch.main.put(doc)}


def test_what_waits_in_memory_goes_as_the_phone_left_it(own_world: World) -> None:
    """CouchDB would take a claim of the revision that the sentinel has, though it is not the document any more."""
    world = own_world
    world.simulator.control(no_balance=True)
    world.start_sentinel()
    world.write(number(), "the probe")
    eventually(lambda: world.held() is not None, SOON)
    held_by_phone = {text: write_scheduled(world, text) for text in ("noted", "taken back")}
    for doc in held_by_phone.values():
        world.until(doc["_id"], "pending")
    states.move(held_by_phone["taken back"]["scheduled_tasks"][0], states.State.CLEARED, states.now())
    for doc in held_by_phone.values():
        settled(world, doc["_id"], world.bring({**doc, "fields": {"note": "seen by the nurse"}}, 9))
    world.simulator.control(no_balance=False)
    world.set(sms={"africas_talking": {"read_timeout": 31}})  # looked into at once, not after the minute
    world.until("report noted", "sent")
    assert task_texts(world.doc("report taken back")) == [("taken back", "cleared")]
    assert request_counts(world, "noted", "taken back") == [1, 0]


def test_a_message_that_a_person_puts_back_goes_again(own_world: World) -> None:
    """The conflict of long ago stays; it is looked at once."""
    world = own_world
    doc_id = world.write(number(), "come to the clinic")
    held_by_phone = copy.deepcopy(world.doc(doc_id))
    world.start_sentinel()
    world.until(doc_id, "sent")
    doc = settled(world, doc_id, world.bring(held_by_phone, 9))
    states.release(doc["tasks"][0], states.now(), "asked for again")
    world.couch.main.put(doc)
    eventually(lambda: request_counts(world, "come to the clinic") == [2], SOON)
    world.until(doc_id, "sent")


def test_a_message_that_a_phone_adds_while_another_goes_is_sent(own_world: World) -> None:
    """Its conflict is there before the feed has heard of what we wrote last, and comes under the name of that."""
    world = own_world
    world.start_sentinel()
    added = []
    for n in range(5):
        doc_id = world.write(number(), f"the first {n}")
        held_by_phone = copy.deepcopy(world.doc(doc_id))
        world.until(doc_id, "sent")
        added.append(f"added {n}")
        held_by_phone["tasks"].append(documents.new_task(number(), added[-1], states.now()))
        world.bring(held_by_phone, 1)
    eventually(lambda: request_counts(world, *added) == [1] * 5, SOON)
