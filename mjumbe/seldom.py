"""What many requests would say in the log of one trouble: at once, and then once a minute."""

import threading
import time
from collections.abc import Callable

AGAIN_SECONDS = 60.0
REMEMBERED = 100  # troubles; a reason may hold what no other does


class Seldom:
    """Says the same once within AGAIN_SECONDS. For any number of threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._said: dict[tuple[str, str], tuple[float, int]] = {}  # when, and how often it was so since; newest last

    def __call__(self, say: Callable[..., object], event: str, reason: str) -> None:
        """`say(event, reason=reason)`, unless that was said a moment ago; `times` counts what was not said since."""
        now = self._clock()
        with self._lock:
            said_at, unsaid = self._said.get((event, reason), (now - AGAIN_SECONDS, 0))
            if now - said_at < AGAIN_SECONDS:
                self._said[event, reason] = said_at, unsaid + 1
                return
            self._said.pop((event, reason), None)
            self._said[event, reason] = now, 0
            if len(self._said) > REMEMBERED:
                del self._said[next(iter(self._said))]
        say(event, reason=reason, **({"times": unsaid + 1} if unsaid else {}))
