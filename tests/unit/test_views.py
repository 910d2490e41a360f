"""Our own map functions, as the embedded store runs them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from embedded.engine.javascript import MapFunctions
from mjumbe.setup import read_designs

# A process for each time zone: V8 reads it once. In go documents, one a line, out come the keys of their rows.
# V8 reads moments that QuickJS may not (CouchDB 3.4+ can run that): here, none reads more than ECMAScript's own format.
SCRIPT = r"""
import json, sys
from embedded.engine.javascript import MapFunctions
from mjumbe.setup import read_designs

views = next(design for design in read_designs() if design.name == "mjumbe").views
STRICT = '''function (doc) {
  var parse = Date.parse;
  Date.parse = function (text) {
    return /^\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)?)?$/.test(text) ? parse(text) : NaN;
  };
  try { (%s)(doc); } finally { Date.parse = parse; }
}'''
functions = MapFunctions({name: STRICT % view["map"] for name, view in views.items()})
for document in sys.stdin:
    (rows,) = functions.run([document])
    print(json.dumps([key for view in rows for key, _ in view]), flush=True)
functions.close()
"""
EIGHT = 1_769_846_400_000  # 2026-01-31T08:00:00Z

Keys = list[list[Any]]
KeysOf = Callable[..., Keys]


@pytest.fixture(scope="module")
def keys_of() -> Iterator[KeysOf]:
    """What the views of `mjumbe` list a document under, in a CouchDB that runs in a time zone: keys_of(doc, zone)."""
    started: dict[str, subprocess.Popen[str]] = {}

    def ask(doc: dict[str, Any], zone: str = "UTC") -> Keys:
        if zone not in started:
            started[zone] = subprocess.Popen(
                [sys.executable, "-c", SCRIPT],
                env={**os.environ, "TZ": zone},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        process = started[zone]
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps({"_id": "d", **doc}) + "\n")
        process.stdin.flush()
        keys: Keys = json.loads(process.stdout.readline())
        return keys

    yield ask
    for process in started.values():
        process.communicate(timeout=60)


def task(**facts: Any) -> dict[str, Any]:
    return {"state": "pending", "service": "medic-gateway", "messages": [{"to": "+1", "uuid": "u"}], **facts}


@pytest.mark.parametrize("zone", ["UTC", "Africa/Nairobi", "America/New_York"])
@pytest.mark.parametrize("due", ["2026-01-31T08:00:00", "2026-01-31 08:00", "2026-01-31T08:00:00.000Z", EIGHT])
def test_a_moment_without_a_zone_is_utc_wherever_couchdb_runs(keys_of: KeysOf, zone: str, due: str | int) -> None:
    keys = keys_of({"tasks": [task(due=due)]}, zone)
    assert ["assigned", EIGHT] in keys, "of the view due"
    assert ["all", EIGHT] in keys
    assert ["medic-gateway", 1, EIGHT] in keys


@pytest.mark.parametrize(
    "due", ["2026-01-31 11:00:00+03:00", "2026-01-31 08:00:00Z", "2026-01-31 08:00:00.000000+00:00"]
)
def test_a_moment_with_a_space_is_one_in_every_engine(keys_of: KeysOf, due: str) -> None:
    """So software in Python and SQL writes them. Read as none, a scheduled message was fetched anew every second."""
    keys = keys_of({"tasks": [task(due=due)]})
    assert ["assigned", EIGHT] in keys, "of the view due"
    assert ["all", EIGHT] in keys
    assert ["medic-gateway", 1, EIGHT] in keys


@pytest.mark.parametrize("name", ["due", "retry_at", "timestamp"])
def test_what_is_no_moment_is_never_compared_with_one(keys_of: KeysOf, name: str) -> None:
    """A list ended the sentinel, which compares such keys, and every poll of a phone."""
    odd: list[Any] = [[], [1], {}, {"a": 1}, True, "soon", [None]]
    for state in ("scheduled", "pending", "forwarded-to-gateway"):
        for facts in ({}, {"service": None}):
            keys = keys_of({"tasks": [task(state=state, **facts, **{name: value}) for value in odd]})
            assert {key[-1] for key in keys if key[0] in (state, "assigned", "medic-gateway", "all")} == {0}


def test_answers_that_wait_are_found_by_themselves(keys_of: KeysOf) -> None:
    heard = {"type": "data_record", "from": "+2547", "sms_message": {"message": "HELP"}}
    for_a_phone, scheduled = task(due=EIGHT + 2), task(due=EIGHT + 3, state="scheduled")
    answers = [task(due=EIGHT, service=None), task(due=EIGHT + 1, service="textbee"), for_a_phone, scheduled]
    reminders = [task(due=EIGHT + 4, service=None)]
    found = keys_of({**heard, "tasks": answers, "scheduled_tasks": reminders})
    assert [key for key in found if key[0] == "reply"] == [["reply", EIGHT], ["reply", EIGHT + 1]]
    written = {"type": "data_record", "kujua_message": True, "tasks": answers}
    assert not any(key[0] == "reply" for key in keys_of(written))


# ---- every row of every view

NINE, TEN = EIGHT + 3_600_000, EIGHT + 7_200_000
AT = {EIGHT: "2026-01-31T08:00:00.000Z", NINE: "2026-01-31T09:00:00.000Z", TEN: "2026-01-31T10:00:00.000Z"}
HEARD = {"type": "data_record", "from": "+254711000111", "sms_message": {"message": "HELP", "gateway_ref": "in-1"}}
TO = {"to": "+254711000111", "message": "Habari", "uuid": "u"}


def message(state: str, **facts: Any) -> dict[str, Any]:
    return {"state": state, "messages": [TO], **facts}


def history(*entries: tuple[str, int]) -> list[dict[str, Any]]:
    return [{"state": state, "timestamp": AT[at]} for state, at in entries]


def value(service: str | None = None, via: str | None = None) -> dict[str, Any]:
    return {"uuid": "u", "service": service, "via": via}


TAKEN = history(("pending", EIGHT), ("forwarded-to-gateway", NINE))
AGAIN = [*TAKEN, *history(("pending", NINE), ("forwarded-to-gateway", TEN))]
OTHER_WAY = {"scheduled_tasks": [message("scheduled", due=AT[EIGHT])]}
PHONE = "medic-gateway"
ROWS: list[tuple[str, dict[str, Any], list[Any]]] = [
    # What is to be done: retry_at, due, timestamp, reported_date, the first that there is.
    ("mjumbe/due", OTHER_WAY, [["scheduled", EIGHT], value()]),
    ("mjumbe/due", {"tasks": [message("pending", retry_at=EIGHT, due=NINE)]}, [["pending", EIGHT], value()]),
    ("mjumbe/due", {"tasks": [message("pending", due=NINE, timestamp=EIGHT)]}, [["pending", NINE], value()]),
    ("mjumbe/due", {"tasks": [message("pending", timestamp=NINE)], "reported_date": 1}, [["pending", NINE], value()]),
    ("mjumbe/due", {"tasks": [message("pending")], "reported_date": NINE}, [["pending", NINE], value()]),
    ("mjumbe/due", {"tasks": [message("pending")]}, [["pending", 0], value()]),
    ("mjumbe/due", {"tasks": [{"state": "pending", "due": 1}]}, [["pending", 1], {**value(), "uuid": None}]),
    (
        "mjumbe/due",
        {"tasks": [message("forwarded-to-gateway", due=EIGHT, service="textbee")]},
        [["forwarded-to-gateway", EIGHT], value("textbee")],
    ),
    ("mjumbe/due", {"tasks": [message("pending", due=1, via="viber")]}, [["pending", 1], value(None, "viber")]),
    ("mjumbe/due", {"tasks": [message("pending", due=1, via=["x"])]}, [["pending", 1], value()]),
    ("mjumbe/due", {"tasks": [message("pending", due=1, service=PHONE)]}, [["assigned", 1], value(PHONE)]),
    (
        "mjumbe/due",
        {"tasks": [message("pending", due=1, service=PHONE, via=PHONE)]},
        [["bound", 1], value(PHONE, PHONE)],
    ),
    ("mjumbe/due", {"tasks": [message("scheduled", due=1, service=PHONE)]}, [["scheduled", 1], value(PHONE)]),
    *(
        (
            "mjumbe/due",
            {"tasks": [message("forwarded-to-gateway", due=1, in_doubt=True, messages=[{**TO, "to": to}])]},
            [["forwarded-to-gateway", 1], value(), ["in-doubt", "254711000111"], value()],
        )
        for to in ("+254711000111", "+254 711-000.111")
    ),
    # What a service has and has not settled.
    *(
        (
            "mjumbe/due",
            {"tasks": [message(state, service="textbee", gateway_ref="r", state_history=AGAIN)]},
            [["open", "textbee", TEN], "r"],
        )
        for state in ("received-by-gateway", "forwarded-by-gateway", "sent")
    ),
    ("mjumbe/due", {"tasks": [message("sent", service="textbee", gateway_ref="r")]}, [["open", "textbee", 0], "r"]),
    ("mjumbe/due", {"tasks": [message("sent", gateway_ref="r")]}, []),
    ("mjumbe/due", {"tasks": [message("sent", service="textbee")]}, []),
    *(
        ("mjumbe/due", {"tasks": [message(state, service="textbee", gateway_ref="r")]}, [])
        for state in ("delivered", "failed", "denied", "cleared", "muted", "duplicate")
    ),
    # An answer is a task of what came in, not a reminder, and not one of a document that was written here.
    ("mjumbe/due", {**HEARD, **OTHER_WAY}, [["scheduled", EIGHT], value()]),
    (
        "mjumbe/due",
        {**HEARD, "tasks": [message("forwarded-to-gateway", due=1)]},
        [["forwarded-to-gateway", 1], value()],
    ),
    ("mjumbe/due", {**HEARD, "from": "", "tasks": [message("pending", due=1)]}, [["pending", 1], value()]),
    # What a phone is given when it asks.
    (
        "mjumbe/assigned",
        {
            "tasks": [message("pending", service=PHONE, due=NINE)],
            "scheduled_tasks": [message("forwarded-to-gateway", service=PHONE, claim="c", state_history=AGAIN)],
        },
        [
            *([PHONE, 1, NINE], {"uuid": "u", "state": "pending", "claim": None, "since": None}),
            *([PHONE, 1, 0], {"uuid": "u", "state": "forwarded-to-gateway", "claim": "c", "since": AT[TEN]}),
        ],
    ),
    (
        "mjumbe/assigned",
        {**HEARD, "tasks": [message("pending", service=PHONE, timestamp=1)]},
        [[PHONE, 0, 1], {"uuid": "u", "state": "pending", "claim": None, "since": None}],
    ),
    (
        "mjumbe/assigned",
        {**HEARD, "reported_date": 2, "scheduled_tasks": [message("pending", service=PHONE)]},
        [[PHONE, 1, 2], {"uuid": "u", "state": "pending", "claim": None, "since": None}],
    ),
    ("mjumbe/assigned", {"tasks": [message("pending", service="textbee")]}, []),
    ("mjumbe/assigned", {"tasks": [message("scheduled", service=PHONE), message("sent", service=PHONE)]}, []),
    # Every message, in and out.
    (
        "mjumbe/messages",
        {**HEARD, "_id": "d", "reported_date": NINE},
        [["all", NINE], "d", ["phone", "1000111", NINE], "d", ["state", "received", NINE], "d"],
    ),
    ("mjumbe/messages", {**HEARD, "type": "other"}, []),
    *(
        (
            "mjumbe/messages",
            {name: [message("sent", due=EIGHT, timestamp=NINE)], "reported_date": TEN},
            [["all", EIGHT], "u", ["phone", "1000111", EIGHT], "u", ["state", "sent", EIGHT], "u"],
        )
        for name in ("tasks", "scheduled_tasks")
    ),
    *(
        (
            "mjumbe/messages",
            {"tasks": [message("sent", timestamp=1, messages=[{**TO, "to": to}])]},
            [["all", 1], "u", ["phone", ending, 1], "u", ["state", "sent", 1], "u"],
        )
        for to, ending in (("0711 000-111", "1000111"), ("22000", "22000"), ("123456", "123456"), ("Mjumbe", "Mjumbe"))
    ),
    # By what a service or a phone calls it.
    (
        "mjumbe/messages_by_gateway_ref",
        {
            "tasks": [message("sent", gateway_ref="b", state_history=[{"gateway_ref": "a"}, {"gateway_ref": "b"}, 0])],
            "scheduled_tasks": [message("sent", gateway_ref="c"), message("sent", gateway_ref=5), message("sent")],
        },
        ["b", "u", "a", "u", "c", "u"],
    ),
    *(
        (view, {name: [message("sent"), {"messages": [{"to": "+1"}]}]}, ["u", None])
        for view in ("mjumbe/messages_by_uuid", "medic-sms/messages_by_uuid")
        for name in ("tasks", "scheduled_tasks")
    ),
    # What the duplicate limit counts: from the first time that it was given to a service.
    *(
        ("mjumbe/sent_recently", {name: [message("sent", state_history=AGAIN)]}, [NINE, TO])
        for name in ("tasks", "scheduled_tasks")
    ),
    ("mjumbe/sent_recently", {"tasks": [message("pending", state_history=history(("pending", EIGHT)))]}, []),
    # Who has a number or a code, and what the services carried.
    ("mjumbe-contacts/by_phone", {"type": "person", "phone": "+254711000111"}, ["+254711000111", None]),
    ("mjumbe-contacts/by_phone", {"type": "contact", "contact_type": "chw", "phone": "1"}, ["1", None]),
    ("mjumbe-contacts/by_phone", {"type": "contact", "phone": "1"}, []),
    ("mjumbe-contacts/by_phone", {"type": "data_record", "contact_type": "chw", "phone": "1"}, []),
    ("mjumbe-contacts/by_phone", {"type": "person"}, []),
    ("mjumbe-contacts/by_shortcode", {"type": "person", "patient_id": 12345}, ["12345", None]),
    ("mjumbe-contacts/by_shortcode", {"type": "clinic", "place_id": "p"}, ["p", None]),
    ("mjumbe-contacts/by_shortcode", {"type": "data_record", "patient_id": "12345"}, []),
    *(
        (
            "mjumbe-figures/by_service",
            {name: [message("sent", service="viber", state_history=[{"timestamp": "2026-01-30T08"}, *AGAIN])]},
            [["viber", "2026-01-31", "sent"], 1],
        )
        for name in ("tasks", "scheduled_tasks")
    ),
    (
        "mjumbe-figures/by_service",
        {"tasks": [message("sent", state_history=AGAIN), message("sent", service="viber")]},
        [],
    ),
    # CHT's own, for what reads them.
    *(
        (
            "medic-sms/gateway_messages_by_state",
            {name: [message("sent", gateway_ref="r"), message("sent")]},
            ["sent", {"id": "u", "gateway_ref": "r"}],
        )
        for name in ("tasks", "scheduled_tasks")
    ),
    (
        "medic-sms/messages_by_gateway_ref",
        {**HEARD, "tasks": [message("sent", gateway_ref="r")], "scheduled_tasks": [message("sent", gateway_ref="s")]},
        ["in-1", "d", "r", "u", "s", "u"],
    ),
    *(
        (
            "medic-sms/messages_by_last_updated_state",
            {"tasks": [message(state, state_history=AGAIN)], "scheduled_tasks": [message(state, timestamp=AT[EIGHT])]},
            [[group, TEN, state], 1, [group, EIGHT, state], 1],
        )
        for group, states in (
            ("scheduled", ["scheduled"]),
            ("pending", ["pending", "forwarded-to-gateway", "received-by-gateway", "forwarded-by-gateway"]),
            ("final", ["sent", "delivered", "failed"]),
            ("muted", ["denied", "cleared", "muted", "duplicate"]),
        )
        for state in states
    ),
    *(
        (
            "medic/messages_by_state",
            {name: [message(state, due=AT[EIGHT], timestamp=AT[NINE])]},
            [
                *([state, EIGHT], {"content": "Habari", "to": "+254711000111", "id": "u"}),
                *(
                    (["pending-or-forwarded", EIGHT], {"content": "Habari", "to": "+254711000111", "id": "u"})
                    if is_open
                    else ()
                ),
            ],
        )
        for state, is_open in (("pending", True), ("forwarded-to-gateway", True), ("scheduled", False), ("sent", False))
        for name in ("tasks", "scheduled_tasks")
    ),
]


@pytest.fixture(scope="module")
def rows_of() -> Iterator[Callable[[str, dict[str, Any]], list[Any]]]:
    """The keys and values that a view, as design/view, has of a document, in turn."""
    views = {f"{design.name}/{name}": view["map"] for design in read_designs() for name, view in design.views.items()}
    functions = MapFunctions(views)

    def rows(view: str, doc: dict[str, Any]) -> list[Any]:
        (by_view,) = functions.run([json.dumps({"_id": "d", **doc})])
        return [each for key, emitted in by_view[list(views).index(view)] for each in (key, json.loads(emitted))]

    yield rows
    functions.close()


@pytest.mark.parametrize(("view", "doc", "rows"), ROWS)
def test_what_a_view_has_of_a_document(
    rows_of: Callable[[str, dict[str, Any]], list[Any]], view: str, doc: dict[str, Any], rows: list[Any]
) -> None:
    assert rows_of(view, doc) == rows


def test_every_view_is_in_the_table() -> None:
    assert {view for view, _, _ in ROWS} == {
        f"{design.name}/{name}" for design in read_designs() for name in design.views
    }
