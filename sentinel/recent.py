"""What was sent within the last half hour: what the duplicate limit counts."""

import hashlib
import time
from collections.abc import Callable

from mjumbe.couch import Database

WINDOW_SECONDS = 30 * 60


class RecentMessages:
    """How often each text went to each number, counted by hashes: no text is kept. Used by one thread."""

    def __init__(self) -> None:
        self._times: dict[int, tuple[int, ...]] = {}
        self._pruned = time.time()

    def load(self, database: Database, number_of: Callable[[str], str]) -> None:
        """Count what the database says was given to a service within the window.

        `number_of` tells the number behind a recipient as it was written, which is what is counted.
        """
        since = int((time.time() - WINDOW_SECONDS) * 1000)
        for row in database.view("mjumbe", "sent_recently", start_key=since):
            self.add(number_of(str(row.value.get("to"))), str(row.value.get("message")), int(row.key) // 1000)

    def count(self, to: str, message: str) -> int:
        """How often `message` went to `to` within the window."""
        since = time.time() - WINDOW_SECONDS
        return sum(1 for at in self._times.get(_hash(to, message), ()) if at >= since)

    def add(self, to: str, message: str, at: int | None = None) -> None:
        """Count one more, given to a service at `at` (seconds since epoch; now)."""
        key = _hash(to, message)
        moment = int(time.time()) if at is None else at
        since = moment - WINDOW_SECONDS
        self._times[key] = (*(old for old in self._times.get(key, ()) if old >= since), moment)
        if time.time() - self._pruned > WINDOW_SECONDS / 6:
            self._prune()

    def _prune(self) -> None:
        self._pruned = time.time()
        since = self._pruned - WINDOW_SECONDS
        self._times = {key: times for key, times in self._times.items() if times[-1] >= since}


def _hash(to: str, message: str) -> int:
    digest = hashlib.blake2b(f"{to}\0{message}".encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")
