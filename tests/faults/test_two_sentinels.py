"""Two sentinels: one sends, the other takes over; a leader that was stopped and goes on sends nothing twice."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.faults.rig import accepted, is_doubted, kill, numbers, sizes, until_accepted
from tests.integration.processes import Process, eventually
from tests.integration.sentinel.world import World

TAKEOVER_SECONDS = 15.0
IN_FLIGHT = 16
LONG = 150.0  # more than a leader that may be alive is waited for


def write(world: World, count: int) -> dict[str, tuple[str, str]]:
    """Messages of different texts, one request each; document id → (number, text)."""
    keys = [(to, f"message {n}") for n, to in enumerate(numbers(count))]
    return dict(zip(world.write_many(keys), keys, strict=True))


def slow(world: World, in_doubt: str) -> None:
    world.set(sms={"in_doubt": in_doubt, "africas_talking": {"batch_size": 1, "concurrency": IN_FLIGHT}})
    world.simulator.control(latency_ms=200, reports=False)


def standby(world: World, clock_ahead: int = 0) -> Process:
    """A second sentinel that waits for the first one's lease to run out: takeovers count from then."""
    process = world.start_sentinel(leads=False, clock_ahead=clock_ahead)
    eventually(lambda: "stands by" in process.log(), LONG)
    return process


@contextmanager
def stopped(process: Process) -> Iterator[None]:
    os.kill(process.popen.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.popen.pid, signal.SIGCONT)


def assert_each_sent_once(world: World, messages: dict[str, tuple[str, str]]) -> None:
    assert accepted(world) == dict.fromkeys(messages.values(), 1)


def test_the_other_takes_over_from_one_that_was_killed(own_world: World) -> None:
    world = own_world
    slow(world, "retry")
    first, second = world.start_sentinel(), standby(world)
    messages = write(world, 200)
    until_accepted(world, 50)
    kill(first)
    world.wait_for_leader(second, TAKEOVER_SECONDS)
    eventually(lambda: set(world.states(list(messages))) == {"sent"}, LONG)
    counts = accepted(world)
    twice = {key for key, count in counts.items() if count > 1}
    doubted = {key for doc_id, key in messages.items() if is_doubted(world.tasks(doc_id)[0])}
    assert set(counts) == set(messages.values())
    assert twice <= doubted
    assert len(doubted) <= IN_FLIGHT
    assert "this sentinel leads" in second.log()


@sizes("seconds", [3], [60])
@pytest.mark.parametrize("in_doubt", ["retry", "hold"])
def test_a_stopped_leader_that_goes_on_sends_nothing_that_the_other_sends(
    own_world: World, in_doubt: str, seconds: int
) -> None:
    """Its unanswered requests are left to its own late answers: nobody else sends them, nobody calls them in doubt."""
    world = own_world
    slow(world, in_doubt)
    first, second = world.start_sentinel(), standby(world)
    messages = write(world, 300)
    until_accepted(world, 30)
    with stopped(first):
        began = time.monotonic()
        world.wait_for_leader(second, TAKEOVER_SECONDS)
        eventually(lambda: world.states(list(messages)).count("sent") >= 300 - 2 * IN_FLIGHT, LONG)
        eventually(lambda: time.monotonic() - began > seconds, seconds + 5)
    eventually(lambda: set(world.states(list(messages))) == {"sent"}, LONG)
    assert_each_sent_once(world, messages)
    assert not any(is_doubted(world.tasks(doc_id)[0]) for doc_id in messages)
    eventually(lambda: "stops sending" in first.log() or "no longer leads" in first.log())
    assert first.popen.poll() is None, "it stands by again"
    status = world.status()
    assert status is not None
    assert status.owner["pid"] == second.popen.pid


def test_a_clock_that_jumped_makes_nothing_sent_twice(own_world: World) -> None:
    """The second one's, by an hour: it neither leads too soon, nor takes the first one's requests for old."""
    world = own_world
    slow(world, "retry")
    first, second = world.start_sentinel(), standby(world, clock_ahead=3_600)
    messages = write(world, 100)
    eventually(lambda: set(world.states(list(messages))) == {"sent"}, LONG)
    status = world.status()
    assert status is not None
    assert status.owner["pid"] == first.popen.pid
    more = write(world, 100)
    until_accepted(world, 120)
    with stopped(first):
        world.wait_for_leader(second, TAKEOVER_SECONDS)
        eventually(lambda: world.states(list(more)).count("sent") >= 100 - 2 * IN_FLIGHT, LONG)
    messages |= more
    eventually(lambda: set(world.states(list(messages))) == {"sent"}, LONG)
    assert_each_sent_once(world, messages)
    assert not any(is_doubted(world.tasks(doc_id)[0]) for doc_id in messages)


@pytest.mark.long
def test_leaders_that_are_stopped_in_turns(own_world: World) -> None:
    """Each is stopped while it sends, and goes on when the other leads: both believed that they led."""
    world = own_world
    slow(world, "hold")
    first, second = world.start_sentinel(), standby(world)
    messages = write(world, 200)
    until_accepted(world, 30)
    with stopped(first):
        world.wait_for_leader(second, TAKEOVER_SECONDS)
        until_accepted(world, 100)
    more = write(world, 200)
    until_accepted(world, 230)
    with stopped(second):
        world.wait_for_leader(first, TAKEOVER_SECONDS)
    messages |= more
    eventually(lambda: set(world.states(list(messages))) == {"sent"}, LONG)
    assert_each_sent_once(world, messages)
