"""What polling phones were handed a moment ago, so that two that poll at once do not get the same message."""

import threading
import time
from collections.abc import Iterable

REMEMBERED_SECONDS = 60.0


class Deliveries:
    """When this process last handed out each message.

    The claim in the document decides; this closes the moment in which a claim is written and its answer on its way,
    and that of a message which is handed out again without another claim.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()  # held while messages are picked
        self._handed_out: dict[str, float] = {}

    def since(self, message_uuid: str, began: float) -> bool:
        """Whether the message was handed out at or after `began` (monotonic seconds)."""
        return self._handed_out.get(message_uuid, 0.0) >= began

    def note(self, uuids: Iterable[str]) -> None:
        """These go out now."""
        now = time.monotonic()
        self._handed_out = {key: at for key, at in self._handed_out.items() if now - at < REMEMBERED_SECONDS}
        self._handed_out |= dict.fromkeys(uuids, now)
