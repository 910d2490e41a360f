"""Rate limits on failures: who gives wrong keys or passwords too often is told to wait; who is right never is."""

import ipaddress
import math
import re
import time

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from api.errors import ApiError

FAILURES_PER_MINUTE = 30
FAILURES_PER_ADDRESS = 60  # whatever names are tried: CouchDB takes a third of a second for each
# One IPv6 subscriber commonly holds a whole /64.
IPV6_PREFIX = 64
WITH_PORT = re.compile(r"\[([^\[\]]+)\](?::\d+)?|([\d.]+):\d+")  # as some proxies write an address


class FailureLimit:
    """Counts failures by whoever makes them, in this process: 30 within any minute."""

    def __init__(self, per_minute: int = FAILURES_PER_MINUTE) -> None:
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._limit = RateLimitItemPerMinute(per_minute)

    def check(self, *who: str) -> None:
        """Raises ApiError 429 when the limit is reached."""
        if not self._limiter.test(self._limit, *who):
            raise self._exceeded(*who)

    def failed(self, *who: str) -> None:
        """Count one failure. Raises ApiError 429 when the limit was reached before it."""
        if not self._limiter.hit(self._limit, *who):
            raise self._exceeded(*who)

    def _exceeded(self, *who: str) -> ApiError:
        free_again = self._limiter.get_window_stats(self._limit, *who).reset_time
        wait = max(1, math.ceil(free_again - time.time()))
        return ApiError(429, "Too many wrong keys or passwords; wait before the next.", {"Retry-After": str(wait)})


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
