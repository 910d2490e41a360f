"""Delivery reports: early, late, repeated, out of order, for unknown ids, and very many at once."""

import pytest

from mjumbe.documents import tasks_of
from tests.faults.rig import REPORTS, numbers, post_all, report, sizes
from tests.integration.processes import eventually
from tests.integration.sentinel.world import World, number

LONG = 120.0


@pytest.fixture(autouse=True)
def quiet(world: World) -> None:
    """The reports are ours."""
    world.simulator.control(reports=False)


def sent(world: World) -> tuple[str, str, str]:
    """A message that was sent: its document's id, its reference, its number."""
    to = number()
    doc_id = world.write(to, f"to {to}")
    return doc_id, world.until(doc_id, "sent")["gateway_ref"], to


def told(world: World, doc_id: str) -> list[str]:
    """The reports in a message's history."""
    return [entry["report"] for entry in world.tasks(doc_id)[0]["state_history"] if "report" in entry]


def tell(world: World, ref: str, to: str, *statuses: str, at_once: int = 1) -> None:
    forms = [report(ref, status, to) for status in statuses]
    assert set(post_all(world.api.url + REPORTS, forms, at_once)) == {200}


def waiting(world: World) -> int:
    return int(world.couch.callbacks.info()["doc_count"])


def test_repeated_a_hundred_times_it_is_one_entry(world: World) -> None:
    doc_id, ref, to = sent(world)
    tell(world, ref, to, *["Success"] * 100, at_once=20)
    world.until(doc_id, "delivered")
    eventually(lambda: waiting(world) == 0)
    tell(world, ref, to, *["Success"] * 10)
    eventually(lambda: waiting(world) == 0)
    assert told(world, doc_id) == ["Success"]


def test_out_of_order_states_move_forward_and_the_history_keeps_all(world: World) -> None:
    doc_id, ref, to = sent(world)
    tell(world, ref, to, "Success", "Sent", "Submitted", "Failed", "Buffered")
    eventually(lambda: told(world, doc_id) == ["Success", "Sent", "Submitted", "Failed", "Buffered"])
    assert world.tasks(doc_id)[0]["state"] == "delivered"


def test_a_failure_that_turns_out_well_late(world: World) -> None:
    doc_id, ref, to = sent(world)
    tell(world, ref, to, "AbsentSubscriber")
    world.until(doc_id, "failed")
    tell(world, ref, to, "Success")
    world.until(doc_id, "delivered")


def test_early_ones_wait_for_their_message_and_unknown_ones_delay_nobody(world: World) -> None:
    refs = [f"ATXid_early-{n}" for n in range(600)]
    to = numbers(600)
    forms = [report(ref, "Success", number) for ref, number in zip(refs, to, strict=True)]
    assert set(post_all(world.api.url + REPORTS, forms, 32)) == {200}
    doc_id, ref, recipient = sent(world)
    tell(world, ref, recipient, "Success")
    world.until(doc_id, "delivered")
    eventually(lambda: waiting(world) == 600)
    early = [world.write(number, "early", state="sent", gateway_ref=ref) for ref, number in zip(refs, to, strict=True)]
    eventually(lambda: set(world.states(early)) == {"delivered"}, LONG)
    eventually(lambda: waiting(world) == 0)


@sizes("reports", [1_500], [10_000])
def test_very_many_at_once(world: World, reports: int) -> None:
    keys = [(to, "one text") for to in numbers(reports)]
    ids = world.write_many(keys)
    eventually(lambda: set(world.states(ids)) == {"sent"}, LONG)
    refs = {task["gateway_ref"]: task for doc in world.couch.main.fetch(ids).values() for task in tasks_of(doc)}
    forms = [report(ref, "Success", task["messages"][0]["to"]) for ref, task in refs.items()]
    assert len(forms) == reports
    assert set(post_all(world.api.url + REPORTS, forms, 64)) == {200}
    eventually(lambda: set(world.states(ids)) == {"delivered"}, LONG)
    eventually(lambda: waiting(world) == 0)
    histories = [task["state_history"] for doc in world.couch.main.fetch(ids).values() for task in tasks_of(doc)]
    assert {sum("report" in entry for entry in history) for history in histories} == {1}
