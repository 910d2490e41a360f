"""Rate limits on failures: who gives wrong keys or passwords too often is told to wait; who is right never is."""

import ipaddress
import math
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from api.errors import ApiError, BusyError

FAILURES_PER_MINUTE = 30
FAILURES_PER_ADDRESS = 60  # whatever names are tried: CouchDB takes a third of a second for each
MINUTE = 60.0
REMEMBERED = 10_000  # who failed last; to be forgotten, somebody must fail from that many addresses within a minute
TURN_SECONDS = 15.0  # that an attempt waits for others to end: as long as CouchDB is given to check a login
# One IPv6 subscriber commonly holds a whole /64.
IPV6_PREFIX = 64
WITH_PORT = re.compile(r"\[([^\[\]]+)\](?::\d+)?|([\d.]+):\d+")  # as some proxies write an address

Who = tuple[str, ...]


class FailureLimit:
    """Counts failures by whoever makes them, in this process: 30 within any minute."""

    def __init__(self, per_minute: int = FAILURES_PER_MINUTE, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = per_minute
        self._clock = clock
        self._failures: dict[Who, list[float]] = {}  # when they were, oldest first; who failed last comes last
        self._under_way: Counter[Who] = Counter()
        self._ended = threading.Condition()

    def failed(self, *who: str) -> None:
        """Count one failure. Raises ApiError 429 when the limit was reached before it."""
        with self._ended:
            self._left(who)
            self._count(who)

    @contextmanager
    def attempt(self, *who: str) -> Iterator[None]:
        """Around an attempt, which counts as a failure when it ends with an ApiError 401.

        No more are under way at once than may fail; the others wait for their turn, so that those who are right are
        never refused for being many. Raises ApiError: 429 when the limit is reached, 503 when no turn comes.
        """
        with self._ended:
            if not self._ended.wait_for(lambda: self._left(who) > self._under_way[who], TURN_SECONDS):
                raise BusyError("Too many log in at once; try again.")
            self._under_way[who] += 1
        wrong = False
        try:
            yield
        except ApiError as error:
            wrong = error.status == 401
            raise
        finally:
            with self._ended:
                self._under_way[who] -= 1
                if not self._under_way[who]:
                    del self._under_way[who]
                if wrong:
                    self._count(who)
                self._ended.notify_all()

    def _left(self, who: Who) -> int:
        """How many failures are left, one or more. Raises ApiError 429 when there is none."""
        recent = [at for at in self._failures.get(who, ()) if at > self._clock() - MINUTE]
        if len(recent) < self._limit:
            return self._limit - len(recent)
        wait = max(1, math.ceil(recent[-self._limit] + MINUTE - self._clock()))
        raise ApiError(429, "Too many wrong keys or passwords; wait before the next.", {"Retry-After": str(wait)})

    def _count(self, who: Who) -> None:
        now = self._clock()
        self._failures[who] = [*self._failures.pop(who, []), now][-self._limit :]
        while len(self._failures) > REMEMBERED or next(iter(self._failures.values()))[-1] <= now - MINUTE:
            del self._failures[next(iter(self._failures))]


def network(address: str | None) -> str:
    """The part of a client's address, which may have a port behind it, that failures are counted by."""
    parts = WITH_PORT.fullmatch(address or "")
    try:
        parsed = ipaddress.ip_address(parts[1] or parts[2] if parts else address or "")
    except ValueError:
        return "unknown"
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, IPV6_PREFIX), strict=False))
    return str(parsed)
