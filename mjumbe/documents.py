"""The documents as types: what is built, read and checked in one place.

Shapes are the Community Health Toolkit's (CHT); a field of ours has its own name and never changes the meaning of
theirs: on a task `service`, `via`, `premium`, `claim`, `attempts`, `retry_at`, `in_doubt`, `cost`, `parts`; in
`sms_message` `gateway`, `to`, `link_id`, `network_code`, `sent_timestamp`, `cost`; on a document `receipt` and
`settled_conflicts`. Which transitions have seen a document is in `transitions`, as in CHT.
"""

import copy
import hashlib
import math
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from mjumbe import states
from mjumbe.settings import Sms
from mjumbe.states import State, Task
from mjumbe.text import shortened
from mjumbe.uuid7 import new_uuid

Document = dict[str, Any]
Key = tuple[str, str]  # of an outgoing message: its document's id and its uuid

TASK_LISTS = ("tasks", "scheduled_tasks")
INCOMING = "incoming:"  # what the ids of incoming messages begin with
OPT_OUT = "opt-out"  # the register of who opted out: documents `opt-out:<number>`
SUBSCRIBED = "active"  # the `value` in a product's register while somebody has the product
# A service's message id longer than this is hashed: CouchDB keeps ids in every index.
_LONGEST_ID = 200
MOST_WORDS = 200  # characters that are kept of what a service says: a document that is too large takes no outcome
# What a datetime can hold, in ms since epoch: documents that others write hold anything.
FIRST_MOMENT, LAST_MOMENT = -62_135_596_800_000, 253_402_300_799_999


@dataclass(frozen=True, slots=True)
class IncomingMessage:
    """An SMS that a person sent to us, as a service handed it over."""

    gateway: str  # as `sms.outgoing_service` names it
    ref: str  # the service's id of the message: the same id is the same message
    sender: str = field(repr=False)  # number, short code or alphanumeric name
    text: str = field(repr=False)  # may be empty
    to: str | None = None  # our number or short code
    sent_timestamp: str | None = None  # when the service says it was sent, in its own words
    link_id: str | None = None  # a premium message's: the reply must carry it
    network_code: str | None = None
    cost: str | None = None


@dataclass(frozen=True, slots=True)
class DeliveryReport:
    """What a service says became of a message that it took."""

    gateway: str
    ref: str  # the service's id of the message: the task's `gateway_ref`
    status: str  # in the service's own words, of which MOST_WORDS characters are kept, as of the reason
    state: State | None  # what that means, None for a status that nobody knows
    phone: str | None = field(default=None, repr=False)
    reason: str | None = None
    network_code: str | None = None
    failure: str | None = None  # a `gateways.base.Failure`: what may be done about a message that failed

    def __post_init__(self) -> None:
        object.__setattr__(self, "status", shortened(self.status, MOST_WORDS))
        if self.reason:
            object.__setattr__(self, "reason", shortened(self.reason, MOST_WORDS))

    @property
    def summary(self) -> str:
        """The status, with its reason in brackets."""
        return f"{self.status} ({self.reason})" if self.reason else self.status


@dataclass(frozen=True, slots=True)
class Notice:
    """Something else a service tells us of a person: that they opted out, changed a subscription, or can be reached.

    A `viber-user` notice has the facts `user` (Viber's id of the person), `name`, and `update`: `registered`,
    `subscribed` or `unsubscribed`. A registration has either the phone that the person shared, or in `customer` what
    they wrote behind the register word: a number, or the id of a contact.
    """

    gateway: str
    kind: str  # `opt-out`, `subscription` or `viber-user`
    phone: str = field(repr=False)  # empty when the service does not know it
    key: str | None = field(repr=False)  # what makes it the same notice when it is told again; None: it happened again
    facts: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Route:
    """Which services a message may go by: only `via` when its author chose one, and none of those in `without`."""

    via: str | None = None
    without: frozenset[str] = frozenset()  # those that cannot reach the recipient
    last: frozenset[str] = frozenset()  # those that have just failed with it: tried when no other takes it

    def never_by(self, service: str) -> "Route":
        """This route for a recipient whom `service` cannot reach."""
        return replace(self, without=self.without | {service})

    def last_by(self, service: str) -> "Route":
        """This route after `service` failed."""
        return replace(self, last=self.last | {service})


ANY_ROUTE = Route()


@dataclass(frozen=True, slots=True)
class Premium:
    """How a message is charged to its recipient, where its service knows such a thing. None is as the settings say."""

    wanted: bool | None = None
    keyword: str | None = None  # of the product
    link_id: str | None = None  # of the message that this one answers
    retry_duration_hours: int | None = None


AS_SET = Premium()


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """A due message: a snapshot of a task in `pending`, as the outbox needs it."""

    doc_id: str
    uuid: str
    to: str = field(repr=False)
    text: str = field(repr=False)
    due: int  # ms since epoch
    reply: bool  # answers somebody, so it overtakes bulk
    premium: Premium = AS_SET
    route: Route = ANY_ROUTE
    doc: Document | None = field(default=None, repr=False, compare=False)  # if at hand, with no other message in it

    @property
    def key(self) -> Key:
        return (self.doc_id, self.uuid)

    @property
    def wanted(self) -> tuple[object, ...]:
        """What its author says is to be sent, and may correct while it waits."""
        return (self.uuid, self.to, self.text, self.premium, self.route.via)


def incoming_id(gateway: str, ref: str) -> str:
    """The `_id` of an incoming message: the same for the same message, whoever stores it."""
    return f"{INCOMING}{gateway}:{_id_part(ref)}"


def _id_part(value: str) -> str:
    quoted = quote(value, safe="")
    return quoted if len(quoted) <= _LONGEST_ID else "sha256-" + hashlib.sha256(value.encode()).hexdigest()


def new_receipt() -> str:
    """The `receipt` of one attempt to store a document: of several with one `_id` it tells whose CouchDB took."""
    return secrets.token_hex(16)


def incoming_document(message: IncomingMessage, sender: str, received: int) -> Document:
    """The `data_record` of an incoming message; `sender` is its normalised number, `received` in ms since epoch."""
    sms: Document = {
        "type": "sms_message",
        "message": message.text,
        "from": message.sender,
        "gateway": message.gateway,
        "gateway_ref": message.ref,
        "form": None,
        "locale": None,
        "reported_date": received,
    }
    for name in ("to", "sent_timestamp", "link_id", "network_code", "cost"):
        value = getattr(message, name)
        if value:
            sms[name] = value
    return {
        "_id": incoming_id(message.gateway, message.ref),
        "type": "data_record",
        "from": sender,
        "form": None,
        "fields": {},
        "errors": [],
        "tasks": [],
        "reported_date": received,
        "sms_message": sms,
        "receipt": new_receipt(),
    }


def report_document(report: DeliveryReport, received: int) -> Document:
    """A delivery report as it waits in `<db>-callbacks`; its `_id` is the same for the same report of a message."""
    doc: Document = {
        "_id": f"report:{report.gateway}:{_id_part(report.ref)}:{_id_part(report.status)}",
        "type": "delivery_report",
        "gateway": report.gateway,
        "gateway_ref": report.ref,
        "status": report.status,
        "state": report.state.value if report.state else None,
        "received": received,
        "receipt": new_receipt(),
    }
    for name in ("phone", "reason", "network_code", "failure"):
        value = getattr(report, name)
        if value:
            doc[name] = value
    return doc


def read_report(doc: Document) -> DeliveryReport:
    """The report that `report_document` made. Raises KeyError or ValueError for what is none, or a later version's."""
    return DeliveryReport(
        gateway=str(doc["gateway"]),
        ref=str(doc["gateway_ref"]),
        status=str(doc["status"]),
        state=State(doc["state"]) if doc.get("state") else None,
        phone=str(doc["phone"]) if doc.get("phone") else None,
        reason=str(doc["reason"]) if doc.get("reason") else None,
        network_code=doc.get("network_code"),
        failure=doc.get("failure"),
    )


def notice_document(notice: Notice, received: int) -> Document:
    """A notice as it waits in `<db>-callbacks`. Who joined, left and joined again is told of by three, whether or not
    the first was seen to meanwhile."""
    return {
        "_id": f"{notice.kind}:{notice.gateway}:{new_uuid() if notice.key is None else _id_part(notice.key)}",
        "type": notice.kind.replace("-", "_"),
        "gateway": notice.gateway,
        "phone": notice.phone,
        "received": received,
        "receipt": new_receipt(),
        **notice.facts,
    }


def new_task(
    to: str, text: str, at: datetime, *, due: datetime | None = None, message_uuid: str | None = None, **facts: Any
) -> Task:
    """A task with one message: due now (`pending`), or `scheduled` when `due` lies after `at`."""
    state = State.SCHEDULED if due is not None and due > at else State.PENDING
    task: Task = {
        "messages": [{"to": to, "message": text, "uuid": message_uuid or new_uuid()}],
        "state": state.value,
        "state_history": [{"state": state.value, "timestamp": states.timestamp(at)}],
        **facts,
    }
    if due is not None:
        task["due"] = states.timestamp(due)
    return task


def outgoing_document(task: Task, at: datetime, author: str | None) -> Document:
    """The document of a message that a person or a program wrote, with CHT's mark for such."""
    return {
        "_id": new_uuid(),
        "type": "data_record",
        "from": author,
        "kujua_message": True,
        "fields": {},
        "errors": [],
        "reported_date": milliseconds(at),
        "tasks": [task],
    }


def tasks_of(doc: Document) -> Iterator[Task]:
    """Every task of a document, from `tasks` and `scheduled_tasks`; what is no task is passed over."""
    for name in TASK_LISTS:
        yield from _tasks_in(doc, name)


def _tasks_in(doc: Document, name: str) -> Iterator[Task]:
    tasks = doc.get(name)
    return (task for task in (tasks if isinstance(tasks, list) else ()) if isinstance(task, dict))


def message_of(task: Task) -> Document:
    """The task's message; empty when it has none yet."""
    messages = task.get("messages")
    first = messages[0] if isinstance(messages, list) and messages else None
    return first if isinstance(first, dict) else {}


def singles(task: Task) -> list[Task]:
    """For each message of a task one that is as the task is otherwise; none when there is no message in it."""
    given = task.get("messages")
    messages = [message for message in given if isinstance(message, dict)] if isinstance(given, list) else []
    alone = {**task, "messages": []}  # else each would first get a copy of them all
    return [{**copy.deepcopy(alone), "messages": [message]} for message in messages]


def find_task(doc: Document, message_uuid: str) -> Task | None:
    """The task that carries the message with this uuid. Of several, as there are where somebody copies a task until the
    copy gets a uuid of its own, the one that does not wait any more: what is told is told of that."""
    found = [task for task in tasks_of(doc) if message_of(task).get("uuid") == message_uuid]
    return next((task for task in found if states.of(task) not in states.DUE), found[0] if found else None)


def date_of(task: Task, doc: Document) -> int | None:
    """When a task falls due, in ms since epoch: its `due`, else its `timestamp`, else when the document was made."""
    moments = map(read_moment, (task.get("due"), task.get("timestamp"), doc.get("reported_date")))
    return next((moment for moment in moments if moment is not None), None)


def due_of(task: Task, doc: Document) -> int:
    """The same, 0 when none of them says."""
    return date_of(task, doc) or 0


def oldest_due(at: datetime, sms: Sms) -> int:
    """What was due before this moment (ms since epoch) is too old to be sent at `at`, by `sms.expire_after`."""
    return milliseconds(at) - int(sms.expire_after * 1000)


def read_moment(value: object) -> int | None:
    """Milliseconds since epoch from what documents hold: a number, or ISO 8601 (in UTC when it names no zone)."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value  # may be larger than any float
    if isinstance(value, float):
        return int(value) if math.isfinite(value) else None
    if isinstance(value, str) and value:
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return None
        return milliseconds(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    return None


def milliseconds(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def datetime_of(moment: int) -> datetime:
    """The datetime, in UTC, of ms since epoch; the first or the last that there is for what lies beyond them."""
    return datetime.fromtimestamp(max(FIRST_MOMENT, min(moment, LAST_MOMENT)) / 1000, UTC)


def product_register(short_code: str, keyword: str) -> str:
    """The register of who has a premium product: documents `subscription:<short code>:<keyword>:<number>`."""
    return f"subscription:{short_code or '-'}:{keyword or '-'}"


def entries_of(doc: Document) -> list[Document]:
    """The history of a number's document in a register, oldest first; people write such documents by hand too."""
    history = doc.get("history")
    return [entry for entry in history if isinstance(entry, dict)] if isinstance(history, list) else []


def last_entry(doc: Document) -> Document:
    """What happened to the number last; empty when that is not known."""
    return next(reversed(entries_of(doc)), {})


def is_incoming(doc: Document) -> bool:
    """Whether the document is an SMS that came in."""
    return doc.get("type") == "data_record" and isinstance(doc.get("sms_message"), dict) and bool(doc.get("from"))


def outgoing_message(doc: Document, task: Task) -> OutgoingMessage | None:
    """The snapshot of a task that could be sent: pending, with one message, a recipient and a uuid. Else None."""
    message = message_of(task)
    text = message.get("message")
    if states.of(task) is not State.PENDING or not message.get("uuid") or not message.get("to"):
        return None
    if len(task["messages"]) > 1:
        return None  # added since the task was looked at: claimed with this one, the others would never go
    if not isinstance(text, str) or not text:
        return None
    # Who wrote is answered by `tasks`; a document for a thousand people, which nobody wrote, is not searched for each.
    answers = is_incoming(doc) and any(task is other for other in _tasks_in(doc, "tasks"))
    sms = doc["sms_message"] if answers else {}
    via = task.get("via")
    return OutgoingMessage(
        doc_id=doc["_id"],
        uuid=str(message["uuid"]),
        to=str(message["to"]),
        text=text,
        due=due_of(task, doc),
        reply=answers,
        premium=_premium(task, sms if message["to"] in (doc.get("from"), sms.get("from")) else {}),
        route=Route(via if isinstance(via, str) else None, last=_doubted(task)),
    )


def _premium(task: Task, answers: Document) -> Premium:
    """What a task's `premium` says (true, false, or an object with the fields of Premium), and what it answers."""
    given = task.get("premium")
    facts = given if isinstance(given, dict) else {}
    hours = facts.get("retry_duration_hours")
    return Premium(
        wanted=given if isinstance(given, bool) else isinstance(given, dict) or None,
        keyword=str(facts["keyword"]) if facts.get("keyword") else None,
        link_id=str(link_id) if (link_id := facts.get("link_id") or answers.get("link_id")) else None,
        retry_duration_hours=hours if isinstance(hours, int) else None,
    )


def _doubted(task: Task) -> frozenset[str]:
    """The service that never answered for this message: with another at hand, it is not asked with it again."""
    service = task.get("service")
    return frozenset({service}) if task.get("in_doubt") and isinstance(service, str) else frozenset()
