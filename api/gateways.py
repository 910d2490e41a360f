"""How the SMS services stand, and trying one out. For admins."""

from contextlib import suppress
from dataclasses import asdict

from flask import Blueprint, request
from flask.typing import ResponseReturnValue
from pydantic import BaseModel, Field

from api.bodies import optional_object
from api.context import Context, admit
from api.errors import ApiError, BadRequestError
from api.openapi import describe
from mjumbe import overview, states
from mjumbe.couch import CouchError, UnavailableError
from mjumbe.documents import find_task, message_of
from mjumbe.follow import follow, hand_over
from mjumbe.gateways import NAMES, viber
from mjumbe.gateways.base import Check, Wiring
from mjumbe.states import NOT_SENT, State
from mjumbe.status import LEADER_ID, read_status

FOLLOWED_SECONDS = 20.0

blueprint = Blueprint("gateways", __name__)


class Held(BaseModel):
    """Why a service takes no messages for now, and since when (ISO 8601, UTC)."""

    reason: str | None
    since: str | None


class GatewayState(BaseModel):
    """One service."""

    name: str
    place: int | None = Field(description="1 is tried first; null when the settings do not use it.")
    enabled: bool
    configured: bool
    missing: list[str] = Field(description="What is missing, in sentences that say what to do.")
    held: Held | None
    last_success: str | None
    last_failure: str | None
    balance: str | None = Field(description="As the service writes it.")
    today: dict[str, int] = Field(description="Messages whose state last changed today (UTC), by state.")
    callback_urls: dict[str, str] = Field(description="To paste into the service's dashboard.")


class Gateways(BaseModel):
    """All services, those in use first."""

    gateways: list[GatewayState]


class TestRequest(BaseModel):
    """What to try."""

    to: str | None = Field(
        default=None, description="A number to send a test message to (or `number`); it costs what an SMS costs."
    )


class TestResult(BaseModel):
    """What the service said."""

    ok: bool
    says: str
    balance: str | None = None
    uuid: str | None = Field(default=None, description="The test message's.")
    history: list[dict[str, object]] | None = Field(default=None, description="What became of it so far.")


class ServiceSaid(BaseModel):
    """What the service said."""

    ok: bool
    says: str


@blueprint.get("/api/v1/gateways")
@describe("How the services stand", tag="gateways", security="user", answers={200: Gateways})
def all_gateways() -> ResponseReturnValue:
    """Every service with what an operator asks first."""
    here, _ = admit()
    return {
        "gateways": [
            _shown(gateway) for gateway in overview.overview(here.couch, here.settings.refresh(), here.vault.get)
        ]
    }


def _shown(gateway: overview.GatewayOverview) -> dict[str, object]:
    status = gateway.status
    shown = asdict(gateway)
    del shown["status"]
    return {
        **shown,
        "held": {"reason": status.reason, "since": status.since} if gateway.held else None,
        "last_success": status.last_success,
        "last_failure": status.last_failure,
        "balance": status.balance,
    }


@blueprint.post("/api/v1/gateways/<name>/test")
@describe(
    "Try a service",
    "Asks the service whether it takes our credentials, by its cheapest call. With `to`, also sends one message by it "
    f"and follows that for up to {FOLLOWED_SECONDS:.0f} seconds.",
    tag="gateways",
    security="user",
    body=TestRequest,
    answers={200: TestResult},
    errors=(404, 415),
)
def test(name: str) -> ResponseReturnValue:
    """The check, then perhaps a message."""
    here, _ = admit()
    if name not in NAMES:
        raise ApiError(404, f"There is no service {name}; there are {', '.join(NAMES)}.")
    settings = here.settings.refresh()
    number = _number(here)
    check = overview.check(name, here.phones, settings, here.vault.get)
    result: dict[str, object] = asdict(check)
    if check.ok and number is not None:
        result |= _send(here, name, number)
    return result


@blueprint.post("/api/v1/gateways/viber/webhook")
@describe(
    "Tell Viber where to post",
    "Sets the bot's webhook to this server's callback path, by `public_url`. Viber asks that address before it "
    "answers. 502 when it refuses, with its reason in `says`.",
    tag="gateways",
    security="user",
    answers={200: ServiceSaid, 502: ServiceSaid},
)
def set_viber_webhook() -> ResponseReturnValue:
    """A bot has one webhook: whatever had it before has it no more."""
    here, _ = admit()
    return said(viber.set_webhook(Wiring(here.settings.refresh(), here.vault.get)))


def said(check: Check) -> ResponseReturnValue:
    """A ServiceSaid as a view answers it: 502 when the service refused."""
    return {"ok": check.ok, "says": check.says}, 200 if check.ok else 502


def _number(here: Context) -> str | None:
    posted = optional_object(request)
    if unknown := posted.keys() - {"to", "number"}:
        raise BadRequestError(min(unknown), "only `to`, a phone number")
    to = posted.get("to") or posted.get("number")
    return None if to in (None, "") else here.number("to", to)


def _send(here: Context, name: str, number: str) -> dict[str, object]:
    doc = hand_over(here.couch.main, number, overview.TEST_TEXT, via=name)
    [task] = doc["tasks"]
    uuid, delivered, found = str(message_of(task)["uuid"]), False, task
    # Once it is stored, no trouble may look as if it were not: whoever is told so sends it again.
    with suppress(UnavailableError, CouchError):
        delivered = follow(here.couch.main, doc["_id"], FOLLOWED_SECONDS, lambda entry: None)
        found = find_task(here.couch.main.get(doc["_id"]) or {}, uuid) or task
    details = found.get("state_details")
    if not details and states.of(found) is State.PENDING:
        details = _why_held(here, name)
    return {
        "ok": found["state"] not in NOT_SENT,
        "says": "The test message was delivered."
        if delivered
        else f"The test message is {found['state']} so far{f': {details}' if details else ''}.",
        "uuid": uuid,
        "history": states.history(found),
    }


def _why_held(here: Context, name: str) -> str | None:
    """Why a service takes one message at a time, if it does and that can be told."""
    with suppress(UnavailableError, CouchError):
        service = read_status(here.couch.sentinel.get(LEADER_ID) or {}).services.get(name)
        if service is not None and service.held:
            return f"{name} is held ({service.reason}), and tried by one message at a time"
    return None
