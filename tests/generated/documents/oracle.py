"""What must become of a generated document's messages, by what the documentation says of them.

It looks at documents as their authors left them, and knows nothing of how they are processed.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tests.generated.documents.generator import (
    DENIED_COUNTRY,
    NAME,
    OWN_NUMBER,
    PATIENT,
    PATIENT_ID,
    REPLACED,
    REPLACEMENT,
    TEMPLATES,
    Document,
    Region,
)

DAY = 86_400_000  # ms
EXPIRY = 7 * DAY
WAITING = ("pending", "scheduled")
LISTS = ("tasks", "scheduled_tasks")
SERVICES = {"africas-talking", "textbee", "rapidpro", "viber", "medic-gateway"}

# By the end of a number: how often Africa's Talking takes a message to it, and the states that it may end in
# (docs/simulator.md, docs/africas-talking.md).
ONCE, NEVER, TRIES = (1, 1), (0, 0), (1, 5)
DELIVERED = {"delivered"}
ANSWER = "answer"  # the mark of what we made ourselves
ENDINGS: dict[str, tuple[tuple[int, int], set[str]]] = {
    **dict.fromkeys(("99401", "99403", "99404", "99407"), (NEVER, {"failed"})),
    "99406": (NEVER, {"denied"}),
    "99409": (NEVER, {"pending"}),
    **dict.fromkeys(("99500", "99501", "99502", "99804"), (NEVER, {"failed"})),
    "99601": (ONCE, {"sent", "forwarded-by-gateway"}),  # the second where the report is all that was heard
    **dict.fromkeys(("99602", "99700"), (ONCE, {"sent"})),
    "99609": (ONCE, {"sent", "received-by-gateway"}),
    **dict.fromkeys(("99605", "99606", "99607", "99608"), (ONCE, {"failed"})),
    "99611": (ONCE, {"denied"}),
    "99802": (TRIES, DELIVERED),
    "99803": (NEVER, {"failed"}),
    "99807": (NEVER, {"failed"}),
}
TAKEN = {"received-by-gateway", "forwarded-by-gateway", "sent", "delivered"}


@dataclass(frozen=True)
class Expected:
    """What is to become of one message."""

    doc_id: str
    mark: str
    to: str
    text: str
    least: int  # how often a service takes it, where nothing is in doubt
    most: int
    states: frozenset[str]  # one of these at last
    not_before: int = 0  # ms
    by: str | None = None  # the service that its author chose

    @property
    def key(self) -> tuple[str, str]:
        return (self.to, self.text)


class Oracle:
    def __init__(self, region: Region, now: int) -> None:
        """`now`, in ms, is when the documents were written, to a few minutes."""
        self._region = region
        self._settings = region.settings
        self._sms = region.settings["sms"]
        self._now = now
        self.opted_out: set[str] = set()  # numbers

    def answer(self, doc_id: str, to: str, text: str) -> Expected:
        """What answers a keyword, however often its callback came; or what a program wrote by the API, likewise."""
        return Expected(doc_id, ANSWER, to, text, 1, 1, frozenset(DELIVERED))

    def of(self, doc: Document) -> Iterator[Expected]:
        """What is expected of each message of a document."""
        for name in LISTS:
            for task in doc.get(name) or []:
                if isinstance(task, dict) and "mark" in task:
                    given = task.get("messages")
                    messages = (
                        given if isinstance(given, list) and given else [given] if given else [self._made(task, doc)]
                    )
                    for message in messages:
                        yield self._message(doc, task, message)

    def _message(self, doc: Document, task: Document, message: Any) -> Expected:
        said = message if isinstance(message, dict) else {}
        mark, text = str(said.get("mark", task["mark"])), said.get("message")
        to = self._number(said.get("to") or "")
        text = self._cut(text) if isinstance(text, str) else ""
        due = next(filter(None, map(_moment, (task.get("due"), task.get("timestamp"), doc.get("reported_date")))), 0)
        states = self._never(doc, task, message, due)
        taken_back = {"cleared"} if task.get("taken_back") else set()  # on a phone, before or after it went
        if states:
            return Expected(doc["_id"], mark, to, text, 0, 0, frozenset(states | taken_back))
        (least, most), ends = self._at_service(to, task.get("via"))
        least = 0 if taken_back else least
        return Expected(doc["_id"], mark, to, text, least, most, frozenset(ends | taken_back), due, task.get("via"))

    def _never(self, doc: Document, task: Document, message: Any, due: int) -> set[str]:
        """The states in which a message may stay that is not sent; empty when it is to be sent."""
        if task["state"] not in WAITING:
            return {task["state"]}
        states: set[str] = set()
        if due > self._now + DAY / 2:
            states.add(task["state"])
            if task["state"] == "scheduled":
                return states
        if message is None and not task.get("messages"):
            states.add("cleared" if self._sms["clear_failing_schedules"] else "pending")
        elif not isinstance(message, dict) or not message.get("to") or not _is_text(message.get("message")):
            states.add("failed")
        elif self._is_refused(str(message["to"])) or self._number(message["to"]) in self.opted_out:
            states.add("denied")
        if due and due < self._now - EXPIRY:
            states.add("failed")
        if not states and task.get("via") in {"viber", "pigeon"}:  # nobody here ever wrote to the bot
            states.add("pending")
        return states

    # ---- by which service, and what that does

    def _at_service(self, to: str, via: str | None) -> tuple[tuple[int, int], set[str]]:
        """How often services take a message, and how it ends; loosely where it may go by several, or by one whose
        own faults are others."""
        ending = to[-5:]
        usual = to.startswith("+") and ending < "99"
        if via == "medic-gateway":
            return ONCE, DELIVERED
        if via == "rapidpro":  # which is asked once a minute what became of messages
            return ONCE if usual else (0, TRIES[1]), TAKEN | {"failed"}
        if not usual and (via == "textbee" or (via is None and self._sms["fallback_services"])):
            return (0, TRIES[1] if ending == "99802" else 1), TAKEN | {"failed", "denied", "pending"}
        return ENDINGS.get(ending, (ONCE, DELIVERED)) if to.startswith("+") else (NEVER, {"failed"})

    # ---- numbers

    def _number(self, written: Any) -> str:
        """In full: +254711000111."""
        text = str(written).strip()
        digits = re.sub(r"[ -]", "", text)
        if not re.fullmatch(r"\+?\d{7,15}", digits):
            return text
        national = re.fullmatch(r"0?(7\d{8})", digits)
        number = f"+254{national[1]}" if national else "+" + digits.removeprefix("+").removeprefix("00")
        return REPLACEMENT + number.removeprefix(REPLACED) if number.startswith(REPLACED) else number

    def _is_refused(self, written: str) -> bool:
        trimmed = written.strip()
        letters = any(character.isalpha() for character in trimmed)
        return (
            "," in trimmed
            or len(trimmed) < self._settings["outgoing_deny_shorter_than"]
            or (letters and self._settings["outgoing_deny_with_alphas"])
            or self._number(trimmed) == OWN_NUMBER
            or self._number(trimmed).startswith(DENIED_COUNTRY)
            or trimmed.lower().startswith("orange")
        )

    # ---- texts

    def _cut(self, text: str) -> str:
        """At most so many parts: 160 characters in one, 153 in each of several; 70 and 67 with another alphabet."""
        limit = self._settings["multipart_sms_limit"]
        single, joined = (160, 153) if text.isascii() else (70, 67)
        room = single if limit == 1 else joined * limit
        return text if len(text) <= max(room, single) else text[: room - 3] + "..."

    def _made(self, task: Document, doc: Document) -> Document | None:
        """The message that a template becomes, None when it cannot be made."""
        locale = doc.get("locale") or self._settings["locale_outgoing"]
        template = task.get("message")
        if isinstance(template, list):
            template = next(entry["content"] for entry in template if entry["locale"] == locale)
        if template is None:
            texts = TEMPLATES.get(task["message_key"], {})
            template = texts.get(locale) or texts.get("en")
        to = self._recipient(task, doc)
        if not template or not to:
            return None
        patient = PATIENT if doc["fields"].get("patient_id") == PATIENT_ID else doc["fields"].get("patient_name", "")
        values = {"fields.mark": doc["fields"]["mark"], "patient_name": patient}
        values["contact.name"] = NAME if doc.get("contact") else ""
        text = re.sub(r"\{\{([\w.]+)\}\}", lambda tag: values[tag[1]], template).strip()
        return {"to": to, "message": text}

    def _recipient(self, task: Document, doc: Document) -> str | None:
        word = task.get("recipient") or "reporting_unit"
        sender = doc.get("from")
        if word.startswith("+"):
            return str(word)
        knows_where = "contact" in doc or doc["fields"].get("patient_id") == PATIENT_ID
        above = {"clinic": "clinic", "health_center": "health_center", "district": "district_hospital"}
        above |= {"parent": "health_center", "grandparent": "district_hospital"}
        found = None
        if word == "reporting_unit":
            found = sender
        elif word in above and knows_where:
            found = self._region.phones[above[word]]
        elif word == "mother":
            found = doc["fields"]["mother"]
        return found or (sender if self._sms["default_to_sender"] else None)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _moment(value: Any) -> int | None:
    """Milliseconds, of a number or of ISO 8601."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return int(value)
    try:
        at = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
