"""Dates in messages, by the formats in CHT's settings."""

import time
from collections.abc import Iterator

import pytest

from sentinel import dates


@pytest.fixture(autouse=True)
def _in_nairobi(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Africa/Nairobi")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("value", "pattern", "text"),
    [
        ("1767214800000", "D MMM, YYYY", "1 Jan, 2026"),
        ("1767214799000", "DD-MMM-YYYY HH:mm:ss", "31-Dec-2025 23:59:59"),
        ("2026-03-02", "D MMM, YYYY", "2 Mar, 2026"),
        ("2026-03-02T22:30:00.000Z", "dddd ddd Do MMMM M MM YY", "Tuesday Tue 3rd March 3 03 26"),
        ("2026-03-11T12:05:09+03:00", "Do h:mm A hh:m a H s", "11th 12:05 PM 12:5 pm 12 9"),
        (" 2026-03-02T00:00:00 ", "[le] D [of] h a", "le 2 of 12 am"),
        ("2026-03-02T22:30:05", "L LT|LTS|[L] LL", "03/02/2026 10:30 PM|10:30:05 PM|L March 2, 2026"),
        ("2026-03-02T22:30:05", "LLL|LLLL", "March 2, 2026 10:30 PM|Monday, March 2, 2026 10:30 PM"),
        ("2026-03-02T22:30:05", "l|ll|lll|llll", "3/2/2026|Mar 2, 2026|Mar 2, 2026 10:30 PM|Mon, Mar 2, 2026 10:30 PM"),
        ("2026-03-02", "dd ddd Z ZZ", "Mon Mon +03:00 +0300"),
        ("soon", "D MMM", "soon"),
        ("", "D MMM", ""),
        ("99999999999999999999", "D MMM", "99999999999999999999"),
    ],
)
def test_written(value: str, pattern: str, text: str) -> None:
    assert dates.written(value, pattern, "en") == text


@pytest.mark.parametrize(
    ("locale", "text"),
    [("sw", "Jumanne 3 Machi"), ("fr", "mardi 3 mars"), ("am", "ማክሰኞ 3 ማርች"), ("bm", "Tuesday 3 March")],
)
def test_in_the_language_of_the_message(locale: str, text: str) -> None:
    assert dates.written("2026-03-03", "dddd D MMMM", locale) == text
