"""What the doctor makes of a CouchDB's answers; tests/integration/sentinel/test_commands.py runs it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
import requests
import responses

from mjumbe import health
from mjumbe.commands import doctor
from mjumbe.couch import Couch

URL = "http://couch.example:5984"


def in_seconds(seconds: float) -> Callable[[], str]:
    return lambda: format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    ("date", "ok", "says"),
    [
        (in_seconds(0), True, "This machine's clock and CouchDB's agree."),
        (in_seconds(-20), True, "This machine's clock and CouchDB's agree."),
        (in_seconds(-40), False, "This machine's clock is +"),
        (in_seconds(-3600), False, "This machine's clock is +36"),
        (in_seconds(3600), False, "This machine's clock is -3"),
        (lambda: "", False, "Not known: what answers at COUCH_URL says no time."),
        (lambda: "yesterday", False, "Not known: what answers at COUCH_URL says no time."),
    ],
)
def test_the_clock(date: Callable[[], str], ok: bool, says: str) -> None:
    with responses.RequestsMock() as couchdb:
        couchdb.get(URL, json={}, headers={"Date": date()})
        found = doctor._clock(Couch(f"{URL}/medic"))
    assert found[0] is ok
    assert found[1].startswith(says)


def test_the_clock_of_a_couchdb_that_is_away() -> None:
    with responses.RequestsMock() as couchdb:
        couchdb.get(URL, body=requests.exceptions.ConnectionError("x"))
        assert doctor._clock(Couch(f"{URL}/medic")) == (False, health.AWAY)


@pytest.mark.parametrize(
    ("version", "ok"), [("3.0.0", True), ("3.4.2", True), ("10.1", True), ("2.3.1", False), ("x", False)]
)
def test_the_version(version: str, ok: bool) -> None:
    with responses.RequestsMock() as couchdb:
        couchdb.get(f"{URL}/", json={"couchdb": "Welcome", "version": version})
        found, says = doctor._version(Couch(f"{URL}/medic"))
    assert found is ok
    assert version in says


def test_a_disk_that_takes_nothing_whatever_the_rights_say() -> None:
    """/proc stands for one that a failure closed to all: root may write there, and cannot."""
    ok, says = doctor._disk(Path("/proc"))
    assert not ok and says.startswith("MJUMBE_DATA (/proc) cannot be written (")
