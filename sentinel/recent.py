"""What was sent within the last half hour: what the duplicate limit counts."""

import hashlib
import time
from collections.abc import Callable

from mjumbe.couch import Database

WINDOW_SECONDS = 30 * 60
PAGE = 5_000  # messages read at once: a broadcast leaves hundreds of thousands


class RecentMessages:
    """How often each text went to each number, counted by hashes: no text is kept. Used by one thread.

    A broadcast leaves hundreds of thousands of them, nearly all sent once: those have a moment in place of a tuple, and
    share it with whatever was sent in the same second.
    """

    def __init__(self) -> None:
        self._times: dict[int, int | tuple[int, ...]] = {}
        self._latest = 0
        self._pruned = time.time()

    def load(self, database: Database, number_of: Callable[[str], str]) -> None:
        """Count what the database says was given to a service within the window.

        `number_of` tells the number behind a recipient as it was written, which is what is counted.
        """
        since, skip = int((time.time() - WINDOW_SECONDS) * 1000), 0
        while rows := database.view("mjumbe", "sent_recently", start_key=since, skip=skip, limit=PAGE):
            for row in rows:
                self.add(number_of(str(row.value.get("to"))), str(row.value.get("message")), int(row.key) // 1000)
            last = rows[-1].key
            # The next page begins with the last moment of this one, behind what was read of it.
            skip = sum(row.key == last for row in rows) + (skip if last == since else 0)
            since = last

    def count(self, to: str, message: str) -> int:
        """How often `message` went to `to` within the window."""
        now = time.time()
        return sum(1 for at in self._moments(_hash(to, message)) if _is_within(at, now))

    def add(self, to: str, message: str, at: int | None = None) -> None:
        """Count one more, given to a service at `at` (seconds since epoch; now)."""
        key = _hash(to, message)
        moment = int(time.time()) if at is None else at
        if moment != self._latest:
            self._latest = moment
        before = [old for old in self._moments(key) if _is_within(old, moment)]
        self._times[key] = (*before, self._latest) if before else self._latest
        if abs(time.time() - self._pruned) > WINDOW_SECONDS / 6:
            self._prune()

    def take_back(self, to: str, message: str) -> None:
        """Count one less: the last was not given to a service after all."""
        key = _hash(to, message)
        before = self._moments(key)[:-1]
        if before:
            self._times[key] = before
        else:
            self._times.pop(key, None)

    def _moments(self, key: int) -> tuple[int, ...]:
        found = self._times.get(key, ())
        return (found,) if isinstance(found, int) else found

    def _prune(self) -> None:
        self._pruned = time.time()
        for key in [key for key in self._times if not _is_within(self._moments(key)[-1], self._pruned)]:
            del self._times[key]


def _is_within(at: float, now: float) -> bool:
    """Whether it was within the window before `now`. What lies far ahead was before the clock was set back."""
    return abs(now - at) <= WINDOW_SECONDS


def _hash(to: str, message: str) -> int:
    digest = hashlib.blake2b(f"{to}\0{message}".encode(errors="surrogatepass"), digest_size=7).digest()
    return int.from_bytes(digest, "big")
