"""/api/sms: the poll of CHT's Android app (cht-gateway, formerly medic-gateway).

The phone posts what it received and what became of what it sent, and is answered with what to send next. It sends
each message id once; what it is given again it only reports again (https://github.com/medic/cht-gateway).
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import count, islice
from typing import Any, Literal

import structlog
from flask import Blueprint, request
from flask.typing import ResponseReturnValue
from pydantic import BaseModel, ConfigDict, Field

from api.auth import User
from api.bodies import optional_object
from api.context import Context, context
from api.openapi import describe
from mjumbe import documents, phone_numbers, states, text
from mjumbe.couch import Row
from mjumbe.documents import Document, IncomingMessage, Key
from mjumbe.edits import Update, apply_edits, edits_of
from mjumbe.gateways import PHONE_GATEWAY
from mjumbe.refusals import refuse
from mjumbe.settings import Settings
from mjumbe.states import State, Task
from mjumbe.uuid7 import new_uuid

PERMISSION = "can_access_gateway_api"  # in the settings' `permissions`: who may poll
ROLE = "gateway"  # may always
# How long a message that one user's phone took and never acknowledged is kept from the phones of other users: the phone
# may have sent it and only have no internet, and tries to tell for up to about 12 hours.
HOLDER_SECONDS = 12 * 3600.0
MEANWHILE = timedelta(minutes=2)  # longer than any poll takes
ROWS_AT_ONCE = 100  # read at least: among them are what other phones have and did not acknowledge
Index = Literal["true", "false"]  # CouchDB's `update` of a view query
CURRENT: Index = "true"  # brought up to date first
KNOWN: Index = "false"  # as it is

# https://github.com/medic/cht-gateway#status-values
STATES: Mapping[str, State] = {
    "UNSENT": State.RECEIVED_BY_GATEWAY,
    "PENDING": State.FORWARDED_BY_GATEWAY,
    "SENT": State.SENT,
    "DELIVERED": State.DELIVERED,
    "FAILED": State.FAILED,
}

log = structlog.get_logger()
blueprint = Blueprint("cht_gateway", __name__)


class GatewayGreeting(BaseModel):
    """Tells the app that it found its server."""

    model_config = ConfigDict(populate_by_name=True)
    medic_gateway: bool = Field(default=True, alias="medic-gateway")


class Received(BaseModel):
    """An SMS that the phone received."""

    id: str
    sender: str = Field(alias="from")
    content: str = ""
    sms_sent: int | None = Field(default=None, description="In ms since epoch.")
    sms_received: int | None = Field(default=None, description="In ms since epoch.")


class StatusUpdate(BaseModel):
    """What became of a message that the phone was given."""

    id: str
    status: str = Field(description="UNSENT, PENDING, SENT, DELIVERED or FAILED.")
    reason: str | None = None


class Poll(BaseModel):
    """What the phone has to tell. Entries that cannot be read are passed over."""

    messages: list[Received] = []
    updates: list[StatusUpdate] = []


class ToSend(BaseModel):
    """A message for the phone to send."""

    id: str
    to: str
    content: str


class PollAnswer(BaseModel):
    """What to send; the same again at each poll until the phone acknowledges it."""

    messages: list[ToSend]


@dataclass(frozen=True, slots=True)
class Told:
    """A status update, read."""

    uuid: str
    state: State
    details: str | None


@dataclass(frozen=True, slots=True)
class Asking:
    """One poll: whose it is, when it began by either clock, and the messages, by uuid, that it told something of."""

    user: User
    began: float  # monotonic
    began_at: datetime
    told: frozenset[str]


def _user(here: Context) -> User:
    permitted = here.settings.fresh().permissions.get(PERMISSION, [])
    return here.users.require(request, {ROLE, *permitted})


@blueprint.get("/api/sms")
@describe("Greet the phone gateway", tag="phone gateway", security="user", answers={200: GatewayGreeting})
def greet() -> ResponseReturnValue:
    """The app's settings screen tries this."""
    _user(context())
    return {"medic-gateway": True}


@blueprint.post("/api/sms")
@describe(
    "Poll by the phone gateway",
    "Stores what came in, applies the updates in their order, and answers with what to send. Role `gateway`.",
    tag="phone gateway",
    security="user",
    body=Poll,
    answers={200: PollAnswer},
    errors=(415,),
)
def poll() -> ResponseReturnValue:
    """One poll. What was stored before something failed is stored once all the same: the phone tries again."""
    began, began_at = time.monotonic(), states.now()
    here = context()
    user = _user(here)
    posted = optional_object(request)  # as in CHT, no body is a poll that brings nothing
    settings = here.settings.loaded()
    messages, updates = _listed(posted, "messages"), _listed(posted, "updates")
    _store_messages(here, messages, settings)
    asking = Asking(user, began, began_at, _apply_updates(here, user, updates))
    here.phones.polled(user.name)
    with here.deliveries.lock:
        # What a poll brought has just changed the index. It need not wait for that: with a phone among the services the
        # sentinel asks the index every second, so that what is passed over was assigned in the last one, and goes with
        # the next poll.
        index = KNOWN if messages or updates else CURRENT
        given = _pick(here, asking, settings, index)
        here.deliveries.note([message["id"] for message in given])
    return {"messages": given}


def _listed(posted: Mapping[str, Any], name: str) -> list[Any]:
    value = posted.get(name)
    return value if isinstance(value, list) else []


# ---- what came in


def _store_messages(here: Context, entries: list[Any], settings: Settings) -> None:
    read = [_read_message(entry) for entry in entries]
    messages = [message for message in read if message is not None]
    if len(messages) < len(read):
        log.warning("poll: messages without id or sender passed over", count=len(read) - len(messages))
    received = documents.milliseconds(states.now())
    docs = [
        documents.incoming_document(
            message, phone_numbers.canonical(message.sender, settings.default_country_code), received
        )
        for message in messages
    ]
    if docs:
        here.metrics.stored("incoming", here.intake.store(here.couch.main, docs))


def _read_message(entry: Any) -> IncomingMessage | None:
    if not isinstance(entry, dict):
        return None
    ref, sender, content = _word(entry.get("id")), _word(entry.get("from")), entry.get("content")
    if not ref or not sender:
        return None
    text = content if isinstance(content, str) else _word(content)
    return IncomingMessage(PHONE_GATEWAY, ref, sender, text, sent_timestamp=_word(entry.get("sms_sent")) or None)


def _word(value: Any) -> str:
    """Ids, numbers and statuses come as texts or as numbers."""
    if isinstance(value, str):
        return value.strip()
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""


# ---- what became of what went out


def _apply_updates(here: Context, user: User, entries: list[Any]) -> frozenset[str]:
    """Store what became of messages; those, by uuid, of which the phone told."""
    read = [_read_update(entry) for entry in entries]
    told = [update for update in read if update is not None]
    if len(told) < len(read):
        log.warning("poll: updates without id or status passed over", count=len(read) - len(told))
    if not told:
        return frozenset()
    uuids = list(dict.fromkeys(update.uuid for update in told))
    rows = _by_uuid(here, uuids, KNOWN)
    known = {row.key for row in rows if row.doc}
    rows += _by_uuid(here, [message_uuid for message_uuid in uuids if message_uuid not in known], CURRENT)
    docs = {row.id: row.doc for row in rows if row.doc}
    homes: dict[str, dict[str, Document]] = {}
    for row in rows:
        if row.doc:
            homes.setdefault(row.key, {})[row.id] = row.doc
    if len(homes) < len(uuids):
        log.info("poll: updates of unknown messages passed over", count=len(uuids) - len(homes))
    meant = {message_uuid: _meant(message_uuid, copies) for message_uuid, copies in homes.items()}
    now = states.now()
    edits = edits_of(
        (doc_id, partial(_apply, update, user, now)) for update in told for doc_id in meant.get(update.uuid, ())
    )
    _report_refused(apply_edits(here.couch.main, edits, known=docs))
    return frozenset(homes)


def _meant(message_uuid: str, copies: Mapping[str, Document]) -> list[str]:
    """Whose message a phone tells of, where several documents have one with this uuid, as copies of a document have:
    not those whose message no phone was given."""
    if len(copies) == 1:
        return [*copies]
    tasks = {doc_id: documents.find_task(doc, message_uuid) or {} for doc_id, doc in copies.items()}
    return [
        doc_id
        for doc_id, task in tasks.items()
        if task.get("service") in (PHONE_GATEWAY, None)
        and any(entry.get("state") == State.FORWARDED_TO_GATEWAY for entry in (task, *states.history(task)))
    ]


def _by_uuid(here: Context, uuids: list[str], index: Index) -> list[Row]:
    """The messages with these uuids; those of the last second only when the index is to be CURRENT."""
    if not uuids:
        return []
    return here.couch.main.view_with_docs("mjumbe", "messages_by_uuid", keys=uuids, update=index, stable=True)


def _read_update(entry: Any) -> Told | None:
    if not isinstance(entry, dict):
        return None
    uuid, status, reason = _word(entry.get("id")), _word(entry.get("status")), _word(entry.get("reason"))
    if not uuid or not status:
        return None
    state = STATES.get(status)
    return Told(uuid, state or State.UNRECOGNISED, reason or None if state else status)


def _apply(update: Told, user: User, now: datetime, doc: Document) -> bool:
    """Apply to a document what `user`'s phone told of a message of it; answers whether that was anything new."""
    task = documents.find_task(doc, update.uuid)
    if task is None or _was_told(task, update):
        return False
    if _is_of_an_earlier_attempt(task, update, user):
        states.come_late(task, update.state, now, update.details, service=PHONE_GATEWAY)
        return True
    states.move(task, update.state, now, update.details, service=PHONE_GATEWAY)
    task.pop("claim", None)  # acknowledged: nobody is given it again
    task.pop("in_doubt", None)  # at the service before: what becomes of it is the phone's to tell now
    return True


def _is_of_an_earlier_attempt(task: Task, update: Told, user: User) -> bool:
    """Whether another service was given the message since; or, where this one failed, another phone was, or a person
    gave it back to go again. That it arrived counts in any case."""
    if task.get("service") not in (PHONE_GATEWAY, None):  # None: another server gave it to the phone
        return update.state is not State.DELIVERED
    given_on = states.of(task) is State.PENDING or task.get("claim") not in (user.name, None)
    return update.state is State.FAILED and given_on


def _was_told(task: Task, update: Told) -> bool:
    """Whether the phone told this already, since it was last given the message: it repeats what got no answer."""
    for entry in reversed(states.history(task)):
        if entry.get("state") == State.FORWARDED_TO_GATEWAY:
            return False
        if entry.get("state") == update.state and entry.get("state_details") == update.details:
            return True
    return False


# ---- what goes out


def _pick(here: Context, asking: Asking, settings: Settings, index: Index) -> list[dict[str, str]]:
    """The messages for this phone: what it was given and did not acknowledge, and what is due; answers to
    people before the rest, oldest first."""
    user, limit = asking.user, settings.sms.medic_gateway.poll_limit
    # A phone that was away for weeks must not send what is weeks old, whatever the sentinel had time for.
    oldest = documents.oldest_due(asking.began_at, settings.sms)
    patience = HOLDER_SECONDS if settings.sms.in_doubt == "retry" else math.inf
    free = (
        row
        for row in _assigned(here, oldest, limit, index)
        if _is_free(row, asking, patience) and not here.deliveries.since(row.value["uuid"], asking.began)
    )
    given: list[dict[str, str]] = []
    # Where the index is behind, some of what it shows is somebody's by now.
    while len(given) < limit and (chosen := list(islice(free, limit - len(given)))):
        given += _claim(here, user, settings, chosen)
    return given


def _claim(here: Context, user: User, settings: Settings, chosen: Sequence[Row]) -> list[dict[str, str]]:
    """Take these messages for the phone; those that it has now."""
    docs = here.couch.main.fetch(row.id for row in chosen)
    opted_out = _opted_out(here, docs, chosen, settings)
    is_refused = partial(refuse, settings=settings, has_opted_out=opted_out.__contains__, at=states.now())
    uuids = sorted({row.value["uuid"] for row in chosen})
    known = here.couch.main.view("mjumbe", "messages_by_uuid", keys=uuids, update=KNOWN, stable=True)
    homes = Counter(row.key for row in known)
    taken: dict[Key, Task] = {}

    def take(row: Row, doc: Document) -> bool:
        return _take(row, user, is_refused, homes[row.value["uuid"]] > 1, taken, doc)

    updates = apply_edits(here.couch.main, edits_of((row.id, partial(take, row)) for row in chosen), known=docs)
    _report_refused(updates)
    ours = [taken[_key(row)] for row in chosen if _key(row) in taken and not updates[row.id].error]
    return [message for task in ours if (message := _message(task, settings))]


def _key(row: Row) -> Key:
    return (row.id, row.value["uuid"])


def _opted_out(here: Context, docs: Mapping[str, Document], chosen: Sequence[Row], settings: Settings) -> set[str]:
    """Of the numbers that these messages go to, whose people have opted out, since they were assigned perhaps."""
    registered: dict[str, str] = {}
    for row in chosen:
        task = documents.find_task(docs.get(row.id, {}), row.value["uuid"]) or {}
        number = phone_numbers.number_to_send_to(str(documents.message_of(task).get("to")), settings)
        registered[number] = f"{documents.OPT_OUT}:{number}"
    known = here.couch.main.fetch(registered.values())
    return {number for number, doc_id in registered.items() if known.get(doc_id, {}).get("value")}


def _assigned(here: Context, oldest: int, limit: int, index: Index) -> Iterator[Row]:
    """What waits for phones or was given to one, answers first, then oldest first; read as far as somebody wants it."""
    size = max(limit, ROWS_AT_ONCE)
    for skip in count(0, size):
        rows = here.couch.main.view(
            "mjumbe",
            "assigned",
            start_key=[PHONE_GATEWAY, 0, oldest],
            end_key=[PHONE_GATEWAY, 1, {}],
            limit=size,
            skip=skip,
            update=index,
            stable=True,
        )
        # Others write anything for a uuid.
        yield from (row for row in rows if row.key[2] >= oldest and isinstance(row.value["uuid"], str))
        if len(rows) < size:
            return


def _is_free(row: Row, asking: Asking, patience: float) -> bool:
    """Whether this phone may be given the message: it is due, or was given to it before and not acknowledged; another
    phone's, after `patience` seconds."""
    if row.value["state"] == State.PENDING:
        return True
    if row.value["uuid"] in asking.told:
        return False  # acknowledged by this very poll, which the index may not show yet
    given = documents.datetime_of(documents.read_moment(row.value["since"]) or 0)
    if row.value["claim"] in (None, asking.user.name):
        # What lies further ahead was given before the clock was set back, not while this poll is under way.
        return not timedelta(0) <= given - asking.began_at < MEANWHILE
    return (asking.began_at - given).total_seconds() > patience


def _take(
    row: Row, user: User, is_refused: Callable[[Task], bool], shared: bool, taken: dict[Key, Task], doc: Document
) -> bool:
    """Claim the message that `row` showed, unless something happened to it since; what is ours goes into `taken`.

    One that no phone has yet is denied when it must not go out by now, and gets a uuid of its own where it shares it
    with another document's: a phone sends only the first that it is given under a uuid.
    """
    seen = row.value
    taken.pop(_key(row), None)
    task = documents.find_task(doc, seen["uuid"])
    if task is None or (task.get("service"), task.get("state")) != (PHONE_GATEWAY, seen["state"]):
        return False
    if task.get("claim") != seen["claim"]:
        return False
    if seen["state"] == State.PENDING:
        if is_refused(task):
            return True
        if documents.outgoing_message(doc, task) is None:
            return False  # somebody changed it meanwhile, and it must be looked at again before it goes
        if shared:
            documents.message_of(task)["uuid"] = new_uuid()
    taken[_key(row)] = task
    if seen["state"] != State.PENDING and seen["claim"] == user.name:
        return False  # ours since an earlier poll
    states.claim(task, states.now(), PHONE_GATEWAY, user.name)
    return True


def _report_refused(updates: Mapping[str, Update]) -> None:
    """Say which changes CouchDB did not take. The phone is answered: else it would come with the same for ever."""
    for doc_id, update in updates.items():
        if update.error:
            log.error("poll: a document did not take a change", document=doc_id, reason=update.error)


def _message(task: Task, settings: Settings) -> dict[str, str] | None:
    message = documents.message_of(task)
    to, content = message.get("to"), message.get("message")
    if not to or not isinstance(content, str) or not content:
        return None
    content = text.limit_parts(content, settings.multipart_sms_limit)
    return {"id": str(message["uuid"]), "to": phone_numbers.number_to_send_to(str(to), settings), "content": content}
