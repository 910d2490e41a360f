"""The simulator, as the benchmark uses it: the service that takes the messages, with its exact record."""

import time
from typing import Any

from bench.client import Client

WAIT_MS = 5_000


class Service:
    """A client of one simulator."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = Client(url)

    def begin(self, *, latency_ms: int = 0, reports_url: str | None = None) -> None:
        """Forget what was; answer after `latency_ms`; report deliveries to `reports_url`, or none at all."""
        switches = {
            "latency_ms": latency_ms,
            "number_faults": False,
            "reports": reports_url is not None,
            "reports_url": reports_url,
        }
        self._client.json("PUT", "/control", switches)
        self._client.json("DELETE", "/requests")

    def counts(self) -> dict[str, Any]:
        """The exact counts: requests, accepted, duplicates …"""
        counts: dict[str, Any] = self._client.json("GET", "/counts")
        return counts

    def wait_accepted(self, count: int, seconds: float) -> tuple[int, float]:
        """Until `count` messages are accepted, `seconds` at most: how many were, and when the last (s since epoch)."""
        deadline = time.monotonic() + seconds
        while True:
            answer = self._client.json("GET", f"/messages?wait_for={count}&last=1&timeout_ms={WAIT_MS}")
            if answer["reached"] or time.monotonic() > deadline:
                last = answer["messages"][-1]["accepted_ms"] / 1000 if answer["messages"] else time.time()
                return int(answer["total"]), last

    def wait_requests(self, count: int) -> None:
        """Until so many requests have arrived since `begin`, some seconds at most."""
        self._client.json("GET", f"/requests?last=1&wait_for={count}&timeout_ms={WAIT_MS}")

    def arrivals(self) -> dict[str, float]:
        """Recipient → when the first request with it arrived (s since epoch), of all requests since `begin`."""
        arrivals: dict[str, float] = {}
        since = 0
        while True:
            entries = self._client.json("GET", f"/requests?since={since}&limit=1000")["requests"]
            if not entries:
                return arrivals
            for entry in entries:
                for to in entry["to"]:
                    arrivals.setdefault(to, entry["received_ms"] / 1000)
            since = entries[-1]["n"]

    def reports_are_out(self) -> bool:
        """Whether no delivery report waits to be posted."""
        return not self.counts()["callbacks_waiting"]
