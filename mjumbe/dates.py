"""Dates in messages, written as CHT's settings say: its formats are those of the library moment."""

import re
from datetime import UTC, datetime

from mjumbe.documents import read_moment

TOKEN = re.compile(r"\[([^\]]*)\]|YYYY|YY|MMMM|MMM|MM|M|Do|DD|D|dddd|ddd|HH|H|hh|h|mm|m|ss|s|A|a")
MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
ENDINGS = {1: "st", 2: "nd", 3: "rd", 21: "st", 22: "nd", 23: "rd", 31: "st"}


def written(value: str, pattern: str) -> str:
    """The moment in `value` (ms since epoch, or ISO 8601) by `pattern`, in this machine's time zone as CHT does; what
    is no moment stays as it is."""
    value = value.strip()
    try:
        ms = read_moment(int(value)) if re.fullmatch(r"-?\d+", value) else None
        # Without a zone it is a local time: a date alone must not become the day before.
        at = datetime.fromisoformat(value) if ms is None else datetime.fromtimestamp(ms / 1000, UTC)
        return _format(at.astimezone(), pattern)
    except (ValueError, OverflowError, OSError):
        return value


def _format(at: datetime, pattern: str) -> str:
    hour = at.hour % 12 or 12
    month, day, half = MONTHS[at.month - 1], DAYS[at.weekday()], "AM" if at.hour < 12 else "PM"
    parts = {
        "YYYY": f"{at.year:04}",
        "YY": f"{at.year % 100:02}",
        "MMMM": month,
        "MMM": month[:3],
        "MM": f"{at.month:02}",
        "M": str(at.month),
        "Do": f"{at.day}{ENDINGS.get(at.day, 'th')}",
        "DD": f"{at.day:02}",
        "D": str(at.day),
        "dddd": day,
        "ddd": day[:3],
        "HH": f"{at.hour:02}",
        "H": str(at.hour),
        "hh": f"{hour:02}",
        "h": str(hour),
        "mm": f"{at.minute:02}",
        "m": str(at.minute),
        "ss": f"{at.second:02}",
        "s": str(at.second),
        "A": half,
        "a": half.lower(),
    }
    return TOKEN.sub(lambda found: found[1] if found[1] is not None else parts[found[0]], pattern)
