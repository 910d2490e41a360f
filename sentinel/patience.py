"""Waiting for CouchDB, which may be away for hours: said once for each reason, not once a second."""

import threading
from collections.abc import Callable
from typing import TypeVar

import structlog

from mjumbe.couch import CouchError, UnavailableError

PAUSE_SECONDS = 1.0

log = structlog.get_logger(__name__)

Result = TypeVar("Result")


class GivenUpError(Exception):
    """What CouchDB did not do while somebody waited for it; the message says why not."""


class Patience:
    """What one thread says in the log of its waiting: `what` is a sentence, such as "changes wait for CouchDB"."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._reason: str | None = None

    def waits(self, error: Exception, **facts: object) -> None:
        """CouchDB does not do what was asked of it; it will be asked again."""
        if str(error) != self._reason:
            self._reason = str(error)
            log.warning(self._what, reason=self._reason, **facts)

    def is_over(self) -> None:
        """CouchDB did it."""
        if self._reason is not None:
            self._reason = None
            log.info(f"no longer: {self._what}")

    def insist(self, work: Callable[[], Result], given_up: threading.Event) -> Result:
        """Do what needs CouchDB, however long it is away or has something else against us: that passes too.

        Once `given_up` is set, it is tried no more than once. Raises GivenUpError.
        """
        while True:
            try:
                result = work()
            except (UnavailableError, CouchError) as error:
                if given_up.is_set():
                    raise GivenUpError(str(error)) from None
                self.waits(error)
                given_up.wait(PAUSE_SECONDS)
            else:
                self.is_over()
                return result
