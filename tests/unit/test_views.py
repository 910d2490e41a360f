"""Our own map functions, as the embedded store runs them."""

import json
import os
import subprocess
import sys

import pytest

SCRIPT = """
import json, sys
from embedded.engine.javascript import MapFunctions
from mjumbe.setup import read_designs

views = next(design for design in read_designs() if design.name == "mjumbe").views
functions = MapFunctions({name: view["map"] for name, view in views.items()})
(rows,) = functions.run([sys.argv[1]])
functions.close()
print(json.dumps([key for view in rows for key, _ in view]))
"""
EIGHT = 1_769_846_400_000  # 2026-01-31T08:00:00Z


@pytest.mark.parametrize("zone", ["UTC", "Africa/Nairobi", "America/New_York"])
@pytest.mark.parametrize("due", ["2026-01-31T08:00:00", "2026-01-31 08:00", "2026-01-31T08:00:00.000Z", EIGHT])
def test_a_moment_without_a_zone_is_utc_wherever_couchdb_runs(zone: str, due: str | int) -> None:
    task = {"state": "pending", "service": "medic-gateway", "due": due, "messages": [{"to": "+1", "uuid": "u"}]}
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps({"_id": "d", "tasks": [task]})],
        env={**os.environ, "TZ": zone},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    keys = json.loads(ran.stdout)
    assert ["assigned", EIGHT] in keys, "of the view due"
    assert ["all", EIGHT] in keys
    assert ["medic-gateway", 1, EIGHT] in keys
