"""The phones: what each number sent and received, for the page with the phone."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from dataclasses import dataclass

from simulator.record import AcceptedMessage

_PHONES = 2_000  # the least recently used are forgotten
_MESSAGES = 100  # remembered of each phone


@dataclass(slots=True)
class TypedMessage:
    """What a person typed on a phone. `status` tells what became of it on its way to the service's customer."""

    typed: float
    to: str
    text: str
    status: str = "sending"


Message = TypedMessage | AcceptedMessage


class Phones:
    """The conversations of the phones that were used last."""

    def __init__(self) -> None:
        self._phones: OrderedDict[str, deque[Message]] = OrderedDict()

    def typed(self, number: str, to: str, text: str) -> TypedMessage:
        """A person with `number` sent `text` to the short code `to`; the caller sets the status later."""
        message = TypedMessage(time.time(), to, text)
        self._keep(number, message)
        return message

    def received(self, message: AcceptedMessage) -> None:
        """The service took `message` for the phone with the number `message.to`."""
        self._keep(message.to, message)

    def conversation(self, number: str) -> list[Message]:
        """The messages that `number` sent and received, oldest first."""
        return list(self._phones.get(number, ()))

    def numbers(self, limit: int) -> list[str]:
        """The numbers used last, newest first."""
        return [number for number, _ in zip(reversed(self._phones), range(limit), strict=False)]

    def _keep(self, number: str, message: Message) -> None:
        messages = self._phones.setdefault(number, deque(maxlen=_MESSAGES))
        messages.append(message)
        self._phones.move_to_end(number)
        if len(self._phones) > _PHONES:
            self._phones.popitem(last=False)
