"""Trying a service out by a message."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

from api.context import Context
from api.gateways import _send
from tests.unit.api.conftest import MemoryDatabase


class Leaving(MemoryDatabase):
    """A database that is away from its first write on."""

    def put(self, doc: Mapping[str, Any], *, surely: bool = False) -> str:
        rev = super().put(doc, surely=surely)
        self.away = True
        return rev


def test_a_test_message_that_was_handed_over_is_never_said_to_have_failed() -> None:
    database = Leaving("medic")
    here = cast(Context, SimpleNamespace(couch=SimpleNamespace(main=database)))
    said = _send(here, "africas-talking", "+254711000001")
    [doc] = database.docs.values()
    assert (said["ok"], said["uuid"]) == (True, doc["tasks"][0]["messages"][0]["uuid"])
