"""Our own map functions, as the embedded store runs them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

# A process for each time zone: V8 reads it once. In go documents, one a line, out come the keys of their rows.
SCRIPT = """
import json, sys
from embedded.engine.javascript import MapFunctions
from mjumbe.setup import read_designs

views = next(design for design in read_designs() if design.name == "mjumbe").views
functions = MapFunctions({name: view["map"] for name, view in views.items()})
for document in sys.stdin:
    (rows,) = functions.run([document])
    print(json.dumps([key for view in rows for key, _ in view]), flush=True)
functions.close()
"""
EIGHT = 1_769_846_400_000  # 2026-01-31T08:00:00Z

Keys = list[list[Any]]
KeysOf = Callable[..., Keys]


@pytest.fixture(scope="module")
def keys_of() -> Iterator[KeysOf]:
    """What the views of `mjumbe` list a document under, in a CouchDB that runs in a time zone: keys_of(doc, zone)."""
    started: dict[str, subprocess.Popen[str]] = {}

    def ask(doc: dict[str, Any], zone: str = "UTC") -> Keys:
        if zone not in started:
            started[zone] = subprocess.Popen(
                [sys.executable, "-c", SCRIPT],
                env={**os.environ, "TZ": zone},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        process = started[zone]
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps({"_id": "d", **doc}) + "\n")
        process.stdin.flush()
        keys: Keys = json.loads(process.stdout.readline())
        return keys

    yield ask
    for process in started.values():
        process.communicate(timeout=60)


def task(**facts: Any) -> dict[str, Any]:
    return {"state": "pending", "service": "medic-gateway", "messages": [{"to": "+1", "uuid": "u"}], **facts}


@pytest.mark.parametrize("zone", ["UTC", "Africa/Nairobi", "America/New_York"])
@pytest.mark.parametrize("due", ["2026-01-31T08:00:00", "2026-01-31 08:00", "2026-01-31T08:00:00.000Z", EIGHT])
def test_a_moment_without_a_zone_is_utc_wherever_couchdb_runs(keys_of: KeysOf, zone: str, due: str | int) -> None:
    keys = keys_of({"tasks": [task(due=due)]}, zone)
    assert ["assigned", EIGHT] in keys, "of the view due"
    assert ["all", EIGHT] in keys
    assert ["medic-gateway", 1, EIGHT] in keys


@pytest.mark.parametrize("name", ["due", "retry_at", "timestamp"])
def test_what_is_no_moment_is_never_compared_with_one(keys_of: KeysOf, name: str) -> None:
    """A list ended the sentinel, which compares such keys, and every poll of a phone."""
    odd: list[Any] = [[], [1], {}, {"a": 1}, True, "soon", [None]]
    for state in ("scheduled", "pending", "forwarded-to-gateway"):
        for facts in ({}, {"service": None}):
            keys = keys_of({"tasks": [task(state=state, **facts, **{name: value}) for value in odd]})
            assert {key[-1] for key in keys if key[0] in (state, "assigned", "medic-gateway", "all")} == {0}


def test_answers_that_wait_are_found_by_themselves(keys_of: KeysOf) -> None:
    heard = {"type": "data_record", "from": "+2547", "sms_message": {"message": "HELP"}}
    for_a_phone, scheduled = task(due=EIGHT + 2), task(due=EIGHT + 3, state="scheduled")
    answers = [task(due=EIGHT, service=None), task(due=EIGHT + 1, service="textbee"), for_a_phone, scheduled]
    reminders = [task(due=EIGHT + 4, service=None)]
    found = keys_of({**heard, "tasks": answers, "scheduled_tasks": reminders})
    assert [key for key in found if key[0] == "reply"] == [["reply", EIGHT], ["reply", EIGHT + 1]]
    written = {"type": "data_record", "kujua_message": True, "tasks": answers}
    assert not any(key[0] == "reply" for key in keys_of(written))
