"""Signed webhooks while CouchDB is away: TextBee and Viber never come again after a 4xx, so there is none."""

import os
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.integration.conftest import StartStore
from tests.integration.gateways.town import AT, RAPIDPRO, TEXTBEE, VIBER, Town
from tests.integration.processes import ADMIN, Process, eventually
from tests.integration.sentinel.world import SOON, number

SIGNED = (TEXTBEE, VIBER, RAPIDPRO)
PASSING = {200, 503}


class Place:
    """A town on a store of its own, which can be away."""

    def __init__(self, start_store: StartStore, folder: Any, data: Any) -> None:
        self._start, self._data = start_store, data
        self.store: Process = start_store(data)
        url = f"{self.store.url.replace('://', '://' + ':'.join(ADMIN) + '@')}/test-{uuid.uuid4().hex}"
        self.town = Town(url, folder)

    def away(self) -> None:
        self.store.stop()

    def back(self) -> None:
        self.store = self._start(self._data, self.store.port)


@pytest.fixture
def place(start_store: StartStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    if os.environ.get("COUCH_URL"):
        pytest.skip("stops the store, which only the embedded one allows")
    made = Place(start_store, tmp_path_factory.mktemp("town"), tmp_path_factory.mktemp("data"))
    yield made
    made.town.close()


def statuses(town: Town, service: str, text: str) -> list[int | None]:
    return [answer["status"] for answer in town.hear(service, number(), text)]


def test_what_is_posted_while_couchdb_is_away_is_kept(place: Place) -> None:
    town, text = place.town, uuid.uuid4().hex
    for service in (AT, *SIGNED):
        assert statuses(town, service, f"before {text}") == [200]
    place.away()
    answered = {service: statuses(town, service, f"{text} {service}") for service in (AT, *SIGNED)}
    sent = {"smsId": "s1", "smsBatchId": "b1", "recipient": number(), "webhookEvent": "MESSAGE_SENT"}
    (told,) = town.twins.ask("POST", "/events/textbee", {"event": sent})["answers"]
    assert {status for found in answered.values() for status in found} | {told["status"]} <= PASSING
    place.back()
    for service in (AT, *SIGNED):
        eventually(lambda service=service: len(town.incoming(f"{text} {service}")) == 1, SOON)  # type: ignore[misc]
    eventually(lambda: town.couch.callbacks.get("report:textbee:b1:sent"), SOON)


def test_an_api_that_never_saw_the_secret_says_503(place: Place) -> None:
    """It cannot know whether the signature is right, which is no reason for a 401."""
    town, text = place.town, uuid.uuid4().hex
    place.away()
    for service in SIGNED:
        assert set(statuses(town, service, f"{text} {service}")) <= PASSING
    forged = {"X-Signature": "0" * 64}
    url, event = f"{town.api.url}/api/v1/sms/textbee/events", {"webhookEvent": "MESSAGE_RECEIVED", "smsId": text}
    assert requests.post(url, json=event, headers=forged, timeout=60).status_code == 503
    place.back()
    for service in SIGNED:
        eventually(lambda service=service: len(town.incoming(f"{text} {service}")) == 1, SOON)  # type: ignore[misc]
    assert town.couch.main.get(f"incoming:textbee:{text}") is None
