"""A night without a sentinel: what fell due meanwhile goes out once, what is too old does not go out at all."""

from datetime import timedelta

import pytest

from mjumbe import documents, states
from tests.faults.rig import accepted, numbers
from tests.integration.processes import eventually
from tests.integration.sentinel.world import World

NOW = timedelta(0)
HOURS = timedelta(hours=1)


@pytest.mark.parametrize(
    ("expire_after", "fresh", "old"),
    [
        ("7d", [NOW, HOURS / 2, 10 * HOURS, 167 * HOURS], [169 * HOURS, 1000 * HOURS]),
        ("1h", [NOW, HOURS / 60, HOURS / 2], [2 * HOURS, 10 * HOURS]),
    ],
)
def test_after_a_nights_outage(
    own_world: World, expire_after: str, fresh: list[timedelta], old: list[timedelta]
) -> None:
    """Pending and scheduled alike, tasks of one document too; with two sentinels that start at once."""
    world = own_world
    world.set(sms={"expire_after": expire_after})
    world.simulator.control(reports=False)
    now = states.now()
    ages = [*fresh, *old] * 5
    keys = [(to, f"due {age} ago") for to, age in zip(numbers(2 * len(ages)), [*ages, *ages], strict=True)]
    docs = [
        documents.outgoing_document(documents.new_task(to, text, now - age - HOURS, due=now - age), now, None)
        for (to, text), age in zip(keys, ages, strict=False)
    ]
    schedule = [
        documents.new_task(to, text, now - age - HOURS, due=now - age)
        for (to, text), age in zip(keys[len(ages) :], ages, strict=True)
    ]
    docs.append({**documents.outgoing_document(schedule[0], now, None), "tasks": [], "scheduled_tasks": schedule})
    assert all(saved.rev for saved in world.couch.main.bulk(docs))
    world.start_sentinel(leads=False)
    world.start_sentinel(leads=False)
    ids = [doc["_id"] for doc in docs]

    def over() -> bool:
        ends = [task["state"] for doc_id in ids for task in world.tasks(doc_id)]
        assert (ends.count("sent"), ends.count("failed")) == (10 * len(fresh), 10 * len(old)), ends
        return True

    eventually(over, 60)
    failed = [task for doc_id in ids for task in world.tasks(doc_id) if task["state"] == "failed"]
    assert all(task["state_details"].startswith("expired: ") for task in failed)
    wanted = {f"due {age} ago" for age in fresh}
    assert accepted(world) == dict.fromkeys((key for key in keys if key[1] in wanted), 1)


def test_what_is_due_in_the_future_waits_however_often_the_sentinel_starts(own_world: World) -> None:
    world = own_world
    world.simulator.control(reports=False)
    (later, soon) = numbers(2)
    waits = world.write(later, "in an hour", due=states.now() + HOURS)
    for n in range(2):
        sentinel = world.start_sentinel()
        world.until(world.write(soon, f"now {n}"), "sent")
        assert sentinel.stop() == 0
    assert world.tasks(waits)[0]["state"] == "scheduled"
    assert {text for _, text in accepted(world)} == {"now 0", "now 1"}
