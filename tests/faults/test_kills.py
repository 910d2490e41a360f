"""kill -9: of the API under webhooks, of the sentinel while it sends."""

from collections.abc import Callable

import pytest

from mjumbe.documents import tasks_of
from tests.faults.rig import (
    INCOMING,
    accepted,
    incoming,
    is_doubted,
    kill,
    kill_alone,
    moments,
    numbers,
    post_all,
    seed,
    sizes,
    stored,
    until_accepted,
)
from tests.integration.processes import Process, eventually
from tests.integration.sentinel.world import World

AT_ONCE = 500
IN_FLIGHT = 16  # sms.africas_talking.concurrency
LONG = 120.0


@sizes("kills", [2], [10])
@pytest.mark.parametrize("kill", [kill, kill_alone])
def test_the_api_is_killed_in_the_middle_of_500_webhooks(
    own_world: World, kill: Callable[[Process], None], kills: int
) -> None:
    """What was acknowledged is stored; what was not is sent again by the service, and is one document all the same."""
    print("FAULTS_SEED", seed)
    world = own_world
    world.set(sms={"replies": [{"keyword": "HELP", "message": "we are here"}]})
    world.start_sentinel()
    api = world.start_api()
    every = []
    for round_ in range(kills):
        senders = numbers(2 * AT_ONCE)  # so that some are still to be posted, however fast the answers come
        forms = [incoming(f"{round_}-{n}", sender, "HELP") for n, sender in enumerate(senders)]
        moment = moments.randrange(1, AT_ONCE)
        acknowledged: set[str] = set()

        def each(form: dict[str, str], status: int) -> None:
            if status == 200:
                acknowledged.add(form["id"])  # noqa: B023  # called in this round only
                if len(acknowledged) == moment:  # noqa: B023
                    kill(api)  # noqa: B023

        statuses = post_all(api.url + INCOMING, forms, AT_ONCE, each)
        assert set(statuses) == {0, 200}, "killed in the middle"
        api = world.start_api(api.port)
        eventually(lambda: acknowledged <= stored(world.couch.main, forms))  # noqa: B023
        unanswered = [form for form, status in zip(forms, statuses, strict=True) if status != 200]
        assert set(post_all(api.url + INCOMING, unanswered, AT_ONCE)) == {200}
        eventually(lambda: len(stored(world.couch.main, forms)) == len(forms))  # noqa: B023
        every += senders
    until_accepted(world, len(every))
    eventually(lambda: accepted(world) == dict.fromkeys(((sender, "we are here") for sender in every), 1))


@sizes("messages, kills", [300, 3], [2_000, 10])
@pytest.mark.parametrize("in_doubt", ["retry", "hold"])
def test_the_sentinel_is_killed_while_messages_go_out(
    own_world: World, in_doubt: str, messages: int, kills: int
) -> None:
    """At least once; twice only what was in flight at a kill, and that is marked. Held: none twice."""
    print("FAULTS_SEED", seed)
    world, hold = own_world, in_doubt == "hold"
    world.set(sms={"in_doubt": in_doubt, "africas_talking": {"batch_size": 1, "concurrency": IN_FLIGHT}})
    # Reports settle what is held. Without them, whatever is in doubt is sent again.
    world.simulator.control(latency_ms=50, reports=hold)
    assert world.api.url
    keys = [(to, f"message {n}") for n, to in enumerate(numbers(messages))]
    ids = dict(zip(world.write_many(keys), keys, strict=True))
    reached = 0
    for _ in range(kills):
        sentinel = world.start_sentinel()
        reached += moments.randrange(1, messages // (kills + 1))
        until_accepted(world, reached)
        kill(sentinel)
        reached = sum(accepted(world).values())
    world.start_sentinel()

    def over() -> bool:
        tasks = [next(tasks_of(doc)) for doc in world.couch.main.fetch(ids).values()]
        held = sum(task["state"] == "forwarded-to-gateway" and bool(task.get("in_doubt")) for task in tasks)
        done = sum(task["state"] == ("delivered" if hold else "sent") for task in tasks)
        assert done + (held if hold else 0) == messages, f"{done} done, {held} held"
        return True

    eventually(over, LONG)
    counts = accepted(world)
    tasks = {key: world.tasks(doc_id)[0] for doc_id, key in ids.items()}
    doubted = {key for key, task in tasks.items() if is_doubted(task)}
    assert set(counts) <= set(keys)
    assert len(doubted) <= IN_FLIGHT * kills
    if hold:
        assert set(counts.values()) == {1}
        assert {key for key, task in tasks.items() if task["state"] == "delivered"} == set(counts)
    else:
        twice = {key for key, count in counts.items() if count > 1}
        assert set(counts) == set(keys)
        assert sum(counts.values()) - messages <= IN_FLIGHT * kills
        assert twice <= doubted
