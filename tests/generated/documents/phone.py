"""A phone with the gateway app: it polls, sends what it is given once, and tells what became of it."""

import random
import time
from datetime import UTC, datetime
from typing import Any

import requests

from tests.integration.gateways.town import Town
from tests.integration.processes import make_user

STEPS = ("UNSENT", "PENDING", "SENT", "DELIVERED")
MOST_UPDATES = 20  # a poll


class Phone:
    def __init__(self, chance: random.Random, town: Town, name: str) -> None:
        self.sent: list[dict[str, Any]] = []  # as the simulator lists what it took
        self._ids: set[str] = set()
        self._updates: list[dict[str, str]] = []
        self._chance = chance
        self._town = town
        self._login = make_user(town.couch, name, f"{name}-password", ["gateway"])

    def poll(self) -> None:
        """One poll; at times its answer is lost, or the API has no CouchDB."""
        updates = self._updates[:MOST_UPDATES]
        answer = requests.post(
            f"{self._town.api.url}/api/sms", auth=self._login, json={"messages": [], "updates": updates}, timeout=60
        )
        if answer.status_code != 200 or self._chance.random() < 0.2:
            return
        self._updates = self._updates[MOST_UPDATES:]
        for message in answer.json()["messages"]:
            self._take(message)

    def _take(self, message: dict[str, str]) -> None:
        steps = STEPS if message["id"] not in self._ids else STEPS[-1:]
        self._updates += [{"id": message["id"], "status": step} for step in steps]
        if message["id"] not in self._ids:
            self._ids.add(message["id"])
            at = time.time()
            sent = {"to": message["to"], "message": message["content"], "accepted_ms": at * 1000}
            self.sent.append({**sent, "at": datetime.fromtimestamp(at, UTC).isoformat()})
