"""STOP and START, in any spelling, by whichever service they come."""

from typing import Any

import pytest

from mjumbe import documents, settings, states
from mjumbe.documents import IncomingMessage
from sentinel import opt_words
from sentinel.registers import OPTED_OUT, Entry, Registers
from tests.unit.sentinel.memory import MemoryDatabase

PHONE = "+254711000001"
USER = "KzI1NDcxMTAwMDAwMQ=="
AT = 1_767_247_485_123


def said(text: str, sender: str = PHONE, gateway: str = "africas-talking", **sms: Any) -> list[Entry]:
    """What a message says for the register."""
    registers = Registers.of(MemoryDatabase())
    registers.viber_users.record(Entry(PHONE, USER, 1, "a test"))
    doc = documents.incoming_document(IncomingMessage(gateway, "m1", sender, text), sender, AT)
    return opt_words.entries([doc], settings.parse({"sms": sms}), registers)


@pytest.mark.parametrize(
    "text", ["STOP", "stop", " Stop. ", "STOP ALL", "stop! please", "ACHA", "\nunsubscribe\n", "StopAll"]
)
def test_opting_out(text: str) -> None:
    (entry,) = said(text)
    assert (entry.number, entry.value, entry.at) == (PHONE, OPTED_OUT, AT)


@pytest.mark.parametrize("text", ["START", "start sending again", "Anza", "UNSTOP"])
def test_opting_in(text: str) -> None:
    (entry,) = said(text)
    assert (entry.number, entry.value) == (PHONE, None)


@pytest.mark.parametrize("text", ["", "   ", "Please STOP", "STOPPED", "stopwatch", "Habari", "...", "re START"])
def test_anything_else_says_nothing(text: str) -> None:
    assert said(text) == []


def test_the_words_are_settings() -> None:
    words = {"opt_out_words": ["Basta"], "opt_in_words": ["ndiyo"]}
    assert [entry.value for entry in said("BASTA", **words)] == [OPTED_OUT]
    assert [entry.value for entry in said("Ndiyo tafadhali", **words)] == [None]
    assert said("STOP", **words) == []


@pytest.mark.parametrize(("text", "out"), [("STOP 12345", False), ("stop", False), ("ACHA", True)])
def test_a_form_may_have_such_a_word_for_its_code(text: str, out: bool) -> None:
    registers = Registers.of(MemoryDatabase())
    doc = documents.incoming_document(IncomingMessage("africas-talking", "m1", PHONE, text), PHONE, AT)
    assert bool(opt_words.entries([doc], settings.parse({"forms": {"STOP": {"meta": {}}}}), registers)) is out


def test_a_word_in_both_lists_opts_out() -> None:
    assert [entry.value for entry in said("STOP", opt_in_words=["STOP"])] == [OPTED_OUT]


@pytest.mark.parametrize(
    ("gateway", "sender", "number"),
    [
        ("viber", USER, PHONE),
        ("viber", "somebody else", "somebody else"),
        ("textbee", PHONE, PHONE),
        ("textbee", USER, USER),
        ("medic-gateway", PHONE, PHONE),
    ],
)
def test_it_is_said_of_the_number(gateway: str, sender: str, number: str) -> None:
    (entry,) = said("STOP", sender, gateway)
    assert entry.number == number


def test_the_history_says_which_word_it_was() -> None:
    assert said("acha")[0].source == "the person wrote ACHA"


@pytest.mark.parametrize(
    ("facts", "at"),
    [
        ({"reported_date": "2026-01-01T06:04:45.123Z"}, AT),
        ({"reported_date": AT, "from": 22000}, AT),
        ({"reported_date": None}, None),
    ],
)
def test_documents_that_other_programs_wrote(facts: dict[str, Any], at: int | None) -> None:
    """One odd document must not stop every other message."""
    doc = documents.incoming_document(IncomingMessage("x", "m1", PHONE, "STOP"), PHONE, AT) | facts
    before = documents.milliseconds(states.now())
    (entry,) = opt_words.entries([doc], settings.parse({}), Registers.of(MemoryDatabase()))
    assert entry.number == str(facts.get("from", PHONE))
    assert entry.at == at or (at is None and entry.at >= before)
