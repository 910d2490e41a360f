"""Translations, words, and what a text costs on the air."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mjumbe import mustache, text
from mjumbe.text import (
    GSM_BASIC,
    GSM_EXTENSION,
    each_text,
    first_word,
    limit_parts,
    parts,
    safe_text,
    translate,
)

COUNTED = [
    ("", "GSM-7", 0, 1),
    ("a" * 160, "GSM-7", 160, 1),
    ("a" * 161, "GSM-7", 161, 2),
    ("a" * 306, "GSM-7", 306, 2),
    ("a" * 307, "GSM-7", 307, 3),
    ("€" * 80, "GSM-7", 160, 1),
    ("€" * 81, "GSM-7", 162, 2),
    # An escape and its character stay together: the first part ends a septet early, and a third part is needed.
    ("a" * 152 + "€" + "a" * 152, "GSM-7", 306, 3),
    ("[]{}\\^~|€\f", "GSM-7", 20, 1),
    ("Ünsal åæø ÄÖ Δ @£$¥", "GSM-7", 19, 1),
    ("ujumbe wa \u00a0", "UCS-2", 11, 1),  # a non-breaking space doubles the price
    ("`", "UCS-2", 1, 1),
    ("ç", "UCS-2", 1, 1),  # the capital is in GSM 03.38, the small letter is not
    ("ш" * 70, "UCS-2", 70, 1),
    ("ш" * 71, "UCS-2", 71, 2),
    ("ш" * 134, "UCS-2", 134, 2),
    ("ш" * 135, "UCS-2", 135, 3),
    ("😀" * 35, "UCS-2", 70, 1),
    ("😀" * 36, "UCS-2", 72, 2),
    ("😀" * 66, "UCS-2", 132, 2),
    ("😀" * 67, "UCS-2", 134, 3),  # 67 units hold 33 emoji: none is split between two parts
    ("a😀", "UCS-2", 3, 1),
]


@pytest.mark.parametrize(("message", "encoding", "units", "count"), COUNTED)
def test_parts(message: str, encoding: str, units: int, count: int) -> None:
    assert parts(message) == text.Parts(encoding, units, count)  # type: ignore[arg-type]


def test_the_alphabet_is_gsm_03_38() -> None:
    assert (len(GSM_BASIC), len(GSM_EXTENSION)) == (127, 10)  # 128 codes, one of which is the escape
    assert not GSM_BASIC & GSM_EXTENSION


LIMITED = [
    ("a" * 160, 1, "a" * 160),
    ("a" * 161, 1, "a" * 157 + "..."),
    ("a" * 306, 2, "a" * 306),
    ("a" * 307, 2, "a" * 303 + "..."),
    ("ш" * 71, 1, "ш" * 67 + "..."),
    ("ш" * 200, 2, "ш" * 131 + "..."),
    ("😀" * 100, 2, "😀" * 63 + "..."),
    ("€" * 81, 1, "€" * 77 + "..."),
]


@pytest.mark.parametrize(("message", "limit", "expected"), LIMITED)
def test_limit_parts(message: str, limit: int, expected: str) -> None:
    assert limit_parts(message, limit) == expected
    assert parts(limit_parts(message, limit)).count <= limit


@given(st.text(alphabet="a€ш😀", min_size=1, max_size=700), st.integers(1, 4))
def test_limited_texts_fit_and_short_ones_are_left_alone(message: str, limit: int) -> None:
    limited = limit_parts(message, limit)
    assert parts(limited).count <= limit
    assert (limited == message) is (parts(message).count <= limit)


WORDS = [
    ("STOP", "stop"),
    ("  Stop, please", "stop"),
    ("stop!now", "stop"),
    ('"STOP".', "stop"),
    ("ＳＴＯＰ", "stop"),
    ("- Stop", "stop"),
    ("\ufeffSTOP", "stop"),
    ("\u200bSTOP\u200b now", "stop"),
    ("STOP\nnow", "stop"),
    ("can't pay", "can't"),
    ("J1!2026", "j1"),
    ("Straße 5", "strasse"),
    ("STRASSE", "strasse"),
    ("नमस्ते।", "नमस्ते"),
    ("قف، شكرا", "قف"),
    *((f"stop{end}now", "stop") for end in ",;:!?،؛؟、，"),
    ("e\u0301te", "\u00e9te"),
    ("", ""),
    (" ... ", ""),
    ("😀", ""),
    ("😀 help", "help"),
]


@pytest.mark.parametrize(("message", "expected"), WORDS)
def test_first_word(message: str, expected: str) -> None:
    assert first_word(message) == expected


def test_the_first_word_of_a_long_text_is_found_at_once() -> None:
    """One that is folded as a whole takes half an hour."""
    assert first_word(" " * 500_000 + "STOP " + "\u0315\u0300" * 250_000) == "stop"


@given(st.text(max_size=60))
def test_first_word_takes_anything(message: str) -> None:
    word = first_word(message)
    assert first_word(word) == word


DOCUMENTS = {"sw": {"hello": "Habari"}, "en": {"hello": "Hello", "sms_received": "Got it"}, "fr": {"hello": ""}}
TRANSLATED = [
    ("hello", "sw", "en", "Habari"),
    ("hello", "sw-KE", "en", "Habari"),
    ("hello", "sw_TZ", "en", "Habari"),
    ("hello", "fr", "sw", "Habari"),  # an empty text is no text
    ("hello", "de", "fr", "Hello"),
    ("sms_received", "en", "en", "Got it"),
    ("sms_received", "sw", "en", "Asante, ujumbe wako umefika."),  # built in comes before another language
    ("nothing", "sw", "en", None),
]


@pytest.mark.parametrize(("key", "locale", "fallback", "expected"), TRANSLATED)
def test_translate(key: str, locale: str, fallback: str, expected: str | None) -> None:
    assert translate(key, locale, fallback, DOCUMENTS) == expected


def test_built_in_texts_are_complete_cheap_and_renderable() -> None:
    builtin = text.builtin_translations()
    assert builtin["en"].keys() == builtin["sw"].keys()
    for texts in builtin.values():
        for message in texts.values():
            assert parts(mustache.render(message, {})).count == 1
            assert parts(message).encoding == "GSM-7"


def test_read_translations() -> None:
    doc = {
        "_id": "messages-sw",
        "type": "translations",
        "code": "sw",
        "generic": {"a": "1", "b": "2", "n": 3, "empty": ""},
        "custom": {"b": "mine"},
    }
    assert text.read_translations(doc) == ("sw", {"a": "1", "b": "mine"})
    assert text.read_translations({"_id": "messages-fr", "type": "translations"}) == ("fr", {})
    assert text.read_translations({"type": "translations", "code": "ne", "values": {"a": "1"}}) == ("ne", {"a": "1"})
    with pytest.raises(ValueError, match="document 'x' has type 'person'; expected 'translations'"):
        text.read_translations({"_id": "x", "type": "person"})


@pytest.mark.parametrize(
    ("given_text", "safe_one"),
    [
        ("", ""),
        ("plain", "plain"),
        ("\ud83d\ude00", "😀"),
        ("a\ud83db", "a\ufffdb"),
        ("\ude00\ud83d", "\ufffd\ufffd"),
        ("\0", "\0"),
        ("\ufeffx", "\ufeffx"),
    ],
)
def test_safe_text(given_text: str, safe_one: str) -> None:
    assert safe_text(given_text) == safe_one


@given(st.recursive(st.text(st.characters(exclude_categories=())), st.lists))
def test_safe_values_can_be_written(value: object) -> None:
    assert json.dumps(each_text(value, safe_text), ensure_ascii=False).encode()


def test_the_names_of_a_safe_object_are_safe() -> None:
    assert each_text({"a\ud83d": [{"\ude00": 1}, None, True]}, safe_text) == {"a\ufffd": [{"\ufffd": 1}, None, True]}


@pytest.mark.parametrize(("given_text", "most", "kept"), [("", 1, ""), ("abc", 3, "abc"), ("abcd", 3, "ab…")])
def test_shortened(given_text: str, most: int, kept: str) -> None:
    assert text.shortened(given_text, most) == kept
