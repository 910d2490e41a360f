"""Dates in messages, written as CHT's settings say: its formats are those of moment.js, which arrow understands."""

import re
from datetime import UTC, datetime

import arrow


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
    try:
        return moment.format(pattern, locale)
    except ValueError:
        return moment.format(pattern)
