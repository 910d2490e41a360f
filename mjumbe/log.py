"""Logging for all processes: one line an event on standard error, as JSON or for people, and never a secret in it.

`structlog.get_logger()` is how our code logs; what libraries log through `logging` takes the same way. Keys, passwords
and phone numbers are hidden here, whoever logs them; message texts are not logged at all.
"""

import logging
import os
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from io import TextIOBase
from typing import Any, TextIO, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from mjumbe import phone_numbers
from mjumbe.config import log_format, log_level, log_numbers

HIDDEN = "***"
SECRET_FIELDS = frozenset({"key", "api_key", "apikey", "authorization", "cookie", "password", "secret", "token"})
# In texts: request lines and URLs (`?key=…`), headers as they are printed, and passwords in URLs; whatever may be
# percent-encoded, also more than once. A key's name begins where no letter is before it, but that of a `%3F` (monkey=).
SECRET_TEXTS = (
    (
        re.compile(
            r"((?:(?<![a-z])|(?<=\d[a-f]))(?:api_?)?(?:k|%(?:25)*[46]b)(?:e|%(?:25)*[46]5)(?:y|%(?:25)*[57]9)"
            r"|password|secret|token)(=|%(?:25)*3d)[^&\s\"'<>]*",
            re.IGNORECASE,
        ),
        rf"\1\2{HIDDEN}",
    ),
    # To the line's end: logins and cookies may have commas.
    (
        re.compile(
            r"\b((?:proxy-)?authorization|(?:set-)?cookie|apikey|x-[a-z-]{0,30}(?:key|token))"
            r"(['\"]?\s*[:=]\s*)(b?['\"][^'\"]*['\"]|[^\r\n}]*)",
            re.IGNORECASE,
        ),
        rf"\1\2{HIDDEN}",
    ),
    (
        re.compile(r"(['\"](?:password|secret|\w*token|key)['\"]\s*:\s*)(?:b?'[^']*'|\"[^\"]*\")", re.IGNORECASE),
        rf"\1{HIDDEN}",
    ),
    # To the last @: a password may have slashes and @ that nobody escaped.
    (re.compile(r"(://[^/@\s:]*):[^\s\"'<>]*@"), rf"\1:{HIDDEN}@"),
    (re.compile(r"(%(?:25)*3a)[^\s\"'<>]{1,200}(%(?:25)*40)", re.IGNORECASE), rf"\1{HIDDEN}\2"),
)
MARKS = ("=", ":", "%")  # one of them is in whatever SECRET_TEXTS finds; most texts have none, and there are many
# Numbers as E.164 has them, with or without their plus, also as URLs and our ids write it. What touches letters, dashes
# or dots is part of another id, a moment or a fraction.
NUMBERS = re.compile(r"(?:(?<![\w.-])\+?|(?<=%[0-9A-F]{2})|(?<=%252B))\d{9,15}(?![\w-])", re.IGNORECASE)
# As people write them, with a plus or a zero before: dates begin otherwise.
GROUPED = re.compile(r"(?<![\w.-])(?:\+|0)\d{1,4}(?:[ -]\d{2,9}){1,5}(?![\w-])")
FEWEST_DIGITS = 9
# What would begin another line, or make a terminal do something, in the logs for people; JSON escapes it by itself.
CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
QUIET = ("urllib3", "ibm_cloud_sdk_core", "ibm-cloud-sdk-core", "ibmcloudant", "gunicorn", "asyncio")
# Warns of an answer's head that cannot be read, and shows it: a captive portal's may repeat the message.
QUIETER = "urllib3.connection"


def configure(stream: TextIO | None = None) -> None:
    """Set logging up for this process, as MJUMBE_LOG, MJUMBE_LOG_LEVEL and MJUMBE_LOG_NUMBERS say: phone numbers are
    masked but for their last digits unless the last one is `full`. Safe to call again. Raises ConfigError.

    `stream` is standard error unless given.
    """
    form = log_format(os.environ)
    level = logging.getLevelNamesMapping()[log_level(os.environ).upper()]
    out = cast(TextIO, _Lenient(stream or sys.stderr))
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.format_exc_info,
        hiding(numbers=log_numbers(os.environ) != "full"),
        *([] if form == "json" else [escape_controls]),
        # Ours, so that nothing in them has to be looked for.
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=True, default=str)
        if form == "json"
        else structlog.dev.ConsoleRenderer(colors=out.isatty())
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=out),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    logging.getLogger(QUIETER).setLevel(max(level, logging.ERROR))
    logging.captureWarnings(True)


class _Lenient(TextIOBase):
    """A stream whose failures stop nobody: a full disk under the log must not refuse callbacks or end the sentinel."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()


def hiding(*, numbers: bool) -> Processor:
    """A structlog processor: hides keys, passwords, cookies and Authorization, wherever in the event they are.

    With `numbers`, of phone numbers all but the last digits.
    """
    hidden = (lambda text: mask_numbers(scrub_text(text))) if numbers else scrub_text

    def hide(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        return cast(EventDict, _each_text(event, hidden))

    return hide


def escape_controls(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """A structlog processor: keeps whoever chooses a path or an id from writing lines of their own into the log."""
    return {name: _each_text(value, _indented if name == "exception" else _escaped) for name, value in event.items()}


def _each_text(value: Any, change: Callable[[str], str]) -> Any:
    """`value` with each text in it changed, and what is under a secret's name hidden."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {
            str(name): HIDDEN if str(name).lower() in SECRET_FIELDS else _each_text(inner, change)
            for name, inner in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [_each_text(inner, change) for inner in value]
    return value


def scrub_text(text: str) -> str:
    """`text` with every secret that its form gives away hidden."""
    if not any(mark in text for mark in MARKS):
        return text
    for pattern, replacement in SECRET_TEXTS:
        text = pattern.sub(replacement, text)
    return text


def mask_numbers(text: str) -> str:
    """`text` with phone numbers hidden but for their last digits."""
    if " " in text or "-" in text:
        text = GROUPED.sub(_masked_group, text)
    return NUMBERS.sub(lambda number: phone_numbers.masked(number[0]), text)


def _masked_group(number: re.Match[str]) -> str:
    digits = sum(character.isdigit() for character in number[0])
    return phone_numbers.masked(number[0]) if digits >= FEWEST_DIGITS else number[0]


def _escaped(text: str) -> str:
    return CONTROLS.sub(lambda control: control[0].encode("unicode_escape").decode(), text)


def _indented(traceback: str) -> str:
    """A traceback keeps its lines, none of which can pass for an event's."""
    return "\n".join(f"    {_escaped(line)}" for line in traceback.split("\n"))
