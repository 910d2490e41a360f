"""Logging for all processes: one line an event on standard error, as JSON or for people, and never a secret in it.

`structlog.get_logger()` is how our code logs; what libraries log through `logging` takes the same way. Phone numbers
are masked by whoever logs them (`phone.masked`), message texts are not logged at all.
"""

import logging
import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from io import TextIOBase
from typing import Any, TextIO, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from mjumbe.config import LogFormat, log_level

HIDDEN = "***"
SECRET_FIELDS = frozenset({"key", "api_key", "apikey", "authorization", "cookie", "password", "secret", "token"})
# In texts: request lines and URLs (`?key=…`), headers as they are printed, and passwords in URLs.
SECRET_TEXTS = (
    (re.compile(r"(?<![A-Za-z])((?:api_?)?key|password|token)(=|%3d)[^&\s\"'<>]*", re.IGNORECASE), rf"\1\2{HIDDEN}"),
    (
        re.compile(
            r"\b((?:proxy-)?authorization|(?:set-)?cookie|apikey|x-api-key)(['\"]?\s*[:=]\s*)(b?['\"][^'\"]*['\"]|[^\r\n,}]*)",
            re.IGNORECASE,
        ),
        rf"\1\2{HIDDEN}",
    ),
    (re.compile(r"(://[^/@\s:]*):[^/@\s]*@"), rf"\1:{HIDDEN}@"),
)
QUIET = ("urllib3", "ibm_cloud_sdk_core", "ibm-cloud-sdk-core", "ibmcloudant", "gunicorn", "asyncio")


def configure(form: LogFormat, stream: TextIO | None = None) -> None:
    """Set logging up for this process; `stream` is standard error unless given. Safe to call again.

    The least that is logged is what MJUMBE_LOG_LEVEL says. Raises ConfigError.
    """
    level = logging.getLevelNamesMapping()[log_level(os.environ).upper()]
    out = cast(TextIO, _Lenient(stream or sys.stderr))
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        scrub,
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
    logging.captureWarnings(True)


class _Lenient(TextIOBase):
    """A stream whose failures stop nobody: a full disk under the log must not refuse webhooks or end the sentinel."""

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


def scrub(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """A structlog processor: hides keys, passwords, cookies and Authorization, wherever in the event they are."""
    return {name: HIDDEN if name.lower() in SECRET_FIELDS else _scrubbed(value) for name, value in event.items()}


def _scrubbed(value: Any) -> Any:
    if isinstance(value, str):
        return scrub_text(value)
    if isinstance(value, Mapping):
        return scrub(None, "", {str(name): inner for name, inner in value.items()})
    if isinstance(value, list | tuple | set | frozenset):
        return [_scrubbed(inner) for inner in value]
    return value


def scrub_text(text: str) -> str:
    """`text` with every secret that its form gives away hidden."""
    for pattern, replacement in SECRET_TEXTS:
        text = pattern.sub(replacement, text)
    return text
