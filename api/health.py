"""How the house is: alive, ready (each part with a sentence), and figures for Prometheus. Open to everybody."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict
from functools import partial

from flask import Blueprint, Response
from flask.typing import ResponseReturnValue
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from pydantic import BaseModel, Field

from api.context import Context, context
from api.openapi import describe, package_version
from api.spool import Spool, SpoolError
from mjumbe import health, states
from mjumbe.couch import CouchError, UnavailableError
from mjumbe.health import House, Said

EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"

blueprint = Blueprint("health", __name__)


class Info(BaseModel):
    """What serves here."""

    name: str
    version: str
    couchdb: str | None = Field(description="CouchDB's version; null when it cannot be reached.")


class Alive(BaseModel):
    """This process answers."""

    ok: bool = True


class CheckResult(BaseModel):
    """How one part is."""

    name: str
    ok: bool
    says: str = Field(description="A sentence, with what to do when it is not ok.")


class Readiness(BaseModel):
    """Whether all is well."""

    ready: bool
    checks: list[CheckResult]


@blueprint.get("/api/info")
@describe("What serves here", tag="health", answers={200: Info})
def info() -> ResponseReturnValue:
    """Name and versions."""
    return {"name": "mjumbe", "version": package_version(), "couchdb": couch_version(context())}


def couch_version(here: Context) -> str | None:
    """CouchDB's version, None when it cannot be reached."""
    try:
        return str(here.quick.welcome().get("version"))
    except (UnavailableError, CouchError):
        return None


@blueprint.get("/healthz")
@describe("Whether this process is alive", tag="health", answers={200: Alive})
def alive() -> ResponseReturnValue:
    """Asks nobody else."""
    return {"ok": True}


@blueprint.get("/readyz")
@describe(
    "Whether all parts are ready",
    "503 with the same body when one is not.",
    tag="health",
    answers={200: Readiness, 503: Readiness},
)
def ready() -> ResponseReturnValue:
    """Each part with a sentence."""
    here = context()
    with here.inspection():
        checks = list(health.inspect((name, partial(check, here)) for name, check in CHECKS.items()))
    good = all(check.ok for check in checks)
    return {"ready": good, "checks": [asdict(check) for check in checks]}, 200 if good else 503


def _shared(check: Callable[[House], Said]) -> Callable[[Context], Said]:
    return lambda here: check(House(here.quick, here.indexes, here.settings, here.vault.get, here.vault.check))


def _views(here: Context) -> Said:
    ok, says = _shared(health.views)(here)
    if ok and not here.preparation.done:
        return False, f"CouchDB is being made ready: {here.preparation.problem or 'not finished yet'}."
    return ok, says


def spool(waiting_room: Spool, databases: Collection[str]) -> Said:
    """Nothing waits on this machine's disk, neither for `databases`, which the API writes, nor for others."""
    try:
        state = waiting_room.state()
    except SpoolError as error:
        return False, health.sentence(str(error))
    strange = {name: count for name, count in state.waiting.items() if name not in databases}
    if strange:
        whose = " and ".join(f"{count} documents wait in the spool for {name}" for name, count in strange.items())
        return False, (
            f"{whose}, which COUCH_URL does not name: start an API with one that does, or see "
            "docs/troubleshooting.md where the database was renamed."
        )
    if state.waiting:
        waiting = sum(state.waiting.values())
        return False, f"{waiting} documents wait in the spool for CouchDB; they go there by themselves."
    if state.set_aside:
        says = (
            f"CouchDB refused {state.set_aside} spooled documents; the log says why, and the spool's file keeps them."
        )
        return False, says
    return True, "Nothing waits in the spool."


CHECKS: Mapping[str, Callable[[Context], Said]] = {
    **{name: _shared(check) for name, check in health.CHECKS.items()},
    "views": _views,
    "spool": lambda here: spool(here.spool, [database.name for database in here.couch.databases]),
}


# ---- Prometheus


class HouseCollector(Collector):
    """CouchDB and the leading sentinel, as they are at this moment."""

    def __init__(self, here: Context) -> None:
        self._here = here

    def collect(self) -> Iterator[Metric]:
        """The gauges; those of the sentinel only when CouchDB can be asked."""
        try:
            status = health.leader(self._here.quick)
        except (UnavailableError, CouchError):
            yield GaugeMetricFamily("mjumbe_couchdb_up", "Whether CouchDB answers.", value=0)
            return
        yield GaugeMetricFamily("mjumbe_couchdb_up", "Whether CouchDB answers.", value=1)
        if status is None:
            return
        age = health.heartbeat_age(status, states.now())
        if age is not None:
            help_text = "Seconds since the leading sentinel's heartbeat."
            yield GaugeMetricFamily("mjumbe_sentinel_heartbeat_age_seconds", help_text, value=age)
        held = GaugeMetricFamily("mjumbe_service_held", "Whether sending by a service is held.", labels=["service"])
        for name, service in status.services.items():
            held.add_metric([name], int(service.held))
        yield held


@blueprint.get("/metrics")
@describe("Figures for Prometheus", tag="health", answers={200: "text/plain"})
def metrics() -> ResponseReturnValue:
    """What this API counted, and how the sentinel is."""
    here = context()
    return Response(here.metrics.exposition(HouseCollector(here)), content_type=EXPOSITION)
