"""Africa's Talking: its routes and its answers, quirks included (its api, content and sandbox hosts in one)."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict, deque
from decimal import Decimal
from typing import Any
from uuid import uuid4

from aiohttp import web

from simulator import africas_talking_wire as wire
from simulator.callbacks import Callback, Kind, Step
from simulator.exchange import Dropped, Exchange, Refused, as_json, plain, refuse, remember
from simulator.number_faults import (
    ACCEPTING_CODES,
    STATUS_NAMES,
    NumberFault,
    Report,
    Timing,
    Way,
    fault_of,
    fault_of_request,
)
from simulator.record import AcceptedMessage, ServiceRequest
from simulator.segments import count_parts

PRICE_OF_PART = Decimal("0.8000")  # KES
_INBOX_PAGE = 100
_INBOX_SIZE = 10_000
_TOKEN_LIVES_S = 600


class AfricasTalking:
    """One customer's account at Africa's Talking."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.balance = exchange.config.balance
        self._inbox: deque[wire.IncomingMessage] = deque(maxlen=_INBOX_SIZE)
        self._inbox_total = 0
        self._subscriptions: OrderedDict[tuple[str, str, str], dict[str, Any]] = OrderedDict()
        self._subscriptions_total = 0
        self._tokens: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def routes(self) -> list[web.RouteDef]:
        """The service's routes, all carried (recorded, counted, delayed) by the exchange."""
        carried = self.exchange.carried
        return [
            web.post("/version1/messaging", carried(self.send_form)),
            web.get("/version1/messaging", carried(self.fetch_inbox), allow_head=False),
            web.post("/version1/messaging/bulk", carried(self.send_bulk)),
            web.get("/version1/user", carried(self.show_user), allow_head=False),
            web.post("/version1/subscription/create", carried(self.create_subscription)),
            web.post("/version1/subscription/delete", carried(self.delete_subscription)),
            web.get("/version1/subscription", carried(self.fetch_subscriptions), allow_head=False),
            web.post("/checkout/token/create", carried(self.create_token)),
        ]

    # -- sending

    async def send_form(self, request: web.Request, entry: ServiceRequest) -> web.Response:
        """POST /version1/messaging: form in; XML out, unless JSON was asked for."""
        form = await wire.form(request)
        numbers = tuple(number.strip() for number in form.get("to", "").split(",") if number.strip())
        send = wire.Send(
            tuple(wire.normalised(number) for number in numbers),
            form.get("message", ""),
            form.get("from") or None,
            form.get("linkId") or None,
            {name: value for name, value in form.items() if name not in wire.SHOWN},
        )
        wire.describe(entry, send)
        self._admit(request, entry, form.get("username"))
        wire.require(form, "username", "to", "message")
        return wire.answer(request, await self._send(send, entry), 201)

    async def send_bulk(self, request: web.Request, entry: ServiceRequest) -> web.Response:
        """POST /version1/messaging/bulk: JSON in, JSON out. The sandbox does not have it."""
        body = await wire.bulk_body(request)
        send = wire.Send(
            tuple(wire.normalised(number.strip()) for number in body["phoneNumbers"]),
            body["message"],
            body.get("senderId") or None,
        )
        wire.describe(entry, send)
        if body["username"] == "sandbox":
            raise Refused(plain(404, wire.NOT_FOUND))
        self._admit(request, entry, body["username"])
        return as_json(await self._send(send, entry), 201)

    async def _send(self, send: wire.Send, entry: ServiceRequest) -> dict[str, Any]:
        control = self.exchange.control
        if control.answer_body is not None:
            raise Refused(web.Response(status=201, text=control.answer_body, content_type="application/json"))
        if send.sender is not None and not self._knows_sender(send.sender):
            return {"SMSMessageData": {"Message": "InvalidSenderId", "Recipients": []}}
        fault = fault_of_request(send.to) if control.number_faults else None
        if fault is not None:
            entry.fault = fault.name
            refuse(fault)
        rows = [row for number in send.to if (row := await self._take(send, number, entry)) is not None]
        if fault is not None:  # what is left: it drops the connection after accepting
            raise Dropped(fault.name)
        if control.drop_after_accept:
            raise Dropped("drop_after_accept")
        cost = count_parts(send.message) * PRICE_OF_PART * sum(row.parts > 0 for row in rows)
        message = wire.summary(rows, len(send.to), cost)
        return {"SMSMessageData": {"Message": message, "Recipients": [row.shown() for row in rows]}}

    async def _take(self, send: wire.Send, number: str, entry: ServiceRequest) -> wire.Recipient | None:
        """Accept or refuse the message for one number; None leaves the number out of the answer."""
        fault = fault_of(number) if self.exchange.control.number_faults else None
        if fault is not None and fault.way is Way.LEAVE_OUT:
            return None
        parts = count_parts(send.message)
        cost = PRICE_OF_PART * parts
        status_code = self._status_code(number, fault, cost)
        if status_code not in ACCEPTING_CODES:
            return wire.Recipient(status_code, number, STATUS_NAMES[status_code])
        self.balance -= cost
        message_id = f"ATXid_{secrets.token_hex(16)}"
        entry.message_ids = (*entry.message_ids, message_id)
        message = self.exchange.record.accept(number, send.message, message_id, send.sender, send.link_id)
        self.exchange.phones.received(message)
        await self._plan_reports(message, fault)
        return wire.Recipient(status_code, number, "Success", f"KES {cost:.4f}", message_id, parts)

    def _status_code(self, number: str, fault: NumberFault | None, cost: Decimal) -> int:
        if not wire.is_number(number):
            return 403
        if self.exchange.control.no_balance:
            return 405
        if fault is not None and fault.status_code not in ACCEPTING_CODES:
            return fault.status_code
        if self.balance < cost:
            return 405
        return 101 if fault is None else fault.status_code

    def _knows_sender(self, sender: str) -> bool:
        config = self.exchange.config
        return sender == config.short_code or sender in config.senders

    # -- delivery reports

    async def _plan_reports(self, message: AcceptedMessage, fault: NumberFault | None) -> None:
        """Schedule the reports of a message, and post the early ones now."""
        control = self.exchange.control
        if not control.reports:
            return
        reports = tuple(Report(status) for status in control.report_steps)
        if fault is not None and fault.reports is not None:
            reports = fault.reports
        early = [report for report in reports if report.timing is Timing.EARLY]
        for report in early:
            self.exchange.record.reported(message, report.status)
            if control.reports_url is not None:
                await self.exchange.callbacks.post(self._report(message, report))
        delay_s = {
            Timing.USUAL: control.report_delay_ms / 1000,
            Timing.LATE: control.late_report_ms / 1000,
            Timing.AT_ONCE: 0.0,
        }
        self.exchange.callbacks.schedule(
            [Step(delay_s[report.timing], self._report(message, report)) for report in reports if report not in early]
        )

    def _report(self, message: AcceptedMessage, report: Report) -> Callback:
        fields = {
            "phoneNumber": message.to,
            "retryCount": "0",
            "id": message.message_id,
            "status": report.status,
            "networkCode": self.network_of(message.to),
        }
        if report.reason is not None:
            fields["failureReason"] = report.reason
        return Callback(Kind.REPORT, fields, message, says=report.status)

    def network_of(self, number: str) -> str:
        """The networkCode of `number`: the sandbox's own, or the largest network of the country."""
        if self.exchange.config.username == "sandbox":
            return wire.SANDBOX_NETWORK
        return wire.NETWORKS.get(number[:4], wire.SANDBOX_NETWORK)

    # -- what comes from phones

    def receive(
        self,
        sender: str,
        text: str,
        *,
        to: str | None = None,
        link_id: str | None = None,
        message_id: str | None = None,
        date: str | None = None,
    ) -> tuple[wire.IncomingMessage, dict[str, str]]:
        """Take a message from a phone: returns it as it is in the inbox now, and the webhook's fields.

        `link_id` None makes one up, an empty one leaves it out; `to` defaults to the short code; `date` to now.
        """
        self._inbox_total += 1
        message = wire.IncomingMessage(
            self._inbox_total,
            message_id or str(uuid4()),
            sender,
            to or self.exchange.config.short_code,
            text,
            date or wire.utc(time.time()),
            str(uuid4()) if link_id is None else (link_id or None),
        )
        self._inbox.append(message)
        fields = {"date": message.date, "from": sender, "id": message.id}
        if message.link_id is not None:
            fields["linkId"] = message.link_id
        fields |= {"text": text, "to": message.to, "cost": "None", "networkCode": self.network_of(sender)}
        return message, fields

    async def fetch_inbox(self, request: web.Request, entry: ServiceRequest) -> web.Response:
        """GET /version1/messaging: up to 100 incoming messages with integer ids above lastReceivedId."""
        self._admit(request, entry, request.query.get("username"))
        wire.require(request.query, "username", kind="query parameter")
        after = wire.integer(request.query.get("lastReceivedId", "0"), "lastReceivedId")
        newer = [message for message in self._inbox if message.number > after][:_INBOX_PAGE]
        rows = [
            {"linkId": m.link_id or "", "text": m.text, "to": m.to, "id": m.number, "date": m.date, "from": m.sender}
            for m in newer
        ]
        return wire.answer(request, {"SMSMessageData": {"Messages": rows}}, 200)

    # -- account, premium

    async def show_user(self, request: web.Request, entry: ServiceRequest) -> web.Response:
        """GET /version1/user: the balance."""
        self._admit(request, entry, request.query.get("username"))
        wire.require(request.query, "username", kind="query parameter")
        return wire.answer(request, {"UserData": {"balance": f"KES {self.balance:.2f}"}}, 200)

    async def create_token(self, request: web.Request, entry: ServiceRequest) -> web.Response:
        """POST /checkout/token/create: a token for one phone number, for 10 minutes. Needs no key."""
        form = await wire.form(request)
        self.exchange.fail_as_told()
        wire.require(form, "phoneNumber")
        token = f"CkTkn_{uuid4()}"
        remember(self._tokens, token, (wire.normalised(form["phoneNumber"]), time.monotonic() + _TOKEN_LIVES_S))
        return as_json({"description": "Success", "token": token}, 201)

    async def create_subscription(self, request: web.Request, entry: ServiceRequest) -> web.Response:
        """POST /version1/subscription/create: without a checkout token, as the service's newer clients ask, or with one
        of the same number."""
        form = await wire.form(request)
        self._admit(request, entry, form.get("username"))
        wire.require(form, "username", "shortCode", "keyword", "phoneNumber")
        number = wire.normalised(form["phoneNumber"])
        if "checkoutToken" in form:
            owner, until = self._tokens.pop(form["checkoutToken"], ("", 0.0))
            if owner != number or until < time.monotonic():
                return as_json({"status": "Failed", "description": "Invalid checkout token"}, 201)
        self._subscriptions_total += 1
        row = {"id": self._subscriptions_total, "phoneNumber": number, "date": wire.utc(time.time())}
        remember(self._subscriptions, (form["shortCode"], form["keyword"], number), row)
        self._tell_subscription(number, form["shortCode"], form["keyword"], "addition")
        return as_json({"status": "Success", "description": "Waiting for user input"}, 201)

    async def delete_subscription(self, request: web.Request, entry: ServiceRequest) -> web.Response:
        """POST /version1/subscription/delete."""
        form = await wire.form(request)
        self._admit(request, entry, form.get("username"))
        wire.require(form, "username", "shortCode", "keyword", "phoneNumber")
        number = wire.normalised(form["phoneNumber"])
        if self._subscriptions.pop((form["shortCode"], form["keyword"], number), None) is None:
            return as_json({"status": "Failed", "description": "Subscription not found"}, 201)
        self._tell_subscription(number, form["shortCode"], form["keyword"], "deletion")
        return as_json({"status": "Success", "description": "Succeeded"}, 201)

    async def fetch_subscriptions(self, request: web.Request, entry: ServiceRequest) -> web.Response:
        """GET /version1/subscription: those of a short code and keyword with ids above lastReceivedId."""
        self._admit(request, entry, request.query.get("username"))
        wire.require(request.query, "username", "shortCode", "keyword", kind="query parameter")
        wanted = (request.query["shortCode"], request.query["keyword"])
        after = wire.integer(request.query.get("lastReceivedId", "0"), "lastReceivedId")
        rows = [row for key, row in self._subscriptions.items() if key[:2] == wanted and row["id"] > after]
        return as_json({"responses": rows}, 200)

    def _tell_subscription(self, number: str, short_code: str, keyword: str, update: str) -> None:
        callback = Callback(Kind.SUBSCRIPTION, wire.subscription_fields(number, short_code, keyword, update))
        self.exchange.callbacks.schedule([Step(self.exchange.control.report_delay_ms / 1000, callback)])

    # -- who may ask

    def _admit(self, request: web.Request, entry: ServiceRequest, username: str | None) -> None:
        """Raise what the switches or a wrong key or username ask for."""
        self.exchange.fail_as_told()
        key = request.headers.get("apiKey")
        if not key:
            raise Refused(plain(401, wire.MISSING_KEY))
        entry.key = "right" if self.exchange.knows(key) else "wrong"
        if entry.key == "wrong" or self.exchange.control.unauthorized:
            raise Refused(plain(401, wire.WRONG_KEY))
        if username is not None and username != self.exchange.config.username:
            raise Refused(plain(401, wire.WRONG_KEY))
