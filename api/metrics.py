"""What this API process counts, for Prometheus. With several workers, `server` makes them share one directory."""

import os
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"


class Metrics:
    """The counters of one app."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        requests = Counter(
            "mjumbe_http_requests", "Requests answered.", ("method", "route", "status"), registry=self._registry
        )
        seconds = Histogram(
            "mjumbe_http_request_seconds", "How long answering took.", ("route",), registry=self._registry
        )
        # Finding a counter by its labels costs more than counting. There are as many as routes, methods and statuses.
        self._answered = cache(lambda *labels: requests.labels(*labels).inc)
        self._took = cache(lambda route: seconds.labels(route).observe)
        self._stored = Counter("mjumbe_documents_stored", "Documents stored.", ("kind",), registry=self._registry)
        self._repeated = Counter(
            "mjumbe_documents_repeated", "Documents that were there already.", ("kind",), registry=self._registry
        )
        self._spooled = Counter(
            "mjumbe_documents_spooled", "Documents that waited on disk for CouchDB.", registry=self._registry
        )
        self._wrong_keys = Counter(
            "mjumbe_callbacks_refused", "Callbacks without the right key.", ("service",), registry=self._registry
        )
        self._batches = Histogram(
            "mjumbe_intake_batch_documents",
            "Documents in one bulk write.",
            buckets=(1, 2, 5, 10, 25, 50, 100, 250, 500),
            registry=self._registry,
        )

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered; `route` is the URL rule, so that paths made up by callers add no series."""
        self._answered(method, route, str(status))()
        self._took(route)(seconds)

    def stored(self, kind: str, stored: list[bool]) -> None:
        """Documents of a kind were handed to the intake, with its answers."""
        new = sum(stored)
        self._stored.labels(kind).inc(new)
        self._repeated.labels(kind).inc(len(stored) - new)

    def spooled(self, count: int) -> None:
        """Documents were put into the spool."""
        self._spooled.inc(count)

    def wrong_key(self, service: str) -> None:
        self._wrong_keys.labels(service).inc()

    def batch(self, size: int) -> None:
        self._batches.observe(size)

    def exposition(self, *more: Collector) -> bytes:
        """All counters, and those of `more`, in Prometheus's text format."""
        extra = CollectorRegistry()
        for collector in more:
            extra.register(collector)
        if MULTIPROCESS in os.environ:
            shared = CollectorRegistry()
            MultiProcessCollector(shared)  # type: ignore[no-untyped-call]
            return generate_latest(shared) + generate_latest(extra)
        return generate_latest(self._registry) + generate_latest(extra)
