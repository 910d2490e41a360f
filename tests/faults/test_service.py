"""The SMS service misbehaves: how many requests a message and a minute cost, and what becomes of the messages.

Never answers, answers late, closes, HTTP 500, no JSON, leaves a recipient out: a message costs `sms.max_attempts`
requests at most. Once five requests in a row failed, the service is asked 5, 10, 20, 40, then every 60 s, by one.

HTTP 429 with Retry-After: one request each time the wait is over. A wrong key, an empty account: one a minute. Nobody
reached: 5, 10, 20, 40, then 60 s apart. These spend no attempt: what is wrong is not the message. In each case the
requests under way at that moment come on top.
"""

import itertools
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.faults.rig import INCOMING as INCOMING_PATH
from tests.faults.rig import accepted, incoming, numbers, post_all, sizes, until_accepted
from tests.integration.processes import eventually
from tests.integration.sentinel.world import OUTGOING_KEY, World, number

ATTEMPTS = 3
IN_FLIGHT = 16  # sms.africas_talking.concurrency
PROBE_SECONDS = 60.0
LONG = 90.0

# What the service does with the number → how the message ends, and the word for it; how often it may be accepted.
FAULTS = {
    "99801": ("failed", "no answer in time", 0),
    "99802": ("delivered", "Success", ATTEMPTS),
    "99803": ("failed", "the connection broke before the answer", 0),
    "99804": ("failed", "HTTP 500", 0),
    "99806": ("failed", "no JSON", 0),
    "99807": ("failed", "Sent to 0/1", 0),
}


@contextmanager
def others(world: World) -> Iterator[list[str]]:
    """Ordinary messages meanwhile, ten a second; their ids."""
    ids: list[str] = []
    stop = threading.Event()

    def write() -> None:
        for n in itertools.count():
            if stop.wait(0.1):
                return
            ids.append(world.write(number(), f"meanwhile {n}"))

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield ids
    finally:
        stop.set()
        thread.join()


def requests(world: World) -> list[dict[str, Any]]:
    """Every sending that the service was asked for, in order."""
    listed = world.simulator.ask("GET", "/requests", limit=100_000)["requests"]
    return [entry for entry in listed if entry["message"] is not None]


def test_a_message_in_trouble_costs_few_requests_and_delays_no_other(own_world: World) -> None:
    world = own_world
    world.set(
        sms={
            "max_attempts": ATTEMPTS,
            "africas_talking": {"batch_size": 1, "read_timeout": 1, "concurrency": IN_FLIGHT},
        }
    )
    assert world.api.url
    world.start_sentinel()
    recipients = {ending: number(ending) for ending in FAULTS}
    with others(world) as ordinary:
        ids = {ending: world.write(to, f"trouble {ending}") for ending, to in recipients.items()}
        ends = {ending: world.until(ids[ending], state, LONG) for ending, (state, _, _) in FAULTS.items()}
    asked = Counter(to for request in requests(world) for to in request["to"])
    taken = Counter(to for to, _ in accepted(world).elements())
    for ending, (_, word, most) in FAULTS.items():
        assert word in ends[ending]["state_details"], ending
        assert 1 <= asked[recipients[ending]] <= ATTEMPTS, ending
        assert taken[recipients[ending]] <= most, ending
    assert ordinary
    eventually(lambda: set(world.states(ordinary)) == {"delivered"}, LONG)
    assert world.simulator.counts()["accepted"] == len(ordinary) + taken[recipients["99802"]]


def test_too_many_requests_are_not_asked_again_before_the_service_says(own_world: World) -> None:
    world = own_world
    world.set(sms={"africas_talking": {"batch_size": 1}})
    world.simulator.control(reports=False)
    world.start_sentinel()
    to = number("99805")
    limited = world.write(to, "too many")
    with others(world) as ordinary:
        eventually(lambda: len(world.simulator.requests("too many")) >= 3, LONG)
    asked = [request["received_ms"] for request in world.simulator.requests("too many")]
    assert all(later - earlier >= 1_900 for earlier, later in itertools.pairwise(asked)), "Retry-After is 2"
    assert world.tasks(limited)[0].get("attempts") in (0, 1), "a wait spends no attempt"
    world.simulator.control(number_faults=False)
    world.until(limited, "sent", LONG)
    eventually(lambda: set(world.states(ordinary)) == {"sent"}, LONG)
    assert set(accepted(world).values()) == {1}


@sizes("seconds", [8], [300])
def test_nothing_but_500_costs_a_few_probes(own_world: World, seconds: int) -> None:
    world = own_world
    world.set(sms={"max_attempts": 100, "africas_talking": {"batch_size": 1, "concurrency": IN_FLIGHT}})
    world.simulator.control(error_rate=1.0, reports=False)
    world.start_sentinel()
    keys = [(to, f"message {n}") for n, to in enumerate(numbers(60))]
    ids = world.write_many(keys)
    eventually(lambda: world.held() is not None)
    assert post_all(world.start_api().url + INCOMING_PATH, [incoming("in", number(), "HELP")], 1) == [200]
    began = time.monotonic()
    eventually(lambda: time.monotonic() - began > seconds, seconds + 5)
    asked = [request["received_ms"] for request in requests(world)]
    # The first ones under way at once, then probes 5, 15, 35 and 75 s after that, and one a minute.
    assert len(asked) <= 2 * IN_FLIGHT + 4 + seconds // PROBE_SECONDS
    probes = asked[2 * IN_FLIGHT :]
    assert all(later - earlier > 4_000 for earlier, later in itertools.pairwise(probes))
    assert max(Counter(request["message"] for request in requests(world)).values()) <= 2 + seconds // PROBE_SECONDS
    world.simulator.control(error_rate=0.0)
    eventually(lambda: set(world.states(ids)) == {"sent"}, PROBE_SECONDS + 30)
    counts = accepted(world)
    assert {key: counts[key] for key in keys} == dict.fromkeys(keys, 1)


@sizes("seconds, recovers", [6, False], [150, True])
@pytest.mark.parametrize("switch, reason", [("unauthorized", "HTTP 401"), ("no_balance", "InsufficientBalance")])
def test_a_wrong_key_and_an_empty_account_cost_one_probe_a_minute(
    own_world: World, switch: str, reason: str, seconds: int, recovers: bool
) -> None:
    world = own_world
    world.set(sms={"africas_talking": {"batch_size": 1, "concurrency": IN_FLIGHT}})
    world.simulator.control(**{switch: True}, reports=False)
    world.start_sentinel()
    keys = [(to, f"message {n}") for n, to in enumerate(numbers(60))]
    ids = world.write_many(keys)
    eventually(lambda: reason in (world.held() or ""))
    began = time.monotonic()
    eventually(lambda: time.monotonic() - began > seconds, seconds + 5)
    assert len(requests(world)) <= 2 * IN_FLIGHT + seconds // PROBE_SECONDS
    tasks = [world.tasks(doc_id)[0] for doc_id in ids]
    assert {task["state"] for task in tasks} == {"pending"}
    assert not any(task.get("attempts") for task in tasks), "what is wrong with the account spends no attempt"
    assert not accepted(world)
    assert post_all(world.start_api().url + INCOMING_PATH, [incoming("in", number(), "HELP")], 1) == [200]
    if recovers:
        world.simulator.control(**{switch: False})
        eventually(lambda: set(world.states(ids)) == {"sent"}, PROBE_SECONDS + 30)
        counts = accepted(world)
        assert {key: counts[key] for key in keys} == dict.fromkeys(keys, 1)


def test_a_wrong_key_that_is_set_right_sends_at_once(own_world: World) -> None:
    world = own_world
    world.vault.set("africastalking.com:outgoing", "a-wrong-key")
    world.simulator.control(reports=False)
    world.start_sentinel()
    keys = [(to, "one text") for to in numbers(50)]
    ids = world.write_many(keys)
    eventually(lambda: "HTTP 401" in (world.held() or ""))
    world.vault.set("africastalking.com:outgoing", OUTGOING_KEY)
    eventually(lambda: set(world.states(ids)) == {"sent"}, PROBE_SECONDS - 10)
    assert accepted(world) == dict.fromkeys(keys, 1)


@pytest.mark.parametrize("count", [1, 50])
def test_a_service_that_nobody_reaches_fails_no_message(own_world: World, count: int) -> None:
    """A night without internet: whatever waits in the morning goes out."""
    world = own_world
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen: connections are refused
        nowhere = f"http://127.0.0.1:{taken.getsockname()[1]}"
        world.set(sms={"max_attempts": 1, "africas_talking": {"base_url": nowhere}})
        world.simulator.control(reports=False)
        world.start_sentinel()
        keys = [(to, "one text") for to in numbers(count)]
        ids = world.write_many(keys)
        eventually(lambda: "no connection" in (world.held() or ""))
        assert set(world.states(ids)) <= {"pending", "forwarded-to-gateway"}
        world.set(sms={"africas_talking": {"base_url": world.simulator.url}})
        eventually(lambda: set(world.states(ids)) == {"sent"}, PROBE_SECONDS)
    assert accepted(world) == dict.fromkeys(keys, 1)
    assert {world.tasks(doc_id)[0]["attempts"] for doc_id in ids} == {1}


@sizes("read_timeout, latency_ms", [1, 3_000], [60, 70_000])
@pytest.mark.parametrize("in_doubt", ["retry", "hold"])
def test_answers_that_come_too_late_are_settled_by_the_reports(
    own_world: World, in_doubt: str, read_timeout: int, latency_ms: int
) -> None:
    world = own_world
    world.set(
        sms={
            "in_doubt": in_doubt,
            "retry_base": 30,
            "retry_max": 30,
            "africas_talking": {"batch_size": 1, "read_timeout": read_timeout},
        }
    )
    assert world.api.url
    world.simulator.control(latency_ms=latency_ms)
    world.start_sentinel()
    keys = [(to, f"message {n}") for n, to in enumerate(numbers(10))]
    ids = world.write_many(keys)
    until_accepted(world, 10)
    eventually(lambda: set(world.states(ids)) == {"delivered"}, LONG)
    assert accepted(world) == dict.fromkeys(keys, 1)
    assert len(requests(world)) == 10
    assert not any(world.tasks(doc_id)[0].get("in_doubt") for doc_id in ids)
