"""Trying a service out by a message."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from api import gateways
from api.context import Context
from api.gateways import _send
from mjumbe.status import LEADER_ID
from tests.unit.api.conftest import MemoryDatabase


class Leaving(MemoryDatabase):
    """A database that is away from its first write on."""

    def put(self, doc: Mapping[str, Any], *, surely: bool = False) -> str:
        rev = super().put(doc, surely=surely)
        self.away = True
        return rev


class Refusing(MemoryDatabase):
    """A database in which every message that is written has ended so."""

    def __init__(self, state: str) -> None:
        super().__init__("medic")
        self.state = state

    def put(self, doc: Mapping[str, Any], *, surely: bool = False) -> str:
        return super().put({**doc} | {"tasks": [task | {"state": self.state} for task in doc["tasks"]]}, surely=surely)


def sent_by(database: MemoryDatabase, sentinel: MemoryDatabase | None = None) -> dict[str, object]:
    couch = SimpleNamespace(main=database, sentinel=sentinel or MemoryDatabase("medic-sentinel"))
    here = cast(Context, SimpleNamespace(couch=couch))
    return _send(here, "africas-talking", "+254711000001")


@pytest.mark.parametrize("state", ["failed", "denied", "duplicate", "cleared"])
def test_a_test_message_that_will_not_be_sent_is_not_well(state: str) -> None:
    said = sent_by(Refusing(state))
    assert (said["ok"], said["says"]) == (False, f"The test message is {state} so far.")


def test_a_test_message_that_was_handed_over_is_never_said_to_have_failed() -> None:
    database = Leaving("medic")
    said = sent_by(database)
    [doc] = database.docs.values()
    assert (said["ok"], said["uuid"]) == (True, doc["tasks"][0]["messages"][0]["uuid"])


@pytest.mark.parametrize(
    ("held", "says"),
    [
        (
            True,
            "The test message is pending so far: africas-talking is held (HTTP 401), and tried by one message "
            "at a time.",
        ),
        (False, "The test message is pending so far."),
    ],
)
def test_a_test_message_that_waits_for_a_held_service_says_so(
    held: bool, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateways, "FOLLOWED_SECONDS", 0.0)
    sentinel = MemoryDatabase("medic-sentinel")
    sentinel.put({"_id": LEADER_ID, "services": {"africas-talking": {"held": held, "reason": "HTTP 401"}}})
    said = sent_by(MemoryDatabase("medic"), sentinel)
    assert (said["ok"], said["says"]) == (True, says)
