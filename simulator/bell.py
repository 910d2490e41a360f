"""Waiting for something to be recorded, without sleeping."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Bell:
    """Rings whenever anything changed; `version` counts the rings."""

    def __init__(self) -> None:
        self.version = 0
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Wake everybody who waits, so that they look again."""
        self.version += 1
        self._rung.set()
        self._rung = asyncio.Event()

    async def wait_until(self, reached: Callable[[], bool], timeout_s: float) -> bool:
        """Return True as soon as `reached()` holds, or False after `timeout_s` seconds."""
        try:
            async with asyncio.timeout(timeout_s):
                while not reached():
                    await self._rung.wait()
        except TimeoutError:
            return reached()
        return True
