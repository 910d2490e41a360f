"""The small HTTP service for scripts, `/sms/…`: send one message and see what came of it; callbacks as plain text.

What it stores are the same documents that `/api/v1/messages` and `/api/v1/sms/africastalking/…` make.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from urllib.parse import unquote_to_bytes

from flask import Blueprint, request
from flask.typing import ResponseReturnValue
from pydantic import BaseModel, ConfigDict, Field

from api.auth import SMS, demand_own_will
from api.bodies import callback_request
from api.callbacks import CallbackFields, receive
from api.context import Context, admit
from api.errors import ApiError, BadRequestError
from api.messages import LONGEST_TEXT
from api.openapi import describe
from mjumbe import documents, phone_numbers, states
from mjumbe.couch import CouchError, UnavailableError
from mjumbe.documents import Document
from mjumbe.follow import versions
from mjumbe.gateways import africas_talking
from mjumbe.gateways.base import CallbackRecord, CallbackRequest
from mjumbe.states import NOT_SENT, State, Task

DEFAULT_TEXT = "Hello from Africa's Talking!"
MISSING_PHONE = "Missing 'phone' query parameter"
NO_CHARACTER = "\N{REPLACEMENT CHARACTER}"  # in a form, in place of bytes that are none
ANSWERED_SECONDS = 8.0  # how long the service's answer is waited for
NOT_ANSWERED = frozenset({State.SCHEDULED, State.PENDING, State.FORWARDED_TO_GATEWAY})
TWO_WAY_FIELDS = ("linkId", "text", "to", "id", "date", "from")

blueprint = Blueprint("sms_service", __name__)


class Ready(BaseModel):
    """The service answers."""

    service: str = "sms"
    status: str = "ready"


class Invocation(BaseModel):
    """What to send, in the query, a form or a JSON object."""

    phone: str = Field(description="The recipient's number, with its country code; the plus may be left out.")
    message: str = Field(default=DEFAULT_TEXT, description="The text.")


class ServiceAnswer(BaseModel):
    """What the SMS service said of the message, as it is stored."""

    uuid: str = Field(description="The message's, for /api/v1/messages.")
    ref: str | None = Field(description="The service's own id of it.")
    state: str
    details: str | None
    cost: str | None


class Invoked(BaseModel):
    """A message that was handed over."""

    message: str = Field(examples=["SMS sent to +254711000111"])
    response: ServiceAnswer


class Failure(BaseModel):
    """A message that was not sent."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"error": MISSING_PHONE}]})
    error: str
    response: ServiceAnswer | None = None


@blueprint.get("/sms/")
@describe("Whether the small service answers", tag="small service", answers={200: Ready})
def ready() -> ResponseReturnValue:
    """Asks nobody else."""
    return {"service": "sms", "status": "ready"}


@blueprint.route("/sms/invoke-bulk-sms", endpoint="invoke-bulk-sms", methods=["GET", "POST"])
@blueprint.route("/sms/invoke-twoway-sms", endpoint="invoke-twoway-sms", methods=["GET", "POST"])
@describe(
    "Send one message through Africa's Talking",
    f"Follows it until the service has answered, for up to {ANSWERED_SECONDS:.0f} seconds; 202 when it has not by "
    "then, 422 when the message will not be sent. Both paths send from `sms.reply_to`. Role `sms`.",
    tag="small service",
    security="user",
    query=Invocation,
    answers={200: Invoked, 202: Invoked, 400: Failure, 422: Failure},
    errors=(405,),
)
def invoke() -> ResponseReturnValue:
    """The message's document, then the service's answer."""
    here, user = admit(SMS)
    _demand_own_will()
    posted = callback_request(request)
    given = {**posted.query, **posted.form}
    written, text = given.get("phone", "").strip(), given.get("message") or DEFAULT_TEXT
    if not written:
        return {"error": MISSING_PHONE}, 400
    number = phone_numbers.normalise(written, here.settings.fresh().default_country_code)
    if number is None:
        return {"error": f"'phone' is {written!r}; expected a number with its country code, as 254711000111"}, 400
    if _is_garbled(text):
        return {"error": "'message' has what is no character in UTF-8; send it in UTF-8"}, 400
    if len(text) > LONGEST_TEXT:
        return {"error": f"'message' has {len(text)} characters; expected at most {LONGEST_TEXT}"}, 400
    task = _answered(here, _document(number, text, user.name))
    return _shown(number, task)


def _is_garbled(text: str) -> bool:
    """Whether there is what is no character in UTF-8: in a query it would stay as it is written, `caf%E9`."""
    try:
        unquote_to_bytes(request.query_string).decode()
    except UnicodeDecodeError:
        return True
    return NO_CHARACTER in text


def _demand_own_will() -> None:
    """A browser sends its user's login along whatever page asks, and a GET here costs money."""
    if request.method == "HEAD":
        raise ApiError(405, "HEAD sends nothing; use GET or POST.", {"Allow": "GET, POST"})
    demand_own_will(request)


def _document(number: str, text: str, author: str) -> Document:
    now = states.now()
    task = documents.new_task(number, text, now, via=africas_talking.NAME)
    doc = documents.outgoing_document(task, now, author)
    return {**doc, "receipt": documents.new_receipt()}


def _answered(here: Context, doc: Document) -> Task:
    """Store the document, and wait for its task to have an answer; the task as it is then."""
    database = here.quick.main
    here.metrics.stored("outgoing", here.intake.store(database, [doc]))
    task: Task = doc["tasks"][0]
    # Once it is stored, no trouble may look as if it were not: whoever is told so sends it again.
    with suppress(UnavailableError, CouchError):
        for stored in versions(database, doc["_id"], ANSWERED_SECONDS):
            task = next(documents.tasks_of(stored), task)
            if states.of(task) not in NOT_ANSWERED:
                break
    return task


def _shown(number: str, task: Task) -> ResponseReturnValue:
    state = states.of(task)
    response = {
        "uuid": documents.message_of(task)["uuid"],
        "ref": task.get("gateway_ref"),
        "state": task["state"],
        "details": task.get("state_details"),
        "cost": task.get("cost"),
    }
    if state in NOT_SENT:
        return {"error": f"SMS to {number} is {state}: {task.get('state_details')}", "response": response}, 422
    if state in NOT_ANSWERED:
        return {"message": f"SMS to {number} waits to be sent", "response": response}, 202
    return {"message": f"SMS sent to {number}", "response": response}


# ---- callbacks


def parse_two_way(posted: CallbackRequest) -> list[CallbackRecord]:
    """An incoming message, which here must have every field of a two-way message."""
    for name in TWO_WAY_FIELDS:
        if name not in posted.form:
            raise BadRequestError(name, "a value; it is missing")
    return africas_talking.parse_incoming(posted)


CALLBACKS = replace(
    africas_talking.CALLBACKS,
    parsers={
        "twoway": parse_two_way,
        "delivery-reports": africas_talking.parse_report,
        "opt-out": africas_talking.parse_opt_out,
        "subscription": africas_talking.parse_subscription,
    },
)
TEXT = {"Content-Type": "text/plain; charset=utf-8"}


@blueprint.post("/sms/twoway")
@describe(
    "An incoming message",
    f"`GOOD`, or `BAD` when one of {', '.join(TWO_WAY_FIELDS)} is missing.",
    tag="small service",
    security="callback_key",
    form=CallbackFields,
    answers={200: "text/plain", 400: "text/plain"},
)
def two_way() -> ResponseReturnValue:
    """Answered by keyword as the settings say, like any other message."""
    try:
        receive(CALLBACKS, "twoway")
    except BadRequestError:
        return "BAD", 400, TEXT
    return "GOOD", TEXT


def _view(route: str) -> Callable[[], ResponseReturnValue]:
    def view() -> ResponseReturnValue:
        receive(CALLBACKS, route)
        return "OK", TEXT

    return describe(
        f"Africa's Talking: {route}",
        "As `/api/v1/sms/africastalking`, answered with `OK`.",
        tag="small service",
        security="callback_key",
        form=CallbackFields,
        answers={200: "text/plain"},
    )(view)


for _route in ("delivery-reports", "opt-out", "subscription"):
    blueprint.add_url_rule(f"/sms/{_route}", endpoint=_route, view_func=_view(_route), methods=["POST"])
