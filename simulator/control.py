"""The switches of a running simulator: what it does wrong, how slowly, and where its callbacks go."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from simulator.config import SimulatorConfig

MASK = "***"
_SECRET_IN_QUERY = re.compile(r"([?&]key=)[^&#]*", re.IGNORECASE)
_SECRET_IN_AUTHORITY = re.compile(r"(//[^/:@]*:)[^/@]*(@)")


@dataclass(frozen=True)
class Control:
    """The state of every switch. A change makes a new one (`changed`)."""

    latency_ms: int = 0  # between accepting a request and answering it
    error_rate: float = 0.0  # the share of requests answered with error_status, spread evenly, not at random
    error_status: int = 500
    down: bool = False  # every connection to the service is closed at once
    unauthorized: bool = False  # every key is wrong
    no_balance: bool = False  # every recipient gets InsufficientBalance
    never_answer: bool = False  # requests are read, not accepted, and never answered
    drop_after_accept: bool = False  # messages are accepted, then the connection is closed without an answer
    answer_body: str | None = None  # the send answer's body, instead of a real one; nothing is accepted
    number_faults: bool = True  # whether the last digits of a number choose a fault
    reports: bool = True  # whether delivery reports are made
    report_delay_ms: int = 500  # before each delivery report of an accepted message
    late_report_ms: int = 30_000
    report_steps: tuple[str, ...] = ("Success",)  # the reports of an ordinary number, in order
    incoming_url: str | None = field(default=None, repr=False)
    reports_url: str | None = field(default=None, repr=False)
    opt_out_url: str | None = field(default=None, repr=False)
    subscription_url: str | None = field(default=None, repr=False)
    textbee_url: str | None = field(default=None, repr=False)
    viber_url: str | None = field(default=None, repr=False)
    rapidpro_url: str | None = field(default=None, repr=False)
    wrong_signatures: bool = False  # what proves a callback of TextBee, Viber and RapidPro is wrong

    @classmethod
    def at_start(cls, config: SimulatorConfig) -> Control:
        """The switches as the command line set them."""
        return changed(
            cls(),
            {
                "latency_ms": config.latency_ms,
                "report_delay_ms": config.report_delay_ms,
                "late_report_ms": config.late_report_ms,
                **{name: getattr(config, name) for name in _URLS},
            },
        )

    def shown(self) -> dict[str, Any]:
        """The switches as JSON, with the secrets in the URLs masked."""
        shown = asdict(self)
        for name in _URLS:
            if shown[name] is not None:
                shown[name] = mask_url(shown[name])
        return shown


class BadField(ValueError):
    """A field of a request to the simulator's own endpoints has a value that it cannot have."""

    def __init__(self, name: str, expected: str) -> None:
        super().__init__(f"{name}: expected {expected}")
        self.field = name
        self.expected = expected


@dataclass(frozen=True)
class _Check:
    expected: str
    accepts: Callable[[Any], bool]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_url(value: Any) -> bool:
    """Whether `value` is a URL that can be posted to; a masked one cannot."""
    if not isinstance(value, str) or MASK in value:
        return False
    try:
        parts = urlsplit(value)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _is_steps(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) <= 20 and all(isinstance(s, str) and s for s in value)


_BOOLEAN = _Check("true or false", lambda value: isinstance(value, bool))
_DELAY = _Check(
    "a whole number of milliseconds from 0 to 600000", lambda value: _is_integer(value) and 0 <= value <= 600_000
)
_URL = _Check(
    "null or an http:// or https:// URL with its whole key (*** is how it is shown)",
    lambda value: value is None or is_url(value),
)
_URLS = tuple(each.name for each in fields(Control) if each.name.endswith("_url"))
_CHECKS: Mapping[str, _Check] = {
    "latency_ms": _DELAY,
    "error_rate": _Check("a number from 0 to 1", lambda value: _is_number(value) and 0 <= value <= 1),
    "error_status": _Check("an HTTP status from 400 to 599", lambda value: _is_integer(value) and 400 <= value <= 599),
    "down": _BOOLEAN,
    "unauthorized": _BOOLEAN,
    "no_balance": _BOOLEAN,
    "never_answer": _BOOLEAN,
    "drop_after_accept": _BOOLEAN,
    "answer_body": _Check("null or a string", lambda value: value is None or isinstance(value, str)),
    "number_faults": _BOOLEAN,
    "reports": _BOOLEAN,
    "report_delay_ms": _DELAY,
    "late_report_ms": _DELAY,
    "report_steps": _Check("a list of at most 20 report statuses", _is_steps),
    **dict.fromkeys(_URLS, _URL),
    "wrong_signatures": _BOOLEAN,
}


def changed(control: Control, changes: Mapping[str, Any]) -> Control:
    """`control` with `changes` applied, or BadField for the first unknown name or impossible value."""
    for name, value in changes.items():
        check = _CHECKS.get(name)
        if check is None:
            raise BadField(name, f"one of {', '.join(_CHECKS)}")
        if not check.accepts(value):
            raise BadField(name, check.expected)
    values: dict[str, Any] = {n: tuple(value) if isinstance(value, list) else value for n, value in changes.items()}
    return replace(control, **values)


@lru_cache(maxsize=64)
def mask_url(url: str) -> str:
    """`url` without the value of its `key` parameter and without a password."""
    return _SECRET_IN_AUTHORITY.sub(rf"\1{MASK}\2", _SECRET_IN_QUERY.sub(rf"\1{MASK}", url))
