"""What the twins of the services that take one recipient a request share: keys, faults by number, and callbacks."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from aiohttp import web

from simulator.callbacks import Callback, Kind, Step
from simulator.exchange import Dropped, Exchange, Refused, as_json, refuse
from simulator.number_faults import ENDING_LENGTH, fault_of_request
from simulator.record import AcceptedMessage, ServiceRequest

WRONG = "wrong"  # what proves a callback when it should not


@dataclass(frozen=True)
class Quirk:
    """One row of a service's own table: what happens to messages for numbers with this ending."""

    ending: str
    happens: str  # a sentence for people
    answer: tuple[int, Any] | None = None  # HTTP status and JSON body of a refusal; None: it is accepted
    steps: tuple[str, ...] | None = None  # what becomes of an accepted one; None: as of an ordinary one


class Twin:
    """One service. `steps` of its messages are words of its own."""

    kind: ClassVar[Kind]
    quirks: ClassVar[Sequence[Quirk]]
    usual_steps: ClassVar[tuple[str, ...]]

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self._by_ending = {quirk.ending: quirk for quirk in self.quirks}

    def routes(self) -> list[web.RouteDef]:
        """The service's routes, all carried (recorded, counted, delayed) by the exchange."""
        raise NotImplementedError

    def incoming(self, sender: str, text: str, message_id: str | None) -> tuple[str, Callback]:
        """Take a message from a phone: returns its id and the callback that tells of it."""
        raise NotImplementedError

    def event(self, fields: dict[str, Any], about: AcceptedMessage | None = None, says: str | None = None) -> Callback:
        """A callback with these fields, proved as the service proves it."""
        return Callback(self.kind, fields, about, says, prove=self._prove)

    def untold(self, about: AcceptedMessage, says: str) -> Callback:
        """A change of a message's status that nobody is told: they must ask."""
        return Callback(Kind.UNTOLD, {}, about, says)

    def _prove(self, body: bytes) -> dict[str, str]:
        """The headers that prove who posts `body`, wrong ones while the switch says so."""
        raise NotImplementedError

    def _secret(self, right: str) -> str:
        return WRONG if self.exchange.control.wrong_signatures else right

    # -- requests

    def admit(self, entry: ServiceRequest, key: str | None, refusal: web.Response) -> None:
        """Raise what the switches ask for, and `refusal` for a wrong key or none."""
        self.exchange.fail_as_told()
        if key:
            entry.key = "right" if self.exchange.knows(key) else "wrong"
        if entry.key != "right" or self.exchange.control.unauthorized:
            raise Refused(refusal)

    def take(
        self, entry: ServiceRequest, number: str, text: str, message_id: str, sender: str | None = None
    ) -> tuple[AcceptedMessage, tuple[str, ...]]:
        """Accept a message: returns it and what is to become of it. Raises what the number's ending asks for."""
        control = self.exchange.control
        entry.to, entry.message, entry.sender = (number,), text, sender
        if control.answer_body is not None:
            raise Refused(web.Response(status=200, text=control.answer_body, content_type="application/json"))
        fault = fault_of_request(entry.to) if control.number_faults else None
        if fault is not None:
            entry.fault = fault.name
            refuse(fault)
        quirk = self._by_ending.get(number[-ENDING_LENGTH:]) if control.number_faults else None
        if quirk is not None and quirk.answer is not None:
            entry.fault = quirk.ending
            raise Refused(as_json(quirk.answer[1], quirk.answer[0]))
        entry.message_ids = (message_id,)
        message = self.exchange.record.accept(number, text, message_id, sender, None)
        self.exchange.phones.received(message)
        steps = self.usual_steps if quirk is None or quirk.steps is None else quirk.steps
        return message, steps if control.reports else ()

    def tell(self, steps: Sequence[str], callback: Callable[[str], Callback]) -> None:
        """Post a callback for each step, each after the delay of reports."""
        delay_s = self.exchange.control.report_delay_ms / 1000
        self.exchange.callbacks.schedule([Step(delay_s, callback(step)) for step in steps])

    def drop_if_told(self, entry: ServiceRequest) -> None:
        """Close the connection without an answer where the message was accepted and that is asked for."""
        if entry.fault is not None:  # what is left: it drops the connection after accepting
            raise Dropped(entry.fault)
        if self.exchange.control.drop_after_accept:
            raise Dropped("drop_after_accept")


def signature(secret: str, body: bytes) -> str:
    """HMAC-SHA256 in lower-case hex."""
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


async def json_body(request: web.Request) -> dict[str, Any]:
    """The JSON object in a request's body; an empty one in place of anything else."""
    try:
        body = json.loads(await request.read())
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def markdown_table(quirks: Sequence[Quirk]) -> str:
    """A table as docs/simulator.md shows it."""
    rows = (f"| `{quirk.ending}` | {quirk.happens} |" for quirk in quirks)
    return "\n".join(("| a number ending in | what happens |", "|---|---|", *rows))
