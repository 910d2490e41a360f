"""Dates in messages, written as CHT's settings say: its formats are those of moment.js, most of which arrow has too."""

import re
from datetime import UTC, datetime

import arrow

# What arrow lacks, or means otherwise: https://momentjs.com/docs/#/displaying/format/. What stands in brackets is text.
TOKENS = re.compile(r"\[[^\]]*\]|LTS?|L{1,4}|l{1,4}|ZZ?|d{1,4}")
IN_ARROW = {
    "LT": "h:mm A",
    "LTS": "h:mm:ss A",
    "L": "MM/DD/YYYY",
    "LL": "MMMM D, YYYY",
    "LLL": "MMMM D, YYYY h:mm A",
    "LLLL": "dddd, MMMM D, YYYY h:mm A",
    "l": "M/D/YYYY",
    "ll": "MMM D, YYYY",
    "lll": "MMM D, YYYY h:mm A",
    "llll": "ddd, MMM D, YYYY h:mm A",
    "Z": "ZZ",
    "ZZ": "Z",
    "dd": "ddd",
}


def written(value: str, pattern: str, locale: str) -> str:
    """The moment in `value` (ms since epoch, or ISO 8601) by `pattern`, in this machine's time zone as CHT does.

    The names of months and days are in the language `locale`, or in English if arrow does not know it. What is no
    moment stays as it is.
    """
    value = value.strip()
    try:
        if re.fullmatch(r"-?\d+", value):
            at = datetime.fromtimestamp(int(value) / 1000, UTC)
        else:
            at = datetime.fromisoformat(value)  # without a zone a local time: a date must not become the day before
        moment = arrow.get(at.astimezone())
    except (ValueError, OverflowError, OSError):
        return value
    in_arrow = TOKENS.sub(lambda token: IN_ARROW.get(token[0], token[0]), pattern)
    try:
        return moment.format(in_arrow, locale)
    except ValueError:
        return moment.format(in_arrow)
