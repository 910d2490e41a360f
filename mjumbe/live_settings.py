"""The settings as they are now: read from the `settings` document, picked up without a restart.

Somebody can write anything into that document: a key that is wrong keeps the value it had before (its default when
there was none), all others apply, and the problems are there for health checks.
"""

import copy
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog

from mjumbe import settings
from mjumbe.couch import CouchError, Database, UnavailableError
from mjumbe.seldom import Seldom
from mjumbe.settings import Problem, Settings, SettingsError
from mjumbe.settings_document import DOCUMENT_ID

# Taking a wrong key out can bring the next to light: a list whose entry was wrong, an object that now lacks a key.
ROUNDS = 5
SOON_SECONDS = 2.0  # the age from which on `fresh` and `refresh_soon` read them

log = structlog.get_logger()


class LiveSettings:
    """The last good settings. Used by many threads at once."""

    def __init__(
        self, database: Database, changed: Callable[[Mapping[str, Any]], object] = lambda values: None
    ) -> None:
        """`database` is the main one, with the document `settings`. Reads nothing yet.

        `changed` is told what comes into force, as `recall` takes it.
        """
        self._database = database
        self._changed = changed
        self._lock = threading.Lock()
        self._current = Settings()
        self._values: Mapping[str, Any] = {}
        self._rev: str | None = None
        self._problems: tuple[Problem, ...] = ()
        self._read_at: float | None = None
        self._failed_at = -math.inf  # when `refresh_soon` last could not read them
        self._seldom = Seldom()

    @property
    def current(self) -> Settings:
        """The last good settings, without any I/O; the defaults before the first `refresh`."""
        return self._current

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is wrong in the document, key by key; empty when all of it is in force."""
        return self._problems

    def loaded(self) -> Settings:
        """`current`, read first when it never was. Raises UnavailableError when that cannot be done."""
        return self._current if self._read_at is not None else self.refresh()

    def recall(self, values: Mapping[str, Any]) -> None:
        """Let these be in force, from an earlier process, until the document is read."""
        self._take(values)
        self._read_at = -math.inf

    def refresh(self) -> Settings:
        """Read the document and return what is in force now. Raises UnavailableError; the last good ones stay."""
        with self._lock:
            return self._refresh()

    def refresh_if_older(self, seconds: float) -> Settings:
        """`refresh`, when the last one was `seconds` ago or longer. Raises UnavailableError."""
        with self._lock:
            return self._refresh() if self._is_older(seconds) else self._current

    def fresh(self) -> Settings:
        """What is in force, read first when the last reading was SOON_SECONDS ago: somebody may have changed it by
        another process.

        While CouchDB is away the last good ones, and it is not asked at every request. Raises UnavailableError when
        they were never read.
        """
        if self._is_stale():
            with self._lock:
                if self._is_stale():  # who had the lock before may have read them
                    self._try_refresh()
        return self.loaded()

    def refresh_soon(self) -> None:
        """`refresh` in a thread of its own, if they are not fresh: never waits, and CouchDB may be away.

        Then it is not asked again at every request.
        """
        if self._is_stale() and self._lock.acquire(blocking=False):
            threading.Thread(target=self._refresh_and_release, name="settings", daemon=True).start()

    def _is_stale(self) -> bool:
        failed_lately = time.monotonic() - self._failed_at < SOON_SECONDS
        return self._is_older(SOON_SECONDS) and not failed_lately

    def _is_older(self, seconds: float) -> bool:
        return self._read_at is None or time.monotonic() - self._read_at >= seconds

    def _try_refresh(self) -> None:
        try:
            self._refresh()
        except (UnavailableError, CouchError) as error:
            self._failed_at = time.monotonic()
            self._seldom(log.info, "settings not read, the last good ones stay", str(error))

    def _refresh_and_release(self) -> None:
        try:
            self._try_refresh()
        finally:
            self._lock.release()

    def _refresh(self) -> Settings:
        doc = self._database.get(DOCUMENT_ID)
        if doc is None and self._read_at is None:
            raise UnavailableError(f"the document {DOCUMENT_ID} is not there yet")
        # One that somebody deleted is as one without settings: wrong, and the last good ones stay.
        rev, values = (doc["_rev"], doc.get("settings")) if doc else ("", None)
        if rev != self._rev:
            self._take(values)
            self._changed(self._values)
            self._rev = rev
        self._read_at = time.monotonic()
        return self._current

    def _take(self, values: Any) -> None:
        known = self._problems
        self._current, self._values, self._problems = usable(values, self._values)
        for problem in self._problems:
            if problem not in known:
                log.warning("a setting is wrong, its value before stays in force", problem=str(problem))


def usable(values: Any, before: Mapping[str, Any]) -> tuple[Settings, Mapping[str, Any], tuple[Problem, ...]]:
    """What of `values` can be in force, the rest taken from `before` (itself valid) or left at its default.

    Returns the settings, the values that they were made from, and what was wrong with `values`.
    """
    problems: tuple[Problem, ...] = ()
    for _ in range(ROUNDS):
        try:
            return settings.parse(values), values, problems
        except SettingsError as error:
            problems = problems or tuple(error.problems)
            if not isinstance(values, Mapping):
                break
            values = copy.deepcopy(dict(values))
            for problem in error.problems:
                _restore(values, problem.names, before)
    return settings.parse(before), before, problems


def _restore(values: dict[str, Any], names: Sequence[str], before: Mapping[str, Any]) -> None:
    """Give the key that `names` lead to the value that it has in `before`; take it out when it has none there."""
    step, *rest = names
    old = before.get(step)
    inner = values.get(step)
    if rest and isinstance(inner, dict):
        _restore(inner, rest, old if isinstance(old, Mapping) else {})
    elif old is not None:
        values[step] = copy.deepcopy(old)
    else:
        values.pop(step, None)
