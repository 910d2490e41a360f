"""What a person decides of a message: what became of one in doubt, which nobody else can say when no delivery report
comes, and that one which has not gone yet is not to go."""

from collections.abc import Callable
from typing import Any

import structlog
from flask import Blueprint, request
from flask.typing import ResponseReturnValue
from pydantic import BaseModel, Field

from api.auth import SMS
from api.bodies import posted_object, raw_body
from api.context import admit, context
from api.errors import ApiError, BadRequestError, BusyError
from api.openapi import describe
from api.records import Message, outgoing_record
from mjumbe import states
from mjumbe.documents import Document, find_task
from mjumbe.edits import apply_edits
from mjumbe.gateways import PHONE_GATEWAY
from mjumbe.states import DUE, State, Task

BODY_BYTES = 1024

log = structlog.get_logger()
blueprint = Blueprint("decisions", __name__)


class Verdict(BaseModel):
    """What the person knows, from the recipient or from the service's own records."""

    sent: bool = Field(description="true: it was sent; false: it was not, and goes again.")


@blueprint.post("/api/v1/messages/<id:message_uuid>/settle")
@describe(
    "Settle a message in doubt",
    "A request broke before its answer came, and `sms.in_doubt` holds its message; or a phone was given it and says "
    "nothing more: it is lost, perhaps. Role `sms`.",
    tag="messages",
    security="user",
    body=Verdict,
    answers={200: Message},
    errors=(400, 404, 409, 415),
)
def settle(message_uuid: str) -> ResponseReturnValue:
    """Store the verdict; the message's record as it is then."""
    _, user = admit(SMS)
    sent = posted_object(request, BODY_BYTES).get("sent")
    if not isinstance(sent, bool):
        raise BadRequestError("sent", "true or false")

    def edit(task: Task) -> bool:
        if not (task.get("in_doubt") or _is_with_phone(task)):
            return False
        if _is_with_phone(task):
            task.pop("claim", None)
        states.settle(task, states.now(), sent=sent, by=user.name)
        return True

    return _decided(message_uuid, edit, "not in doubt")


@blueprint.post("/api/v1/messages/<id:message_uuid>/cancel")
@describe(
    "Cancel a message",
    "One that is `scheduled` or `pending` becomes `cleared`, as CHT has it, and is never sent. Role `sms`.",
    tag="messages",
    security="user",
    answers={200: Message},
    errors=(404, 409),
)
def cancel(message_uuid: str) -> ResponseReturnValue:
    """Store that it is not to go; the message's record as it is then."""
    _, user = admit(SMS)
    raw_body(request, BODY_BYTES)  # nothing is expected in it

    def edit(task: Task) -> bool:
        # What may have been sent is no longer for anybody to cancel.
        if states.of(task) not in DUE or task.get("in_doubt"):
            return False
        return states.move(task, State.CLEARED, states.now(), f"cancelled by {user.name}")

    return _decided(message_uuid, edit, "not waiting any more")


def _decided(message_uuid: str, edit: Callable[[Task], bool], otherwise: str) -> dict[str, Any]:
    """The message's record after `edit`. Raises ApiError 404, 409 with `otherwise` when `edit` changes nothing, and 503
    when CouchDB does not take it."""
    here = context()
    rows = here.couch.main.view("mjumbe", "messages_by_uuid", key=message_uuid)
    if not rows:
        raise here.no_message(message_uuid)
    decided: list[dict[str, Any]] = []

    def edit_document(doc: Document) -> bool:
        decided.clear()
        task = find_task(doc, message_uuid)
        if task is None or not edit(task):
            return False
        decided[:] = [outgoing_record(doc, task)]
        return True

    doc_id = rows[0].id
    # In a cluster that is cut in two, the sentinel may be on the other side.
    update = apply_edits(here.couch.main, {doc_id: edit_document}, surely=True)[doc_id]
    if update.error:
        log.error("a decision is not stored", document=doc_id, reason=update.error)
        raise BusyError(f"CouchDB did not take what was decided of the message {message_uuid}; try again.")
    if not decided:
        raise ApiError(409, f"The message {message_uuid} is {otherwise}; GET it to see what became of it.")
    return decided[0]


def _is_with_phone(task: Task) -> bool:
    return states.of(task) is State.FORWARDED_TO_GATEWAY and task.get("service") == PHONE_GATEWAY
