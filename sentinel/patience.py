"""Waiting for CouchDB, which may be away for hours: said once for each reason, not once a second."""

import structlog

log = structlog.get_logger(__name__)


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
