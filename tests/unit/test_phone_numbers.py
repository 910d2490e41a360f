"""Phone numbers: spellings, refusals (CHT's own table of cases among them), and what a log may show."""

import pytest

from mjumbe.phone_numbers import (
    Refusal,
    canonical,
    ending,
    masked,
    normalise,
    number_to_send_to,
    refusal,
    replace_prefix,
)
from mjumbe.settings import parse

NORMALISED = [
    ("+254711000111", "+254711000111"),
    ("0711 000 111", "+254711000111"),
    (" 0711-000-111 ", "+254711000111"),
    ("711000111", "+254711000111"),
    ("254711000111", "+254711000111"),
    ("00254711000111", "+254711000111"),
    ("000254711000111", "+254711000111"),  # Kenya's own international prefix has three zeros
    ("+254 (711) 000.111", "+254711000111"),
    ("+254 711 000 111", "+254711000111"),
    ("(+254) 711 000 111", "+254711000111"),
    ("(+254711000111", "+254711000111"),
    ("(0)711 000 111", "+254711000111"),
    ("＋254711000111", "+254711000111"),
    ("\u202a+254711000111\u202c", "+254711000111"),
    ("\u200e0711 000\u200b111", "+254711000111"),
    ("٠٧١١٠٠٠١١١", "+254711000111"),
    ("+447700900123", "+447700900123"),
    ("+6591234567", "+6591234567"),  # as long as Kenya's own with their zero
    ("254711000111.0", "+254711000111"),
    ("711000111.0", "+254711000111"),
    ("447700900123", "+447700900123"),  # too long for Kenya, so it brings its country code
    ("+640275552636", "+64275552636"),
    ("SAFARICOM", None),
    ("1-800-FLOWERS", None),
    ("+254711XXXYYY", None),
    ("20880", None),
    ("999", None),
    ("+254", None),
    ("+", None),
    ("0", None),
    ("", None),
    ("   ", None),
    ("+2547110001112345", None),
    ("+99999999999", None),
    ("+254711000111;ext=3", None),
    ("+254711000111,+254711000112", None),
    ("+254+711000111", None),
    ("((+254) 711 000 111", None),
    ("(+", None),
    ("+254711000111 😀", None),
]


@pytest.mark.parametrize(("number", "expected"), NORMALISED)
def test_normalise(number: str, expected: str | None) -> None:
    assert normalise(number, "254") == expected
    assert canonical(number, "254") == (expected or number.strip())


def test_normalise_in_other_countries() -> None:
    assert normalise("(202) 555-0123", "1") == "+12025550123"
    assert normalise("0712 345678", "256") == "+256712345678"
    assert normalise("0712 345678", "999") is None
    assert normalise("254711000111", "999") == "+254711000111"
    assert normalise("254711000111", "7") == "+254711000111", "Russia's have 10 digits or 14"


@pytest.mark.parametrize(
    ("number", "country_code"), [("97123456", "229"), ("22997123456", "229"), ("57123456", "225"), ("39123456", "256")]
)
def test_what_is_too_short_for_its_country_is_not_another_countrys(number: str, country_code: str) -> None:
    assert normalise(number, country_code) is None


def test_normal_form_stays_as_it_is() -> None:
    for _, number in NORMALISED:
        if number:
            assert normalise(number, "1") == number


@pytest.mark.parametrize(
    ("number", "end"),
    [
        ("+254711000111", "1000111"),
        ("0711 000-111", "1000111"),
        ("100-0111", "1000111"),
        ("00254 711 000 111", "1000111"),
        ("22000", "22000"),
        ("22-000", "22-000"),
        ("SAFARICOM", "SAFARICOM"),
        ("SAFARICOM 2", "SAFARICOM 2"),
        ("", ""),
    ],
)
def test_ending(number: str, end: str) -> None:
    assert ending(number) == end


@pytest.mark.parametrize(
    ("number", "shown"),
    [("+254711000111", "**********111"), ("20880", "**880"), ("999", "***"), ("", ""), ("SAFARICOM", "******COM")],
)
def test_masked(number: str, shown: str) -> None:
    assert masked(number) == shown


@pytest.mark.parametrize(
    ("number", "match", "replace", "expected"),
    [
        ("+254711", "+254", "0", "0711"),
        ("159841125", "15", "2", "29841125"),
        ("+254711", "254", "0", "+254711"),
        ("+254711", "", "0", "+254711"),
        ("+254711", "+254", "", "711"),
    ],
)
def test_replace_prefix(number: str, match: str, replace: str, expected: str) -> None:
    assert replace_prefix(number, match, replace) == expected


@pytest.mark.parametrize(
    ("written", "match", "replace", "expected"),
    [
        ("0711000111", "+254", "+256", "+256711000111"),
        ("+254711000111", "+254", "0", "+254711000111"),
        ("+254 711 000111", "+25471", "+25478", "+254781000111"),
        ("+254711000111", "+255", "0", "+254711000111"),
        ("20880", "2", "3", "30880"),
    ],
)
def test_what_was_replaced_is_a_number_in_full_again(written: str, match: str, replace: str, expected: str) -> None:
    """In another spelling the person's opt-out would not be found, nor the service's answer for it."""
    values = {"default_country_code": "254", "outgoing_phone_replace": {"match": match, "replace": replace}}
    assert number_to_send_to(written, parse(values)) == expected


OFF = {"outgoing_deny_shorter_than": 0, "outgoing_deny_with_alphas": False}
# Setting, its value, number, whether it is refused: as in CHT's unit tests of isOutgoingAllowed.
CHT_CASES = [
    ("outgoing_deny_list", "+123", "+123", True),
    ("outgoing_deny_list", "+123", "+123999999", True),
    ("outgoing_deny_list", "SAFARI", "SAFARICOM", True),
    ("outgoing_deny_list", " SAFARI", "SAFARICOM", True),
    ("outgoing_deny_list", "SAFARI", " SAFARICOM", True),
    ("outgoing_deny_list", "Safari", "SAFARICOM", True),
    ("outgoing_deny_list", "+123,+456,+789", "+4569999999", True),
    ("outgoing_deny_list", "SAFARI, ORANGE", "ORANGE NET", True),
    ("outgoing_deny_list", "0", "0000123", True),
    ("outgoing_deny_list", "0", "0", True),
    ("outgoing_deny_list", "1, , 2", "234", True),
    ("outgoing_deny_list", "+123", "+999", False),
    ("outgoing_deny_list", "SAFARI, ORANGE NET", "ORANGE", False),
    ("outgoing_deny_list", "VIVO", "EM VIVO", False),
    ("outgoing_deny_list", "0", "-1", False),
    ("outgoing_deny_list", "snarf", "", False),
    ("outgoing_deny_list", "", "+123", False),
    ("outgoing_deny_list", ",", "", False),
    ("outgoing_deny_list", None, "+123", False),
    ("outgoing_deny_with_alphas", True, "ORANGE", True),
    ("outgoing_deny_with_alphas", True, "orange", True),
    ("outgoing_deny_with_alphas", True, "+23x", True),
    ("outgoing_deny_with_alphas", True, "+123", False),
    ("outgoing_deny_with_alphas", True, "", False),
    ("outgoing_deny_with_alphas", False, "ORANGE", False),
    ("outgoing_deny_shorter_than", 5, "+123", True),
    ("outgoing_deny_shorter_than", "5", "ABCD", True),
    ("outgoing_deny_shorter_than", "5", " ABCD ", True),
    ("outgoing_deny_shorter_than", 0, "+123", False),
    ("outgoing_deny_shorter_than", "5", "12345", False),
    ("outgoing_deny_shorter_than", 5, "", False),
    ("outgoing_deny_list", "253", "+25377123456", False),
    ("gateway_number", "+254700000000", "+254700000000", True),
    ("gateway_number", "+640275552636", "64-27-555-2636", True),
    ("gateway_number", "+640275552637", "64-27-555-2636", False),
    ("gateway_number", "+41446681800", "446681800", True),
    # Ours, beyond CHT's:
    ("gateway_number", "+254711000111", "0711000111", True),
    ("gateway_number", "20880", "20880", True),
    ("gateway_number", "20880", "+254711020880", False),
    ("gateway_number", "0711MJUMBE", "0711658623", False),  # the same on a telephone's keys
    ("gateway_number", "", "+254700000000", False),
    ("outgoing_deny_list", "+254711", "0711000111", True),
    ("outgoing_deny_list", "+254711", "00254 711 000111", True),
    ("outgoing_deny_list", "0711", "0711000111", True),
    ("outgoing_deny_list", "+254711", "0722000111", False),
    ("outgoing_deny_with_alphas", True, "МТС", True),
]


@pytest.mark.parametrize(("key", "value", "number", "refused"), CHT_CASES)
def test_refusals_are_chts(key: str, value: object, number: str, refused: bool) -> None:
    assert bool(refusal(number, parse(OFF | {key: value}))) is refused


SENTENCES = [
    ({}, "+254711000111,+254711000112", "several", "is not one number"),
    ({}, "0711000111; 0711000112", "several", "is not one number"),
    ({"outgoing_deny_with_alphas": False}, "Amina, Juma", "several", "is not one number"),
    ({"gateway_number": "0711000111"}, "+254711000111", "gateway_number", "is gateway_number, our own number"),
    ({}, "20880", "too_short", "has 5 characters; outgoing_deny_shorter_than is 6"),
    ({}, "SAFARICOM", "alphas", "has letters, and outgoing_deny_with_alphas is set"),
    ({"outgoing_deny_list": "1, +2547110"}, "+254711000111", "deny_list", "begins with +2547110, which is in"),
]


@pytest.mark.parametrize(("values", "number", "code", "words"), SENTENCES)
def test_refusals_say_why_without_the_number(values: dict[str, object], number: str, code: str, words: str) -> None:
    refused = refusal(number, parse(values))
    assert isinstance(refused, Refusal)
    assert refused.code == code
    assert words in refused.reason
    assert number not in refused.reason


def test_ordinary_numbers_are_written_to() -> None:
    assert refusal("+254711000111", parse({})) is None
