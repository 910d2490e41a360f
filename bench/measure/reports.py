"""Delivery reports: what the API takes, and how soon the sentinel has applied them."""

import secrets
import time

from bench import seed
from bench.bench import Bench, Floors, at, loads
from bench.bodies import message_id
from bench.figures import Floor
from mjumbe import states
from mjumbe.documents import Document, tasks_of
from mjumbe.states import State

CONNECTIONS = 32  # by which the reports come that are followed until they are applied


def measure(bench: Bench, floors: Floors) -> None:
    """Reports at each number of connections, then many of them until the last is applied."""
    for connections, most in bench.plan.requests.items():
        name, tag = f"reports, {at(connections)}", secrets.token_hex(4)
        _write_sent(bench, tag, most)
        with bench.measured(name):
            url = bench.stage.callback_url("delivery-reports")
            answered = bench.load("report", url, connections, most, bench.plan.seconds, tag=tag)
            bench.stage.wait("delivery reports are applied", bench.stage.reports_are_applied)
        bench.add_load(name, answered, *loads(floors, connections))
    _applied(bench, floors)


def _applied(bench: Bench, floors: Floors) -> None:
    count, tag = bench.plan.applied, secrets.token_hex(4)
    ids = _write_sent(bench, tag, count)
    name = f"{count:,} reports applied"
    with bench.measured(name):
        began = time.time()
        url = bench.stage.callback_url("delivery-reports")
        bench.load("report", url, CONNECTIONS, count, 10 * bench.plan.seconds, tag=tag)
        applied = bench.stage.wait("delivery reports are applied", bench.stage.reports_are_applied)
        delivered = sum(_is_delivered(doc) for doc in bench.stage.fetch(ids))
        if delivered != count:
            bench.problem(f"{delivered} of {count} messages are delivered")
    floor = Floor(f"as many single PUTs, {CONNECTIONS} connections", count / floors.puts[CONNECTIONS].rate)
    bench.add(name, applied - began, "s", floor)


def _write_sent(bench: Bench, tag: str, count: int) -> list[str]:
    """The messages that the reports are about; their documents' ids."""
    docs = [seed.sent(message_id(tag, n), seed.sender(n), seed.TEXTS[n % len(seed.TEXTS)]) for n in range(count)]
    bench.stage.write(docs)
    return [doc["_id"] for doc in docs]


def _is_delivered(doc: Document) -> bool:
    return all(states.of(task) is State.DELIVERED for task in tasks_of(doc))
