"""CouchDB restarted under the sentinel, and a `_changes` sequence that it does not know."""

import time

import pytest

from mjumbe.health import exists
from mjumbe.status import CHECKPOINT_ID
from tests.faults.rig import House, accepted, numbers, sizes, until_accepted
from tests.integration.processes import eventually
from tests.integration.sentinel.world import World, number

GOES_ON_SECONDS = 10.0
LONG = 120.0


@sizes("seconds", [10], [40])
def test_couchdb_restarts_while_messages_go_out(house: House, seconds: int) -> None:
    """Away for longer than the lease lasts: the leader must stop, and find that nobody else led."""
    world = house.world
    world.set(sms={"africas_talking": {"batch_size": 1}})
    world.simulator.control(latency_ms=100, reports=False)
    sentinel = world.start_sentinel()
    keys = [(to, f"message {n}") for n, to in enumerate(numbers(400))]
    ids = world.write_many(keys)
    until_accepted(world, 60)
    house.stop_store()
    began = time.monotonic()
    eventually(lambda: time.monotonic() - began > seconds, seconds + 5)
    house.start_store()
    returned = time.monotonic()
    before = sum(accepted(world).values())
    until_accepted(world, before + 1)
    assert time.monotonic() - returned < GOES_ON_SECONDS
    ids.append(world.write(number(), "afterwards"))
    eventually(lambda: set(world.states(ids)) == {"sent"}, LONG)
    counts = accepted(world)
    assert {key: counts[key] for key in keys} == dict.fromkeys(keys, 1)
    assert sentinel.popen.poll() is None
    assert "Traceback" not in sentinel.log()


def test_couchdb_restarts_while_nothing_happens(house: House) -> None:
    world = house.world
    sentinel = world.start_sentinel()
    world.until(world.write(number(), "before"), "sent")
    house.stop_store()
    eventually(lambda: "stops sending" in sentinel.log(), 30)
    house.start_store()
    returned = time.monotonic()
    world.until(world.write(number(), "afterwards"), "sent", GOES_ON_SECONDS)
    assert time.monotonic() - returned < GOES_ON_SECONDS
    assert set(accepted(world).values()) == {1}
    assert "Traceback" not in sentinel.log()


@pytest.mark.parametrize("fault", ["another database", "nonsense"])
def test_a_sequence_that_couchdb_does_not_know(own_world: World, fault: str) -> None:
    """The database was put back from its documents, as a replication does: all changes are read, nothing is done."""
    world = own_world
    world.set(sms={"replies": [{"keyword": "HELP", "message": "we are here"}]})
    assert world.api.url
    sentinel = world.start_sentinel()
    keys = [(to, f"message {n}") for n, to in enumerate(numbers(50))]
    for doc_id in world.write_many(keys) + [world.receive(number(), "HELP") for _ in range(10)]:
        world.until(doc_id, "delivered", LONG)
    assert sentinel.stop() == 0
    before = accepted(world)
    if fault == "another database":
        docs = world.couch.main.beginning_with("")
        world.couch.main.drop()
        # CouchDB answers before its map of shards has heard of it, by which it knows whether a database is there.
        eventually(lambda: not exists(world.couch.main))
        assert world.couch.main.create()
        saved = world.couch.main.bulk([{name: value for name, value in doc.items() if name != "_rev"} for doc in docs])
        assert all(one.rev for one in saved)
    else:
        checkpoint = world.couch.sentinel.get(CHECKPOINT_ID)
        assert checkpoint is not None
        world.couch.sentinel.put({**checkpoint, "seq": "12-nonsense"})
    sentinel = world.start_sentinel()
    for n in range(3):
        world.until(world.write(number(), f"afterwards {n}"), "delivered")
    eventually(lambda: (world.couch.sentinel.get(CHECKPOINT_ID) or {}).get("seq") not in (None, "12-nonsense"))
    counts = accepted(world)
    assert {key: counts[key] for key in before} == before
    assert sum(counts.values()) == 63
    assert "Traceback" not in sentinel.log()
