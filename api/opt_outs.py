"""Who wants no messages: the list, and a person's word for somebody who asked for it otherwise than by SMS.

What is known of a number is one document `opt-out:<number>`, which the sentinel keeps; what is told here goes to it the
way of a service's own notice.
"""

import uuid
from typing import Any

from flask import Blueprint, request
from flask.typing import ResponseReturnValue
from pydantic import BaseModel, ConfigDict, Field

from api.auth import SMS
from api.bodies import checked, object_or_query, posted_object
from api.callbacks import store
from api.context import PHONE_NUMBER, admit, context
from api.errors import BadRequestError
from api.openapi import describe
from mjumbe.documents import OPT_OUT, Document, Notice, last_entry

PREFIX = f"{OPT_OUT}:"
MOST = 1_000

blueprint = Blueprint("opt_outs", __name__)


class OptOutQuery(BaseModel):
    """What to list."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    after: str = Field(default="", description="The last number of the page before.")


class OptOut(BaseModel):
    """Somebody who wants no messages."""

    phone: str
    since: str | None = Field(description="ISO 8601, UTC.")
    source: str | None = Field(description="Where it is known from, in words.")


class OptOuts(BaseModel):
    """By number."""

    opt_outs: list[OptOut]
    after: str | None = Field(description="Give it for the next page; null at the end.")


class Person(BaseModel):
    """Whose word it is."""

    phone: str = Field(description="The person's number, in any usual spelling.")


class Noted(BaseModel):
    """It holds as soon as the sentinel has read it."""

    phone: str = Field(description="The number as it is understood.")


@blueprint.get("/api/v1/opt-outs")
@describe(
    "Who opted out",
    f"Up to {MOST} numbers a page, some fewer. Role `sms`.",
    tag="opt-outs",
    security="user",
    query=OptOutQuery,
    answers={200: OptOuts},
    errors=(400,),
)
def opted_out() -> ResponseReturnValue:
    """A page of them."""
    here, _ = admit(SMS)
    query = checked(OptOutQuery, request.args.to_dict(), lambda field: "only after")
    docs = here.couch.main.beginning_with(PREFIX, PREFIX + query.after if query.after else "", MOST)
    last = str(docs[-1]["_id"]).removeprefix(PREFIX) if len(docs) == MOST else None
    return {"opt_outs": [_shown(doc) for doc in docs if doc.get("value")], "after": last}


@blueprint.post("/api/v1/opt-outs")
@describe(
    "Send somebody no more messages",
    "As if they had written STOP. Role `sms`.",
    tag="opt-outs",
    security="user",
    body=Person,
    answers={202: Noted},
    errors=(415,),
)
def opt_out() -> ResponseReturnValue:
    """202 once it is on disk."""
    _, user = admit(SMS)
    return _told("opt-out", posted_object(request), user.name)


@blueprint.delete("/api/v1/opt-outs")
@describe(
    "Send somebody messages again",
    "As if they had written START. The field may be in the query or in a JSON body. Role `sms`.",
    tag="opt-outs",
    security="user",
    query=Person,
    answers={202: Noted},
    errors=(400,),
)
def opt_in() -> ResponseReturnValue:
    """202 once it is on disk."""
    _, user = admit(SMS)
    return _told("opt-in", object_or_query(request), user.name)


def _told(update: str, given: dict[str, Any], by: str) -> ResponseReturnValue:
    here = context()
    if given.keys() != {"phone"}:
        raise BadRequestError("phone", f"{PHONE_NUMBER}, and nothing else")
    number = here.number("phone", given["phone"])
    facts = {"update": update, "by": by}
    store(here, Notice("api", OPT_OUT, number, key=uuid.uuid4().hex, facts=facts))
    return {"phone": number}, 202


def _shown(doc: Document) -> dict[str, Any]:
    number, last = str(doc["_id"]).removeprefix(PREFIX), last_entry(doc)
    return {"phone": number, "since": last.get("timestamp"), "source": last.get("source")}
