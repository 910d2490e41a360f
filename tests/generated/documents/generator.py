"""Documents of chance, as CHT, people and other programs write them, and the settings that they meet.

Every choice comes from one seed. Texts are all different, but where one is repeated on purpose: so what a service took
tells which message it was. Each task, and each of several messages in one, has its `mark`, by which it is found again.
"""

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from mjumbe import states
from tests import leaks

Document = dict[str, Any]

# What the last digits of a number make Africa's Talking do (docs/simulator.md). Those by which a whole request fails
# hold the service for a while, so each comes once.
STATUS_CODES = (100, 101, 102, 401, 403, 404, 406, 407, 409, 500, 501, 502, 807)
REPORTS = (601, 602, 604, 605, 606, 607, 608, 609, 610, 611, 612, 700, 702, 703, 704)
QUIET_FAULTS = [f"99{fault}" for fault in STATUS_CODES + REPORTS]
ROUGH_FAULTS = ["99802", "99803", "99804"]

VIA = ["africas-talking", "textbee", "rapidpro", "viber", "medic-gateway", "pigeon"]
ENDED = ["received-by-gateway", "forwarded-by-gateway", "sent", "delivered", "received", "somewhere"]
ENDED += ["failed", "denied", "cleared", "muted", "duplicate"]
OWN_NUMBER = "+254711082000"
DENIED_COUNTRY = "+25620"
REPLACED, REPLACEMENT = "+255", "+254"
WORDS = ["habari", "njoo", "kliniki", "kesho", "asubuhi", "dawa", "chanjo", "mtoto", "salio", "umeme"]
CYRILLIC = " Привет"
SCRIPTS = ["", "", "", CYRILLIC, " ñandú €5 [ok]", " ሰላም", " 👩‍⚕️ 🙂", " <b>&amp;\"'", "\nline\ttab"]


class Numbers:
    """Phone numbers that nobody else has: ordinary ones, and ones with the ending of a fault."""

    def __init__(self, prefix: Callable[[], str]) -> None:
        """`prefix` makes the beginning of a number that lacks its last five digits."""
        self._prefix = prefix
        self._prefixes = [prefix()]
        self._ordinary = itertools.count(1)
        self._used: dict[str, int] = {}

    def ordinary(self) -> str:
        return leaks.number(f"{self._prefixes[0]}{next(self._ordinary):05}")

    def with_ending(self, ending: str) -> str:
        place = self._used[ending] = self._used.get(ending, -1) + 1
        if place == len(self._prefixes):
            self._prefixes.append(self._prefix())
        return leaks.number(self._prefixes[place] + ending)


@dataclass(frozen=True)
class Region:
    """What is there before the first message: settings, contacts, translations."""

    settings: Document
    documents: list[Document]
    phones: dict[str, str]  # of the contact of each kind of place, and of the health worker: `person`
    worker: Document  # the health worker as reports name them: `contact`


TEMPLATES = {
    "visit": {"en": "{{fields.mark}} visit for {{patient_name}}", "sw": "{{fields.mark}} ziara kwa {{patient_name}}"},
    "thanks": {
        "en": "{{fields.mark}} thanks, {{contact.name}} & all",
        "sw": "{{fields.mark}} asante, {{contact.name}}",
    },
    "english": {"en": "{{fields.mark}} nobody has translated this"},
}
HELP = "we are here"
NAME, PATIENT, PATIENT_ID = "Amina Odhiambo", "Baraka O'Neill", "70501"
PLACES = ("district_hospital", "health_center", "clinic")  # from above


def region(chance: random.Random, numbers: Numbers) -> Region:
    """The settings of a programme, and a health worker in a clinic below a health centre in a district."""
    documents: list[Document] = []
    phones: dict[str, str] = {}
    lineage: Document | None = None
    for kind in PLACES:
        phones[kind] = numbers.ordinary()
        head = {"_id": f"head-{kind}", "type": "person", "name": f"Head of {kind}", "phone": phones[kind]}
        place = {"_id": f"place-{kind}", "type": kind, "name": kind, "contact": {"_id": head["_id"]}}
        above = {} if lineage is None else {"parent": lineage}
        documents += [head, place | above]
        lineage = {"_id": place["_id"], **above}
    phones["person"] = numbers.ordinary()
    worker = {"_id": "worker", "parent": lineage}
    documents.append({**worker, "type": "person", "name": NAME, "phone": phones["person"]})
    patient = {"_id": "patient", "parent": lineage, "patient_id": PATIENT_ID}
    documents.append({**patient, "type": "person", "name": PATIENT})
    for locale in ("en", "sw"):
        texts = {key: template[locale] for key, template in TEMPLATES.items() if locale in template}
        documents.append({"_id": f"messages-{locale}", "type": "translations", "code": locale, "generic": texts})
    return Region(_settings(chance), documents, phones, worker)


def _settings(chance: random.Random) -> Document:
    return {
        "gateway_number": OWN_NUMBER,
        "outgoing_deny_list": f"{DENIED_COUNTRY}, orange",
        "outgoing_deny_with_alphas": chance.random() < 0.8,
        "outgoing_deny_shorter_than": chance.choice([4, 6]),
        "outgoing_phone_replace": {"match": REPLACED, "replace": REPLACEMENT},
        "multipart_sms_limit": chance.choice([1, 2, 10]),
        "locale": "en",
        "locale_outgoing": chance.choice(["en", "sw"]),
        "sms": {
            "fallback_services": chance.choice([[], [], ["textbee"], ["medic-gateway"], ["medic-gateway", "textbee"]]),
            "duplicate_limit": chance.choice([1, 3, 5]),
            "clear_failing_schedules": chance.random() < 0.5,
            "default_to_sender": chance.random() < 0.5,
            "in_doubt": chance.choice(["retry", "hold"]),
            "max_attempts": 5,
            "replies": [{"keyword": "HELP", "message": HELP}],
            "africas_talking": {
                "batch_size": chance.choice([1, 100]),
                "concurrency": chance.choice([1, 1, 2, 16]),
            },
        },
    }


class Generator:
    """Makes documents, each of another shape."""

    def __init__(self, chance: random.Random, numbers: Numbers, region: Region) -> None:
        self._chance = chance
        self._numbers = numbers
        self._region = region
        self._serial = itertools.count(1)
        self._rough = list(ROUGH_FAULTS)
        self._uuids = [f"{chance.getrandbits(128):032x}" for _ in range(5)]  # that messages share

    def _one_of(self, **weights: int) -> str:
        return self._chance.choices(list(weights), list(weights.values()))[0]

    def document(self) -> Document:
        mark = f"d{next(self._serial)}"
        about = self._one_of(patient=2, named=1, nobody=2)
        doc: Document = {
            "_id": self._chance.choice([f"{mark}-{self._chance.getrandbits(64):x}", f"{mark} a/b+c?ä"]),
            "type": self._chance.choice(["data_record", "data_record", "task_of_somebody"]),
            "from": self._region.phones["person"],
            "contact": self._region.worker,
            "fields": {"mark": mark, "mother": self._numbers.ordinary()},
        }
        if about != "nobody":
            doc["fields"] |= {"patient_id": PATIENT_ID} if about == "patient" else {"patient_name": "Zawadi"}
        if self._chance.random() < 0.1:
            del doc["from"], doc["contact"]
        if self._chance.random() < 0.2:
            doc["locale"] = self._chance.choice(["en", "sw"])
        reported = self._one_of(now=8, missing=1, old=1)
        if reported != "missing":
            at = states.now() - (timedelta(days=20) if reported == "old" else timedelta(seconds=1))
            doc["reported_date"] = int(at.timestamp() * 1000)
        for name in self._chance.choice([["tasks"], ["scheduled_tasks"], ["tasks", "scheduled_tasks"]]):
            doc[name] = self._tasks(mark, name)
        return doc

    def _tasks(self, mark: str, name: str) -> list[Any]:
        shape = self._one_of(many=8, repeated=1, strange=1)
        tasks: list[Any] = [self._task(f"{mark}.{name[0]}{n}") for n in range(self._chance.choice([1, 1, 2, 3]))]
        if shape == "repeated":
            tasks += self._repeated(f"{mark}.{name[0]}r")
        if shape == "strange":
            tasks[0:0] = [None, "a task", 5, {}, {"messages": {}}, {"state": "pending ", "messages": "none"}]
        return tasks

    def _repeated(self, mark: str) -> list[Document]:
        """One text to one number several times."""
        message = {"to": self._numbers.ordinary(), "message": f"{mark} again and again"}
        count = self._chance.choice([2, 4, 7])
        return [{"mark": f"{mark}{n}", "state": "pending", "messages": [dict(message)]} for n in range(count)]

    def _task(self, mark: str) -> Document:
        kind = self._one_of(plain=8, several=2, template=3, ended=2, flawed=2)
        task: Document = {"mark": mark, "state": self._chance.choice(["pending", "scheduled"]), **self._dates()}
        if self._chance.random() < 0.3:
            task["state_history"] = [{"state": task["state"], "timestamp": "2026-01-01T00:00:00.000Z"}]
        if kind == "template":
            return task | self._template(mark)
        task["messages"] = [self._message(mark)]
        if kind == "several":
            parts = range(self._chance.choice([2, 3]))
            task["messages"] = [{"mark": f"{mark}.{part}", **self._message(f"{mark}.{part}")} for part in parts]
        elif kind == "ended":
            task["state"] = self._chance.choice(ENDED)
        elif kind == "flawed":
            self._spoil(task)
        if self._chance.random() < 0.15:
            # By the others these endings are other faults, which hold a service for minutes.
            task["via"] = self._chance.choice(VIA if not _is_faulty(task) else ["africas-talking", "pigeon"])
        return task

    def added_task(self, mark: str) -> Document:
        """A task as another program adds it to a document; perhaps its message is yet to be made."""
        if self._chance.random() < 0.6:
            return self.simple_task(mark)
        words = self._chance.choice(["clinic", "mother", "reporting_unit"])
        return {"mark": mark, "state": "pending", "recipient": words, "message": f"{mark} for {{{{patient_name}}}}"}

    def simple_task(self, mark: str, *, uuid: bool = True) -> Document:
        """One message, due at once."""
        message = self._message(mark)
        if not uuid:
            message.pop("uuid", None)
        return {"mark": mark, "state": "pending", "messages": [message]}

    def number(self) -> str:
        return self._numbers.ordinary()

    def _message(self, mark: str) -> Document:
        message: Document = {"to": self._recipient(), "message": leaks.text(self.text(mark))}
        uuid = self._one_of(missing=4, own=4, shared=1, odd=1)
        if uuid == "own":
            message["uuid"] = f"{self._chance.getrandbits(128):032x}"
        elif uuid == "shared":
            message["uuid"] = self._chance.choice(self._uuids)
        elif uuid == "odd":
            message["uuid"] = self._chance.choice(["", 7, None, ["a"], {"a": 1}, "ü /?#", False])
        return message

    def text(self, mark: str) -> str:
        """Some words; long ones in one alphabet, so that it is simple to say where they are cut."""
        length = self._one_of(short=8, long=1, longest=1)
        words = [self._chance.choice(WORDS) for _ in range({"short": 3, "long": 60, "longest": 400}[length])]
        ending = self._chance.choice(SCRIPTS if length == "short" else ["", CYRILLIC])
        return " ".join([mark, *words]) + ending

    def _recipient(self) -> Any:
        kind = self._one_of(ordinary=12, spelt=4, fault=5, rough=1, refused=2, replaced=1)
        if kind == "fault" or (kind == "rough" and not self._rough):
            return self._numbers.with_ending(self._chance.choice(QUIET_FAULTS))
        if kind == "rough":
            return self._numbers.with_ending(self._rough.pop())
        if kind == "refused":
            several = f"{self._numbers.ordinary()}, {self._numbers.ordinary()}"
            odd = [
                "SAFARICOM",
                "Orange Net",
                "12345",
                "123",
                OWN_NUMBER,
                "0711082000",
                f"{DENIED_COUNTRY}712345",
                several,
            ]
            return self._chance.choice(odd)
        number = self._numbers.ordinary()
        if kind == "replaced":
            return REPLACED + number.removeprefix(REPLACEMENT)
        return self._spelt(number) if kind == "spelt" else number

    def _spelt(self, number: str) -> Any:
        national = number.removeprefix("+254")
        ways = [
            "0" + national,
            "254" + national,
            "00254" + national,
            f"+254-{national[:3]} {national[3:]}",
            int("254" + national),
        ]
        return self._chance.choice([*ways, f" {number} "])

    def _dates(self) -> Document:
        """When a task is due: each program writes it in its own way, and often not at all."""
        now = states.now()
        kind = self._one_of(missing=6, past=3, spelt=3, unreadable=1, soon=2, future=2, expired=1)
        past, future = now - timedelta(hours=1), now + timedelta(days=1)
        if kind == "missing":
            return {}
        if kind == "past":
            return {self._chance.choice(["due", "timestamp"]): states.timestamp(past)}
        if kind == "spelt":
            spelt = [int(past.timestamp() * 1000), past.timestamp() * 1000, past.isoformat(), past.date().isoformat()]
            return {"due": self._chance.choice([*spelt, past.replace(tzinfo=None).isoformat()])}
        if kind == "unreadable":
            return {"due": self._chance.choice(["29/12/2026", "tomorrow", [], True, {"at": 1}, ""])}
        at = {"soon": now + timedelta(seconds=3), "future": future, "expired": now - timedelta(days=8)}[kind]
        return {"due": self._chance.choice([states.timestamp(at), int(at.timestamp() * 1000)])}

    def _template(self, mark: str) -> Document:
        """A message that is yet to be made: of a translation or a template, to whom a word names."""
        words = ["reporting_unit", "clinic", "health_center", "district", "parent", "grandparent", "mother", "nobody"]
        task: Document = {"recipient": self._chance.choice([*words, self._numbers.ordinary()])}
        if self._chance.random() < 0.2:
            del task["recipient"]
        key = self._chance.choice([*TEMPLATES, "unknown", ""])
        if key:
            return task | {"message_key": key, "mark": mark}
        texts = {locale: f"{mark} {locale} {{{{patient_name}}}}" for locale in ("en", "sw")}
        entries = [{"locale": locale, "content": content} for locale, content in texts.items()]
        return task | {"message": self._chance.choice([texts["en"], entries])}

    def _spoil(self, task: Document) -> None:
        """Leave out something that a message needs."""
        message = task["messages"][0]
        flaw = self._one_of(to=2, text=2, messages=2)
        if flaw == "to":
            message["to"] = self._chance.choice(["", None, 0, []])
        elif flaw == "text":
            message["message"] = self._chance.choice(["", None, 5, ["a"], {}])
        else:
            task["messages"] = self._chance.choice([[None], ["text"], [5, "a"], "text"])


def _is_faulty(task: Document) -> bool:
    return any(str(said.get("to"))[-5:] >= "99" for said in task["messages"] if isinstance(said, dict))
