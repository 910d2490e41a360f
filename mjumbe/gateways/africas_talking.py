"""Africa's Talking: https://developers.africastalking.com/docs/sms/overview

Sending is the form call `POST /version1/messaging`, which takes many numbers, and works in the sandbox too. Premium
messages and subscriptions are on a host of their own.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, timezone
from itertools import takewhile
from typing import Any, ClassVar

import structlog

from mjumbe import documents
from mjumbe.documents import DeliveryReport, IncomingMessage, Notice, Premium
from mjumbe.gateways.base import (
    Batch,
    CallbackRecord,
    CallbackRequest,
    Callbacks,
    Check,
    Definition,
    Failure,
    Gateway,
    Inbox,
    Matches,
    Outcome,
    SendError,
    Wiring,
    dig,
    failed_check,
    objects,
    sending_outcome,
)
from mjumbe.settings import Settings
from mjumbe.states import State

log = structlog.get_logger(__name__)

NAME = "africas-talking"
OUTGOING_CREDENTIAL = "africastalking.com:outgoing"
INCOMING_CREDENTIAL = "africastalking.com:incoming"

API = "https://api.africastalking.com"
CONTENT = "https://content.africastalking.com"
SANDBOX = "https://api.sandbox.africastalking.com"

JSON = {"Accept": "application/json"}  # without it the service answers in XML


@dataclass(frozen=True, slots=True)
class Code:
    """What a recipient's statusCode means."""

    name: str
    state: State | None  # None: stays due
    failure: Failure | None = None


# https://developers.africastalking.com/docs/sms/sending/bulk, "statusCode"
CODES: Mapping[int, Code] = {
    100: Code("Processed", State.FORWARDED_BY_GATEWAY),
    101: Code("Sent", State.SENT),
    102: Code("Queued", State.RECEIVED_BY_GATEWAY),
    401: Code("RiskHold", State.FAILED, Failure.PERMANENT),
    402: Code("InvalidSenderId", None, Failure.CONFIGURATION),
    403: Code("InvalidPhoneNumber", State.FAILED, Failure.PERMANENT),
    404: Code("UnsupportedNumberType", State.FAILED, Failure.PERMANENT),
    405: Code("InsufficientBalance", None, Failure.CONFIGURATION),
    406: Code("UserInBlacklist", State.DENIED, Failure.PERMANENT),
    407: Code("CouldNotRoute", State.FAILED, Failure.PERMANENT),
    409: Code("DoNotDisturbRejection", None, Failure.RETRY),
    500: Code("InternalServerError", None, Failure.RETRY),
    501: Code("GatewayError", None, Failure.RETRY),
    502: Code("RejectedByGateway", None, Failure.RETRY),
}

# https://developers.africastalking.com/docs/sms/notifications, "status", in lower case. Any other keeps the state.
REPORT_STATES: Mapping[str, State] = {
    "sent": State.FORWARDED_BY_GATEWAY,
    "submitted": State.SENT,
    "buffered": State.SENT,
    "success": State.DELIVERED,
    "delivered": State.DELIVERED,
    "rejected": State.FAILED,
    "failed": State.FAILED,
    "expired": State.FAILED,
    "absentsubscriber": State.FAILED,
}
OPTED_OUT = "userinblacklist"  # as a failureReason, in any case

USER_IN_BLACKLIST = 406
SENT_TO_SOME = re.compile(r"Sent to [1-9]")  # the message of an answer
DO_NOT_DISTURB = 409
# Nigeria takes no bulk messages from 20:00 to 08:00 West Africa Time.
DO_NOT_DISTURB_ENDS = time(8, 0, tzinfo=timezone(timedelta(hours=1), "WAT"))

MOST_PAGES = 20  # of one look into the inbox; Africa's Talking chooses how much is on one
# The first look walks through all that the inbox ever held, and takes only what is no older than this: nobody expects
# an answer to the rest.
FIRST_LOOK = timedelta(days=1)
UNSETTLED = timedelta(minutes=1)  # what is younger is left to its callback, which may be on its way
FIRST_LOOK_MARK = "first:"  # begins the cursor until that walk is over


class AfricasTalking(Gateway):
    """One account."""

    inbox_ids_differ: ClassVar[bool] = True  # integers here, texts in the callbacks

    def __init__(self, wiring: Wiring) -> None:
        section = wiring.settings.sms.africas_talking
        self._wiring = wiring
        self._section = section
        self._username = section.username
        self._sender = wiring.settings.sms.reply_to  # a short code or an alphanumeric sender id
        self._http = wiring.http(section)
        sandbox = section.username == "sandbox"
        self._api = section.base_url or (SANDBOX if sandbox else API)
        self._content = section.base_url or (SANDBOX if sandbox else CONTENT)

    def send(self, batch: Batch) -> list[Outcome]:
        """One request for all recipients of the batch."""
        form = {"username": self._username, "to": ",".join(batch.recipients), "message": batch.text}
        if self._sender:
            form["from"] = self._sender
        if self._section.enqueue:
            form["enqueue"] = "1"
        premium = self._is_premium(batch.premium)
        if premium:
            form |= self._premium_fields(batch.premium)
        url = f"{self._content if premium else self._api}/version1/messaging"
        answer = self._http.json("POST", url, data=form, headers=self._headers(), refusal=sending_outcome)
        return read_answer(answer, batch.recipients, datetime.now(UTC))

    def _is_premium(self, premium: Premium) -> bool:
        """Whether the recipient pays: as the author says; else for an answer to a premium message, or as it is set."""
        return bool(premium.link_id) or self._section.premium if premium.wanted is None else premium.wanted

    def _premium_fields(self, premium: Premium) -> dict[str, str]:
        """What a premium message has besides: an answer the linkId of what it answers."""
        section = self._section
        fields = {
            "linkId": premium.link_id or "",
            "bulkSMSMode": "0",
            "keyword": premium.keyword or section.keyword,
            "retryDurationInHours": str(premium.retry_duration_hours or section.retry_duration_hours or ""),
        }
        return {name: value for name, value in fields.items() if value}

    def check(self) -> Check:
        """The balance, which only the right key for the right user name gets."""
        try:
            url = f"{self._api}/version1/user"
            answer = self._http.json("GET", url, params={"username": self._username}, headers=self._headers())
        except SendError as error:
            return failed_check("Africa's Talking", "the credentials", self._api, error)
        balance = dig(answer, "UserData", "balance") or dig(answer, "userData", "balance")
        if not balance:
            return Check(False, "Africa's Talking gave an answer without a balance")
        return Check(True, f"Africa's Talking took the credentials; the balance is {balance}", str(balance))

    def inbox(self, cursor: str | None) -> Inbox:
        """What came in after `cursor`, oldest first, but for the last minute; without a cursor, within the last day.

        The pages before one that fails are read.
        """
        last = (cursor or "").removeprefix(FIRST_LOOK_MARK)
        first_look = cursor is None or cursor.startswith(FIRST_LOOK_MARK)
        now = datetime.now(UTC)
        oldest = documents.milliseconds(now - FIRST_LOOK) if first_look else 0
        newest = documents.milliseconds(now - UNSETTLED)
        messages: list[IncomingMessage] = []
        for page in range(MOST_PAGES):
            try:
                rows = self._inbox_page(last or "0")
            except SendError:
                if page == 0:
                    raise
                break
            settled = list(takewhile(lambda row: _came_at(row, newest) <= newest, rows))
            messages += [read_inbox_row(row) for row in settled if row.get("from") and _came_at(row, newest) >= oldest]
            last = str(settled[-1]["id"]) if settled else last
            if not settled or len(settled) < len(rows):
                return Inbox(messages, last or None)
        return Inbox(messages, FIRST_LOOK_MARK + last if first_look else last)

    def _inbox_page(self, last: str) -> list[dict[str, Any]]:
        """The messages with ids above `last`, as many as Africa's Talking gives at once."""
        query = {"username": self._username, "lastReceivedId": last}
        url = f"{self._api}/version1/messaging"
        answer = self._http.json("GET", url, params=query, headers=self._headers(), refusal=sending_outcome)
        rows = objects(dig(answer, "SMSMessageData", "Messages"))
        return sorted((row for row in rows if _row_id(row) > int(last)), key=_row_id)

    def subscribe(self, number: str, short_code: str, keyword: str) -> Check:
        """Ask the person with this number (E.164) whether they want the product; their phone asks them.

        A notification tells when they have agreed. Raises SendError.
        """
        url = f"{self._api}/checkout/token/create"
        try:
            answer = self._http.json("POST", url, data={"phoneNumber": number}, headers=JSON, refusal=sending_outcome)
        except SendError as error:
            if error.outcome.failure not in (Failure.CONFIGURATION, Failure.PERMANENT):
                raise
            # Africa's Talking's own newer clients ask without a token: where none is made any more, none is needed.
            return self._subscription("create", number, short_code, keyword)
        token = _given(dig(answer, "token"))
        if token is None:
            return Check(False, f"Africa's Talking gave no checkout token: {_description(answer)}")
        return self._subscription("create", number, short_code, keyword, checkoutToken=token)

    def unsubscribe(self, number: str, short_code: str, keyword: str) -> Check:
        """Take the person with this number out of the product. Raises SendError."""
        return self._subscription("delete", number, short_code, keyword)

    def _subscription(self, call: str, number: str, short_code: str, keyword: str, **more: str) -> Check:
        form = {"username": self._username, "shortCode": short_code, "keyword": keyword, "phoneNumber": number, **more}
        url = f"{self._content}/version1/subscription/{call}"
        answer = self._http.json("POST", url, data=form, headers=self._headers(), refusal=sending_outcome)
        ok = str(dig(answer, "status")).lower() == "success"
        return Check(ok, f"Africa's Talking {'says' if ok else 'refused'}: {_description(answer)}")

    def subscribers(self, short_code: str, keyword: str) -> list[str]:
        """The numbers of everybody who has the product, as Africa's Talking knows it. Raises SendError."""
        query = {"username": self._username, "shortCode": short_code, "keyword": keyword}
        url = f"{self._content}/version1/subscription"
        numbers: dict[str, None] = {}
        last = 0
        while True:
            params = {**query, "lastReceivedId": str(last)}
            answer = self._http.json("GET", url, params=params, headers=self._headers(), refusal=sending_outcome)
            rows = [row for row in objects(dig(answer, "responses")) if _row_id(row) > last]
            if not rows:
                return list(numbers)
            numbers |= dict.fromkeys(str(row["phoneNumber"]) for row in rows if row.get("phoneNumber"))
            last = max(map(_row_id, rows))

    def _headers(self) -> dict[str, str]:
        return {"apiKey": self._wiring.secret(OUTGOING_CREDENTIAL), **JSON}


def read_answer(answer: Any, recipients: tuple[str, ...], now: datetime) -> list[Outcome]:
    """One outcome for each of `recipients` from the JSON answer to a send request. `now` in UTC."""
    rows = objects(dig(answer, "SMSMessageData", "Recipients"))
    if not rows:
        return [_without_recipients(answer)] * len(recipients)
    # Of several rows of one number that which accepted counts: whoever is asked again for another would have it twice.
    by_number = {_digits(row.get("number")): row for row in sorted(rows, key=_signs_of_acceptance)}
    asked = {_digits(number) for number in recipients}
    # Accepted under a number that we did not write: whoever is not named may be meant, and would have it twice.
    unclear = any(any(_signs_of_acceptance(row)) for number, row in by_number.items() if number not in asked)
    return [_recipient_outcome(by_number.get(_digits(number)), now, unclear=unclear) for number in recipients]


def _without_recipients(answer: Any) -> Outcome:
    """A request refused as a whole is a 2xx with an empty list of recipients, its reason in the message.

    Anything else is no answer of Africa's Talking's, or not all of one, and leaves in doubt what was sent.
    """
    message = str(dig(answer, "SMSMessageData", "Message") or "")
    for code, meaning in CODES.items():
        if message == meaning.name and meaning.failure:
            return Outcome(message, meaning.state, meaning.failure, code=str(code))
    is_refusal = dig(answer, "SMSMessageData", "Recipients") == [] and not SENT_TO_SOME.match(message)
    failure = Failure.RETRY if is_refusal else Failure.AMBIGUOUS
    return Outcome(message or "an answer without recipients", failure=failure)


def _recipient_outcome(row: Mapping[str, Any] | None, now: datetime, *, unclear: bool) -> Outcome:
    if row is None and unclear:
        return Outcome("the answer names another number than this recipient's", failure=Failure.AMBIGUOUS)
    if row is None:
        return Outcome("the answer does not name this recipient", failure=Failure.RETRY)
    code = _code(row)
    word = str(row.get("status") or "")
    # What has an id and no code was taken, as far as can be told.
    unknown = Failure.AMBIGUOUS if _given(row.get("messageId")) and not code else Failure.RETRY
    meaning = CODES.get(code, Code(word or "no statusCode", None, unknown))
    parts = row.get("messageParts")
    return Outcome(
        details=meaning.name,
        state=meaning.state,
        failure=meaning.failure,
        ref=_given(row.get("messageId")),
        code=str(code) if code else None,
        cost=str(row["cost"]) if row.get("cost") and meaning.failure is None else None,
        parts=parts if isinstance(parts, int) and meaning.failure is None else None,
        retry_at=_end_of_do_not_disturb(now) if code == DO_NOT_DISTURB else None,
        personal=code == DO_NOT_DISTURB,
        opted_out=code == USER_IN_BLACKLIST,
    )


def _signs_of_acceptance(row: Mapping[str, Any]) -> tuple[bool, bool]:
    """Whether a row's code says that the message was taken, and whether it has an id: either may be missing."""
    meaning = CODES.get(_code(row))
    return meaning is not None and meaning.failure is None, _given(row.get("messageId")) is not None


def _code(row: Mapping[str, Any]) -> int:
    """A row's statusCode; 0 when there is none that can be read."""
    try:
        return int(row.get("statusCode") or 0)
    except (TypeError, ValueError, OverflowError):  # the last for 1e999, which Python reads as infinite
        return 0


def _row_id(row: Mapping[str, Any]) -> int:
    """A list entry's id; 0, which comes before all of them, for what is none."""
    row_id = row.get("id")
    return row_id if isinstance(row_id, int) else 0


def read_inbox_row(row: Mapping[str, Any]) -> IncomingMessage:
    """A message as the inbox has it."""
    return IncomingMessage(
        gateway=NAME,
        ref=f"inbox-{row['id']}",
        sender=str(row["from"]),
        text=str(row.get("text") or ""),
        to=_given(row.get("to")),
        sent_timestamp=_given(row.get("date")),
        link_id=_given(row.get("linkId")),
    )


def _came_at(row: Mapping[str, Any], otherwise: int) -> int:
    """When a message of the inbox came, in ms since epoch; `otherwise` where that cannot be read."""
    moment = documents.read_moment(row.get("date"))
    return otherwise if moment is None else moment


def _end_of_do_not_disturb(now: datetime) -> datetime:
    end = datetime.combine(now.astimezone(DO_NOT_DISTURB_ENDS.tzinfo).date(), DO_NOT_DISTURB_ENDS)
    return end if end > now else end + timedelta(days=1)


def _given(value: object) -> str | None:
    """What is not there is the string "None": a failed recipient's messageId, an unpaid message's cost."""
    text = str(value or "").strip()
    return text if text and text != "None" else None


def _description(answer: Any) -> str:
    return _given(dig(answer, "description")) or "an answer without description"


def _digits(number: object) -> str:
    return re.sub(r"\D", "", str(number or ""))


def authenticate(request: CallbackRequest, matches: Matches) -> bool:
    """Callbacks are unsigned: the key in the URL that an admin pasted into the dashboard is all there is."""
    return matches(INCOMING_CREDENTIAL, request.query.get("key", ""))


def parse_incoming(request: CallbackRequest) -> list[CallbackRecord]:
    """https://developers.africastalking.com/docs/sms/notifications: an incoming message."""
    form = request.form
    return [
        IncomingMessage(
            gateway=NAME,
            ref=request.required("id"),
            sender=request.required("from"),
            text=form.get("text", ""),
            to=form.get("to"),
            sent_timestamp=form.get("date"),
            link_id=_given(form.get("linkId")),
            network_code=form.get("networkCode"),
            cost=_given(form.get("cost")),
        )
    ]


def parse_report(request: CallbackRequest) -> list[CallbackRecord]:
    """A delivery report. A status that nobody knows is kept, its state unknown."""
    form = request.form
    status = request.required("status")
    reason = form.get("failureReason")
    state = REPORT_STATES.get(status.lower())
    if state is State.FAILED and (reason or "").lower() == OPTED_OUT:
        state = State.DENIED
    return [
        DeliveryReport(
            gateway=NAME,
            ref=request.required("id"),
            status=status,
            state=state,
            phone=form.get("phoneNumber"),
            reason=reason,
            network_code=form.get("networkCode"),
        )
    ]


def parse_opt_out(request: CallbackRequest) -> list[CallbackRecord]:
    """Somebody dialled out of a sender id's bulk messages."""
    phone = request.required("phoneNumber")
    sender = request.form.get("senderId", "")
    return [Notice(NAME, "opt-out", phone, None, {"sender_id": sender})]


def parse_subscription(request: CallbackRequest) -> list[CallbackRecord]:
    """Somebody joined or left a premium subscription; of any other change nothing is known to do."""
    form = request.form
    phone = request.required("phoneNumber")
    update = request.required("updateType").lower()
    if update not in ("addition", "deletion"):
        log.warning("a subscription changed in a way that is not known, and stays as it is", update_type=update)
        return []
    return [subscription_notice(phone, form.get("shortCode", ""), form.get("keyword", ""), update)]


def subscription_notice(phone: str, short_code: str, keyword: str, update: str) -> Notice:
    """That somebody joined (`update` is addition) or left (deletion) a product."""
    facts = {"short_code": short_code, "keyword": keyword, "update": update}
    return Notice(NAME, "subscription", phone, None, facts)


def missing(settings: Settings) -> list[str]:
    """Without a user name there is no account, and without a short code nothing premium."""
    found = []
    if not settings.sms.africas_talking.username:
        found.append("sms.africas_talking.username is not set; set it in /api/v1/settings")
    if settings.sms.africas_talking.premium and not settings.sms.reply_to:
        found.append("sms.africas_talking.premium needs your short code in sms.reply_to; set it in /api/v1/settings")
    return found


CALLBACKS = Callbacks(
    slug="africastalking",
    credential=INCOMING_CREDENTIAL,
    authenticate=authenticate,
    parsers={
        "incoming-messages": parse_incoming,
        "delivery-reports": parse_report,
        "opt-out": parse_opt_out,
        "subscription": parse_subscription,
    },
)

DEFINITION = Definition(
    name=NAME,
    outgoing_credential=OUTGOING_CREDENTIAL,
    section=lambda settings: settings.sms.africas_talking,
    missing=missing,
    build=AfricasTalking,
    callbacks=CALLBACKS,
)
