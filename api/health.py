"""How the house is: alive, ready (each part with a sentence), and figures for Prometheus. Open to everybody."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime

from flask import Blueprint, Response
from flask.typing import ResponseReturnValue
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from pydantic import BaseModel, Field

from api.context import Context, context
from api.openapi import describe, package_version
from api.spool import SpoolError
from mjumbe import documents, gateways, setup, states
from mjumbe.couch import CouchError, UnavailableError
from mjumbe.credentials import CredentialError
from mjumbe.settings import Settings
from mjumbe.status import LEADER_ID, SentinelStatus, ServiceStatus, read_status

SILENT_SECONDS = 30.0  # a sentinel that has not been heard of for so long is not taken for running
EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"

blueprint = Blueprint("health", __name__)


@dataclass(frozen=True, slots=True)
class Check:
    """How one part is: `says` is a sentence, with what to do when it is not `ok`."""

    name: str
    ok: bool
    says: str


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
        return str(here.couch.welcome().get("version"))
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
        checks = [_checked(name, check, here) for name, check in CHECKS.items()]
    good = all(check.ok for check in checks)
    return {"ready": good, "checks": [asdict(check) for check in checks]}, 200 if good else 503


def _checked(name: str, check: Callable[[Context], tuple[bool, str]], here: Context) -> Check:
    try:
        return Check(name, *check(here))
    except UnavailableError:
        return Check(name, False, "Not known while CouchDB cannot be reached.")
    except CouchError as error:
        return Check(name, False, f"Not known: {error}.")
    except CredentialError as error:
        return Check(name, False, _sentence(str(error)))


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _couchdb(here: Context) -> tuple[bool, str]:
    try:
        version = here.couch.welcome().get("version")
    except UnavailableError as error:
        return False, f"{error}: start it, or correct COUCH_URL."
    missing = [database.name for database in here.couch.databases if not _exists(here, database.name)]
    if missing:
        return False, f"CouchDB {version} answers; the databases {', '.join(missing)} are not there yet."
    return True, f"CouchDB {version} answers, and all databases are there."


def _exists(here: Context, name: str) -> bool:
    database = next(database for database in here.couch.databases if database.name == name)
    try:
        database.info()
    except CouchError as error:
        if error.status == 404:
            return False
        raise
    return True


def _views(here: Context) -> tuple[bool, str]:
    unbuilt = setup.unbuilt_views(here.couch)
    if unbuilt:
        return False, f"The views of {', '.join(unbuilt)} are being built; this takes a while on a large database."
    if not here.preparation.done:
        return False, f"CouchDB is being made ready: {here.preparation.problem or 'not finished yet'}."
    return True, "All views are built."


def _vault(here: Context) -> tuple[bool, str]:
    problems = here.vault.check()
    if problems:
        return False, " ".join(_sentence(problem) for problem in problems)
    return True, "The vault's key opens every credential."


def _sentinel(here: Context) -> tuple[bool, str]:
    status = leader(here)
    if status is None:
        return False, "No sentinel has run yet; start one with `mjumbe sentinel`."
    age = heartbeat_age(status, states.now())
    if status.released:
        return False, f"The sentinel stopped at {status.heartbeat}; start it with `mjumbe sentinel`."
    if age is None or age > SILENT_SECONDS:
        return False, f"The sentinel's last heartbeat was at {status.heartbeat}; look into its log and start it again."
    return True, f"The sentinel's last heartbeat was {max(age, 0):.0f} s ago."


def leader(here: Context) -> SentinelStatus | None:
    """What the leading sentinel says of itself, None when there never was one. Raises UnavailableError."""
    doc = here.couch.sentinel.get(LEADER_ID)
    return read_status(doc) if doc else None


def heartbeat_age(status: SentinelStatus, now: datetime) -> float | None:
    """Seconds since the heartbeat."""
    at = documents.read_moment(status.heartbeat)
    return None if at is None else (documents.milliseconds(now) - at) / 1000


def _service(here: Context) -> tuple[bool, str]:
    settings = here.settings.refresh()
    status = leader(here)
    reports = status.services if status else {}
    said = [_one_service(here, name, settings, reports) for name in _order(settings)]
    return all(ok for ok, _ in said), " ".join(sentence for _, sentence in said)


def _order(settings: Settings) -> Iterable[str]:
    return dict.fromkeys([settings.sms.outgoing_service, *settings.sms.fallback_services])


def _one_service(
    here: Context, name: str, settings: Settings, reports: Mapping[str, ServiceStatus]
) -> tuple[bool, str]:
    troubles = gateways.missing(name, settings, here.vault.get)
    if troubles:
        return False, _sentence(f"the service {name} cannot be used: {'; '.join(troubles)}")
    report = reports.get(name, ServiceStatus())
    if report.held:
        return False, _sentence(f"the service {name} is held since {report.since}: {report.reason}")
    return True, f"The service {name} is configured."


def _settings(here: Context) -> tuple[bool, str]:
    here.settings.refresh()
    problems = here.settings.problems
    if problems:
        return False, f"Wrong settings, whose values before stay in force: {'; '.join(map(str, problems))}."
    return True, "All settings are in force."


def _spool(here: Context) -> tuple[bool, str]:
    try:
        state = here.spool.state()
    except SpoolError as error:
        return False, _sentence(str(error))
    if state.waiting:
        return False, f"{state.waiting} documents wait in the spool for CouchDB; they go there by themselves."
    if state.set_aside:
        says = (
            f"CouchDB refused {state.set_aside} spooled documents; the log says why, and the spool's file keeps them."
        )
        return False, says
    return True, "Nothing waits in the spool."


CHECKS: Mapping[str, Callable[[Context], tuple[bool, str]]] = {
    "couchdb": _couchdb,
    "spool": _spool,
    "views": _views,
    "vault": _vault,
    "sentinel": _sentinel,
    "service": _service,
    "settings": _settings,
}


# ---- Prometheus


class HouseCollector(Collector):
    """CouchDB and the leading sentinel, as they are at this moment."""

    def __init__(self, here: Context) -> None:
        self._here = here

    def collect(self) -> Iterator[Metric]:
        """The gauges; those of the sentinel only when CouchDB can be asked."""
        try:
            status = leader(self._here)
        except (UnavailableError, CouchError):
            yield GaugeMetricFamily("mjumbe_couchdb_up", "Whether CouchDB answers.", value=0)
            return
        yield GaugeMetricFamily("mjumbe_couchdb_up", "Whether CouchDB answers.", value=1)
        if status is None:
            return
        age = heartbeat_age(status, states.now())
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
