"""What services post to us: `POST /api/v1/sms/<service>/<route>`, one route family driven by the gateways' modules."""

from collections.abc import Callable
from dataclasses import replace

import structlog
from flask import Blueprint, request
from flask.globals import request_ctx
from flask.typing import ResponseReturnValue
from pydantic import BaseModel, ConfigDict, Field

from api.bodies import callback_request
from api.context import Context, context
from api.errors import ApiError, BadRequestError
from api.limiter import network
from api.openapi import describe
from mjumbe import documents, phone_numbers, states
from mjumbe.couch import Database
from mjumbe.documents import DeliveryReport, Document, IncomingMessage
from mjumbe.gateways import CALLBACKS
from mjumbe.gateways.base import KEY_IN_QUERY, BadCallbackError, CallbackRecord, Callbacks

log = structlog.get_logger()
blueprint = Blueprint("callbacks", __name__)


class CallbackFields(BaseModel):
    """The service's own fields, as it documents them."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [
                {
                    "id": "ATXid_1",
                    "from": "+254711000111",
                    "to": "22333",
                    "text": "HELP",
                    "date": "2026-01-31T08:30:00Z",
                }
            ]
        },
    )


class Saved(BaseModel):
    """What was posted is on disk."""

    saved: int = Field(description="How much of it was new; 0 when all of it was there already.", examples=[1])


def receive(callbacks: Callbacks, route: str) -> ResponseReturnValue:
    """Store what the service posted: `{"saved": n}`, n of it new."""
    here = context()
    posted = callback_request(request_ctx.request)  # the proxy would look for it at each use
    if not callbacks.authenticate(posted, here.vault.matches):
        raise _refused(here, callbacks, route)
    try:
        records = callbacks.parsers[route](replace(posted, settings=here.settings.loaded()))
    except BadCallbackError as error:
        log.warning("callback cannot be stored", service=callbacks.slug, route=route, reason=str(error))
        raise BadRequestError(error.field, error.expected) from None
    here.settings.refresh_soon()
    return {"saved": sum(store(here, record) for record in records)}


def store(here: Context, record: CallbackRecord) -> int:
    """Store one record in its database; 1 when it is new. Raises UnavailableError."""
    database, doc = _document(here, record)
    stored = here.intake.store(database, [doc])
    here.metrics.stored("incoming" if isinstance(record, IncomingMessage) else doc["type"], stored)
    return sum(stored)


def _document(here: Context, record: CallbackRecord) -> tuple[Database, Document]:
    received = documents.milliseconds(states.now())
    if isinstance(record, IncomingMessage):
        sender = phone_numbers.canonical(record.sender, here.settings.loaded().default_country_code)
        return here.couch.main, documents.incoming_document(record, sender, received)
    if isinstance(record, DeliveryReport):
        return here.couch.callbacks, documents.report_document(record, received)
    return here.couch.callbacks, documents.notice_document(record, received)


def _refused(here: Context, callbacks: Callbacks, route: str) -> ApiError:
    here.metrics.wrong_key(callbacks.slug)
    log.warning("callback refused: wrong proof", service=callbacks.slug, route=route, address=request.remote_addr)
    here.wrong_keys.failed(network(request.remote_addr))
    proof = callbacks.proof[0].upper() + callbacks.proof[1:]
    reason = f"{proof} is missing, or is not right by what is stored as the credential {callbacks.credential}."
    return ApiError(callbacks.refusal, reason)


def _view(callbacks: Callbacks, route: str) -> Callable[[], ResponseReturnValue]:
    def view() -> ResponseReturnValue:
        return receive(callbacks, route)

    return describe(
        f"{callbacks.slug}: {route}",
        f"What the service posts to us; {callbacks.proof} proves it, by the credential `{callbacks.credential}`.",
        tag="callbacks",
        security="callback_key" if callbacks.proof == KEY_IN_QUERY else None,
        form=CallbackFields,
        answers={200: Saved},
        errors=(callbacks.refusal, 429, 503),
    )(view)


for _callbacks in CALLBACKS.values():
    for _path, _route in _callbacks.paths().items():
        _endpoint = _path.strip("/").replace("/", "-")
        blueprint.add_url_rule(_path, endpoint=_endpoint, view_func=_view(_callbacks, _route), methods=["POST"])
