"""What is known of numbers: read, changed, repeated, out of order, written by two at once."""

import itertools

import pytest

from mjumbe import states
from mjumbe.documents import Document, milliseconds
from sentinel.registers import OPTED_OUT, Entry, Register, Registers
from tests.unit.sentinel.memory import MemoryDatabase

PHONE, OTHER = "+254711000001", "+254711000002"
HOUR = 3_600_000


def out(hour: int, number: str = PHONE, source: str = "a callback") -> Entry:
    return Entry(number, OPTED_OUT, hour * HOUR, source)


def back(hour: int, number: str = PHONE) -> Entry:
    return Entry(number, None, hour * HOUR, "the person wrote START")


@pytest.fixture
def database() -> MemoryDatabase:
    return MemoryDatabase()


@pytest.fixture
def register(database: MemoryDatabase) -> Register:
    return Register(database, "opt-out")


def values(database: MemoryDatabase, number: str = PHONE) -> list[str | None]:
    return [entry["value"] for entry in database.docs[f"opt-out:{number}"]["history"]]


def test_an_entry_is_a_document_with_its_history(database: MemoryDatabase, register: Register) -> None:
    register.record(out(1))
    doc = {name: value for name, value in database.docs[f"opt-out:{PHONE}"].items() if name != "_rev"}
    assert doc == {
        "_id": f"opt-out:{PHONE}",
        "type": "opt_out",
        "phone": PHONE,
        "value": OPTED_OUT,
        "history": [{"value": OPTED_OUT, "source": "a callback", "timestamp": "1970-01-01T01:00:00.000Z"}],
    }
    assert (register.get(PHONE), register.get(OTHER)) == (OPTED_OUT, None)


@pytest.mark.parametrize("order", list(itertools.permutations([out(1), back(2), out(3)])))
def test_the_latest_holds_whatever_order_they_come_in(
    database: MemoryDatabase, register: Register, order: tuple[Entry, ...]
) -> None:
    for entry in order:
        register.record(entry)
    assert register.get(PHONE) == OPTED_OUT
    assert values(database) == [OPTED_OUT, None, OPTED_OUT]


def test_what_happened_before_the_clock_was_set_back_is_no_later(database: MemoryDatabase, register: Register) -> None:
    now = milliseconds(states.now())
    register.record(Entry(PHONE, None, now + 48 * HOUR, "the person wrote START"))
    register.record(Entry(PHONE, OPTED_OUT, now, "the person wrote STOP"))
    assert (register.get(PHONE), values(database)) == (OPTED_OUT, [None, OPTED_OUT])


def test_what_comes_from_a_clock_that_is_ahead_holds(database: MemoryDatabase, register: Register) -> None:
    now = milliseconds(states.now())
    register.record(Entry(PHONE, None, now - HOUR, "the person wrote START"))
    register.record(Entry(PHONE, OPTED_OUT, now + HOUR, "the person wrote STOP"))
    assert (register.get(PHONE), values(database)) == (OPTED_OUT, [None, OPTED_OUT])


@pytest.mark.parametrize("order", list(itertools.permutations([out(1), back(2), out(1, OTHER)])))
def test_several_at_once(database: MemoryDatabase, register: Register, order: tuple[Entry, ...]) -> None:
    register.record(*order)
    assert (register.get(PHONE), register.get(OTHER)) == (None, OPTED_OUT)
    assert values(database) == [OPTED_OUT, None]
    assert database.bulks == 1


def test_a_repeat_writes_nothing(database: MemoryDatabase, register: Register) -> None:
    for _ in range(3):
        register.record(out(1))
    assert (database.bulks, values(database)) == (1, [OPTED_OUT])


def test_what_another_wrote_meanwhile_stays(database: MemoryDatabase, register: Register) -> None:
    def meanwhile() -> None:
        database.before_bulk = lambda: None
        Register(database, "opt-out").record(out(5))

    register.record(out(1))
    database.before_bulk = meanwhile
    register.record(back(3))
    assert values(database) == [OPTED_OUT, None, OPTED_OUT]
    assert register.get(PHONE) == OPTED_OUT


def test_other_fields_of_the_document_stay(database: MemoryDatabase, register: Register) -> None:
    database.store({"_id": f"opt-out:{PHONE}", "note": "asked by phone"})
    register.record(out(1))
    assert database.docs[f"opt-out:{PHONE}"]["note"] == "asked by phone"


def test_loading_reads_only_its_own_kind(database: MemoryDatabase, register: Register) -> None:
    Register(database, "opt-out").record(out(1), out(1, OTHER), back(2, OTHER))
    Register(database, "viber-user").record(Entry(OTHER, "user", 1, "viber"))
    database.store({"_id": "opt-outs", "value": "x"})
    register.load()
    assert (register.get(PHONE), register.get(OTHER)) == (OPTED_OUT, None)


@pytest.mark.parametrize(
    ("doc", "holds"),
    [
        ({"value": OPTED_OUT}, OPTED_OUT),
        ({"value": None}, None),
        ({}, None),
        ({"value": OPTED_OUT, "_deleted": True}, None),
    ],
)
def test_a_document_that_changed(register: Register, doc: Document, holds: str | None) -> None:
    register.record(out(1))
    register.learn({"_id": f"opt-out:{PHONE}", **doc})
    assert register.get(PHONE) == holds


def test_whose_a_value_is(register: Register) -> None:
    register.record(Entry(PHONE, "user-1", 1, "viber"), Entry(OTHER, "user-2", 1, "viber"))
    assert [register.number_of(user) for user in ("user-1", "user-2", "user-3")] == [PHONE, OTHER, None]
    register.record(Entry(PHONE, None, 2, "viber"))
    assert register.number_of("user-1") is None


def test_a_kind_with_parts_names_its_type_by_the_first(database: MemoryDatabase) -> None:
    Register(database, "subscription:22000:HABARI").record(Entry(PHONE, "active", 1, "a callback"))
    assert database.docs[f"subscription:22000:HABARI:{PHONE}"]["type"] == "subscription"


def test_changes_go_to_the_register_they_concern(database: MemoryDatabase) -> None:
    registers = Registers.of(database)
    for doc_id in (f"opt-out:{PHONE}", f"viber-user:{OTHER}", f"subscription:1:2:{PHONE}", "settings"):
        registers.learn({"_id": doc_id, "value": "x"})
    assert (registers.opt_outs.get(PHONE), registers.opt_outs.get(OTHER)) == ("x", None)
    assert (registers.viber_users.get(PHONE), registers.viber_users.get(OTHER)) == (None, "x")


def test_loading_reads_them_all(database: MemoryDatabase) -> None:
    first = Registers.of(database)
    first.opt_outs.record(out(1))
    first.viber_users.record(Entry(OTHER, "user", 1, "viber"))
    second = Registers.of(database)
    second.load()
    assert (second.opt_outs.get(PHONE), second.viber_users.get(OTHER)) == (OPTED_OUT, "user")
