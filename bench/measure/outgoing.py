"""Outgoing messages: from their handing over to the API until the service has accepted the last."""

import secrets
import time
from collections.abc import Iterator

from bench import seed
from bench.bench import Bench, Floors
from bench.figures import Floor
from bench.plan import CONCURRENCY, LATENCIES_MS
from bench.stage import Stage, in_parts
from mjumbe.settings import Settings

REPORTED_LATENCY_MS = 50
SECONDS = 600.0
BATCH = Settings().sms.africas_talking.batch_size  # recipients of one text in one request
# A message is written when it is handed over, when it is claimed and when its result is stored.
WRITES = 3


def measure(bench: Bench, floors: Floors) -> None:
    """Different texts and equal ones at each latency of the service; then with the service's delivery reports."""
    for latency in LATENCIES_MS:
        _accepted(bench, floors, bench.plan.different, latency, equal=False)
    for latency in LATENCIES_MS:
        _accepted(bench, floors, bench.plan.equal, latency, equal=True)
    _delivered(bench, floors)


def _accepted(bench: Bench, floors: Floors, count: int, latency: int, *, equal: bool) -> None:
    name = f"{count:,} {'equal' if equal else 'different'} texts, {latency} ms"
    with bench.measured(name):
        bench.stage.lab.service.begin(latency_ms=latency)
        began = time.time()
        hand_over(bench.stage, texts(count, equal=equal))
        handed_over = time.time()
        accepted, last = bench.stage.lab.service.wait_accepted(count, SECONDS)
        _check(bench, count, accepted)
    bench.add(name, accepted / (last - began), "messages/s", _floor(floors, latency, equal=equal))
    if equal and latency == 0:
        floor = Floor("_bulk_docs of 500", floors.documents_per_second(500))
        bench.add("handed over, lists of 1,000", count / (handed_over - began), "messages/s", floor)


def _delivered(bench: Bench, floors: Floors) -> None:
    count, stage = bench.plan.reported, bench.stage
    name = f"{count:,} different texts, {REPORTED_LATENCY_MS} ms, until all are reported delivered"
    with bench.measured(name):
        before = _count_delivered(stage)
        stage.lab.service.begin(latency_ms=REPORTED_LATENCY_MS, reports_url=stage.callback_url("delivery-reports"))
        began = time.time()
        hand_over(stage, texts(count, equal=False))
        accepted, _ = stage.lab.service.wait_accepted(count, SECONDS)
        stage.wait("the service has posted its reports", stage.lab.service.reports_are_out)
        done = stage.wait("delivery reports are applied", stage.reports_are_applied)
        _check(bench, count, accepted)
        delivered = _count_delivered(stage) - before
        if delivered != count:
            bench.problem(f"{delivered} of {count} messages are delivered")
    stage.lab.service.begin()
    bench.add(name, count / (done - began), "messages/s", _floor(floors, REPORTED_LATENCY_MS, equal=False))


def _floor(floors: Floors, latency: int, *, equal: bool) -> Floor:
    """What cannot be passed: the requests that the service answers in its time, or the writes that the store takes."""
    store = Floor(f"_bulk_docs of 500, {WRITES} writes a message", floors.documents_per_second(500) / WRITES)
    if not latency:
        return store
    requests = CONCURRENCY * 1000 / latency
    name = f"{CONCURRENCY} requests at once, {latency} ms each" + (f", {BATCH} recipients" if equal else "")
    return min(store, Floor(name, requests * (BATCH if equal else 1)), key=lambda floor: floor.value)


def texts(count: int, *, equal: bool) -> Iterator[dict[str, str]]:
    """Messages to `count` different numbers."""
    tag = secrets.token_hex(4)
    for n in range(count):
        text = f"Umeme utakatika kesho saa tatu hadi saa sita ({tag})"
        yield {"to": seed.number(n, "+254722"), "message": text if equal else f"{text}. Salio lako: KES {n}"}


def hand_over(stage: Stage, messages: Iterator[dict[str, str]]) -> None:
    """Give messages to the API, as many at once as it takes."""
    client = stage.client()
    for part in in_parts(messages):
        client.json("POST", "/api/v1/messages", part)


def _check(bench: Bench, count: int, accepted: int) -> None:
    counts = bench.stage.lab.service.counts()
    if accepted != count or counts["duplicates"]:
        bench.problem(f"{accepted} of {count} were accepted, {counts['duplicates']} of them twice")


def _count_delivered(stage: Stage) -> int:
    key = ["state", "delivered"]
    rows = stage.couch.main.view("mjumbe", "messages", start_key=key, end_key=[*key, {}], reduce=True)
    return int(rows[0].value) if rows else 0
