"""The phone gateway's poll: 100 messages in one, 100 updates in one."""

import secrets
import time
from collections.abc import Callable
from typing import Any

from bench import seed
from bench.bench import Bench, Floors
from bench.figures import Floor, percentile
from bench.stage import Stage
from mjumbe.uuid7 import new_uuid

ENTRIES = 100
# A phone polls every 30 s or so: between two polls the sentinel has time for what the one before brought.
PAUSE_SECONDS = 0.5


def measure(bench: Bench, floors: Floors) -> None:
    """One poll after the other, by one phone."""
    _poll(bench, floors, f"{ENTRIES} messages in one poll", _messages, _check_messages)
    _poll(bench, floors, f"{ENTRIES} updates in one poll", _updates, _check_updates)


def _poll(
    bench: Bench,
    floors: Floors,
    name: str,
    entries: Callable[[Stage], dict[str, Any]],
    check: Callable[[Bench, int], None],
) -> None:
    seconds, client = [], bench.stage.client()
    with bench.measured(name):
        before = bench.stage.stored()
        client.json("POST", "/api/sms", {})  # the first logs in, which the API remembers for some seconds
        for _ in range(bench.plan.polls):
            body = entries(bench.stage)
            time.sleep(PAUSE_SECONDS)
            seconds.append(client.timed_json("POST", "/api/sms", body).seconds)
        check(bench, before)
    for percent in (50, 99):
        floor = Floor(f"_bulk_docs of {ENTRIES}, p50", floors.bulks[ENTRIES].p50_ms)
        bench.add(f"{name}, p{percent}", percentile(seconds, percent) * 1000, "ms", floor)


def _messages(_stage: Stage) -> dict[str, Any]:
    now = int(time.time() * 1000)
    return {
        "messages": [
            {
                "id": secrets.token_hex(16),
                "from": seed.sender(n),
                "content": seed.TEXTS[n % len(seed.TEXTS)],
                "sms_sent": now,
                "sms_received": now,
            }
            for n in range(ENTRIES)
        ]
    }


def _check_messages(bench: Bench, before: int) -> None:
    stored, expected = bench.stage.stored() - before, ENTRIES * bench.plan.polls
    if stored != expected:
        bench.problem(f"{stored} of {expected} messages are stored")


def _updates(stage: Stage) -> dict[str, Any]:
    """Of messages that the phone was given before."""
    uuids = [new_uuid() for _ in range(ENTRIES)]
    user, _ = stage.lab.admin
    stage.write(seed.on_the_phone(one, seed.sender(n), seed.TEXTS[0], user) for n, one in enumerate(uuids))
    return {"updates": [{"id": one, "status": "SENT"} for one in uuids]}


def _check_updates(bench: Bench, _before: int) -> None:
    open_ = bench.stage.couch.main.view("mjumbe", "assigned")
    if open_:
        bench.problem(f"{len(open_)} messages did not take their updates")
