"""A person settles what became of a message in doubt: nobody else can, when no delivery report comes."""

from typing import Any

from flask import Blueprint, request
from flask.typing import ResponseReturnValue
from pydantic import BaseModel, Field

from api.auth import SMS
from api.bodies import demand_json, json_object
from api.context import context
from api.errors import ApiError, BadRequestError
from api.openapi import describe
from api.records import Message, outgoing_record
from mjumbe import states
from mjumbe.couch import Document
from mjumbe.documents import find_task
from mjumbe.gateways import PHONE_GATEWAY
from mjumbe.states import State, Task

BODY_BYTES = 1024

blueprint = Blueprint("settle", __name__)


class Verdict(BaseModel):
    """What the person knows, from the recipient or from the service's own records."""

    sent: bool = Field(description="true: it was sent; false: it was not, and goes again.")


@blueprint.post("/api/v1/messages/<path:message_uuid>/settle")
@describe(
    "Settle a message in doubt",
    "A request broke before its answer came, and `sms.in_doubt` holds its message; or a phone was given it and says "
    "nothing more: it is lost, perhaps. Role `sms`.",
    tag="messages",
    security="user",
    body=Verdict,
    answers={200: Message},
    errors=(400, 404, 409),
)
def settle(message_uuid: str) -> ResponseReturnValue:
    """Store the verdict; the message's record as it is then."""
    here = context()
    user = here.users.require(request, [SMS])
    demand_json(request)
    sent = json_object(request, BODY_BYTES).get("sent")
    if not isinstance(sent, bool):
        raise BadRequestError("sent", "true or false")
    rows = here.couch.main.view("mjumbe", "messages_by_uuid", key=message_uuid)
    if not rows:
        raise ApiError(404, f"There is no message {message_uuid}.")
    settled: list[dict[str, Any]] = []

    def edit(doc: Document) -> bool:
        task = find_task(doc, message_uuid)
        if task is None or not (task.get("in_doubt") or _is_with_phone(task)):
            return False
        if _is_with_phone(task):
            task.pop("claim", None)
        states.settle(task, states.now(), sent=sent, by=user.name)
        settled[:] = [outgoing_record(doc, task)]
        return True

    doc_id = str(rows[0].id)
    if not here.couch.main.update({doc_id: edit})[doc_id].written:
        raise ApiError(409, f"The message {message_uuid} is not in doubt; GET it to see what became of it.")
    return settled[0]


def _is_with_phone(task: Task) -> bool:
    return states.of(task) is State.FORWARDED_TO_GATEWAY and task.get("service") == PHONE_GATEWAY
