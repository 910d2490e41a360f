"""The messages that a database has already: half of them came in, half went out, all of them done with."""

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from mjumbe import documents, states
from mjumbe.documents import Document, IncomingMessage
from mjumbe.gateways import PHONE_GATEWAY, africas_talking
from mjumbe.states import State

SHORT_CODE = "22000"
PEOPLE = 1_000  # contacts; as many senders again are known to nobody
SPREAD = timedelta(days=365)  # the messages came and went during the past year, but for the last hour
TEXTS = (
    "Mgonjwa ana homa tangu siku tatu na hali chakula",
    "Mama Achieng amejifungua salama leo asubuhi mtoto wa kike kilo 3.2",
    "J1 Zawadi 24 07/11",
    "Umeme umekatika tangu jana jioni, tafadhali tuma fundi",
    "Nimelipa 500 leo saa nne, bado sijapata token",
    "Asante sana",
)


def number(n: int, prefix: str = "+254711") -> str:
    """A Kenyan mobile number, a different one for each `n` below a million."""
    return f"{prefix}{n % 1_000_000:06d}"


def sender(n: int) -> str:
    """Who sends message `n`: every second time somebody whose contact is stored."""
    return number(n * 7919 % (2 * PEOPLE))


def people() -> list[Document]:
    """The contacts, with the lineage that CHT's have."""
    return [
        {
            "_id": f"bench-person-{n:06d}",
            "type": "person",
            "name": f"Amina Otieno {n}",
            "phone": number(n),
            "parent": {"_id": "bench-clinic", "parent": {"_id": "bench-district"}},
        }
        for n in range(PEOPLE)
    ]


def stored(count: int) -> Iterator[Document]:
    """`count` documents, oldest first."""
    newest = states.now() - timedelta(hours=1)
    for n in range(count):
        at = newest - SPREAD * ((count - n) / count)
        ref = f"ATXid_{uuid.uuid4().hex}"
        yield _answered(ref, n, at) if n % 2 else _delivered(ref, n, at)


def _answered(ref: str, n: int, at: datetime) -> Document:
    text = TEXTS[n % len(TEXTS)]
    message = IncomingMessage(africas_talking.NAME, ref, sender(n), text, SHORT_CODE, network_code="63902")
    doc = documents.incoming_document(message, sender(n), documents.milliseconds(at))
    seen = {name: {"ok": True} for name in ("link_sender", "replies")}
    return {**doc, "contact": {"_id": f"bench-person-{n % PEOPLE:06d}"}, "transitions": seen}


def _delivered(ref: str, n: int, at: datetime) -> Document:
    doc = sent(ref, sender(n), TEXTS[n % len(TEXTS)], at)
    states.move(doc["tasks"][0], State.DELIVERED, at + timedelta(seconds=9), "Success", report="Success")
    return doc


def sent(ref: str, to: str, text: str, at: datetime | None = None) -> Document:
    """A message that the service took, under its reference `ref`, and reported nothing of yet."""
    at = at or datetime.now(UTC)
    task = documents.new_task(to, text, at)
    states.claim(task, at + timedelta(seconds=1), africas_talking.NAME, uuid.uuid4().hex)
    states.move(task, State.SENT, at + timedelta(seconds=2), "Sent", service=africas_talking.NAME)
    states.remember_ref(task, ref)
    task.pop("claim")
    task |= {"cost": "KES 0.8000", "parts": 1}
    return documents.outgoing_document(task, at, "bench")


def on_the_phone(message_uuid: str, to: str, text: str, user: str) -> Document:
    """A message that the phone of `user` was given at its last poll, and has not acknowledged."""
    at = datetime.now(UTC)
    task = documents.new_task(to, text, at, message_uuid=message_uuid)
    states.claim(task, at, PHONE_GATEWAY, user)
    return documents.outgoing_document(task, at, "bench")
