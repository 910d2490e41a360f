"""Waiting for CouchDB, which may be away for hours: said once for each reason, not once a second."""

import time
from collections.abc import Callable
from typing import TypeVar

import structlog

from mjumbe.couch import CouchError, UnavailableError

PAUSE_SECONDS = 1.0

log = structlog.get_logger(__name__)

Result = TypeVar("Result")


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

    def insist(self, work: Callable[[], Result]) -> Result:
        """Do what needs CouchDB, however long it is away or has something else against us: that passes too."""
        while True:
            try:
                result = work()
            except (UnavailableError, CouchError) as error:
                self.waits(error)
                time.sleep(PAUSE_SECONDS)
            else:
                self.is_over()
                return result
