"""What each service says on its wire, by its documentation (docs/), and what it tells later.

A `Wire` takes requests and answers them, well or at random, and enters in the books what it did.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.generated.services.books import AT, RAPIDPRO, TEXTBEE, VIBER, Books, Deed, Key, Letter, Said, Word
from tests.generated.services.callers import KEY, Call, Callers, form, signed
from tests.generated.services.server import Answer, Request, Trouble, trouble

USERNAME, DEVICE = "generated", "device-1"
LATEST = 6.0  # seconds until what becomes of a message is told
Later = Callable[[], Sequence[Call]]
ODD_IDS = ("{}", "{} with spaces", "ü/{}?&#", '"{}"', "{}" + "-long" * 25, "0{}")


class Wire:
    """What the services have in common. `key_header` must have the key, as `key_form` writes it."""

    name = ""
    key_header = ""
    key_form = "{}"

    def __init__(self, books: Books, callers: Callers) -> None:
        self.books, self.callers = books, callers

    def answer(self, request: Request) -> Answer:
        if request.headers.get(self.key_header) != self.key_form.format(KEY):
            self.books.wonder(f"{self.name}: no key in {request.method} {request.path}")
        if request.method == "GET":
            chance = self.books.chance(self.name, request.path, random.random())
            good = self.look(request)
            bad = None if self.books.healed.is_set() else trouble(chance, 0.15)
            return bad.spoil(good) if bad and bad.way not in ("late", "drips") else good
        return self.take(request)

    def look(self, request: Request) -> Answer:
        """What is asked without any consequence."""
        raise NotImplementedError

    def take(self, request: Request) -> Answer:
        """A request to send."""
        raise NotImplementedError

    def fate(self, keys: Sequence[Key]) -> tuple[random.Random, Trouble | None]:
        """The chances of a request with these messages, and what befalls it as a whole."""
        chance = self.books.chance(self.name, keys[0], self.books.ask(keys))
        if self.books.healed.is_set():
            return random.Random(0.9), None
        return chance, trouble(chance)

    def one(self, key: Key, accept: Callable[[random.Random], tuple[Any, Deed, Later]]) -> Answer:
        """The answer to a request with one message.

        `accept` gives the answer, the deed that it is when it comes through, and what makes the calls that follow.
        """
        chance, bad = self.fate([key])
        content, deed, later = accept(chance)
        deed.taken = deed.taken and (bad is None or bad.taken)
        if bad:
            deed.said, deed.state = bad.said, ""
        self.books.enter(deed)
        if deed.taken:
            self.tell(chance, later())
        way = "slow" if chance.random() < 0.2 else "whole"
        good = Answer(content, chance.choice((200, 201)), way=way, deeds=(deed,))
        return bad.spoil(good) if bad else good

    def tell(self, chance: random.Random, later: Sequence[Call]) -> None:
        """Make these calls: before the answer, soon, late; in any order; some of them again."""
        for call in later:
            after = chance.choice((0.0, 0.0, chance.random(), chance.random() * LATEST))
            self.callers.call(call, after)
            while chance.random() < 0.25:
                self.callers.call(call, after + chance.random() * LATEST)

    def loses_id(self, chance: random.Random) -> bool:
        """Whether the answer lacks the message's id."""
        return not self.books.healed.is_set() and chance.random() < 0.08

    def word(self, ref: str, status: str, state: str | None, *, again: bool = False) -> tuple[Word, Callable[[], None]]:
        """Note that a status will be told; what to call when it was heard."""
        word = self.books.tell(Word(self.name, ref, status, state, again))

        def heard() -> None:
            word.heard = True

        return word, heard


def plan(chance: random.Random, plans: Sequence[Sequence[str]]) -> list[str]:
    """What is told of a message, in order, or in any."""
    told = list(chance.choice(plans))
    if chance.random() < 0.3:
        chance.shuffle(told)
    return told


# ---- Africa's Talking: docs/africas-talking.md, docs/premium.md

AT_CODES = {
    100: ("Processed", Said.TAKEN, "forwarded-by-gateway"),
    101: ("Sent", Said.TAKEN, "sent"),
    102: ("Queued", Said.TAKEN, "received-by-gateway"),
    401: ("RiskHold", Said.FINAL, "failed"),
    402: ("InvalidSenderId", Said.HELD, ""),
    403: ("InvalidPhoneNumber", Said.FINAL, "failed"),
    404: ("UnsupportedNumberType", Said.FINAL, "failed"),
    405: ("InsufficientBalance", Said.HELD, ""),
    406: ("UserInBlacklist", Said.FINAL, "denied"),
    407: ("CouldNotRoute", Said.FINAL, "failed"),
    409: ("DoNotDisturbRejection", Said.LATER, ""),
    500: ("InternalServerError", Said.PASSING, ""),
    501: ("GatewayError", Said.PASSING, ""),
    502: ("RejectedByGateway", Said.PASSING, ""),
    499: ("SomethingNew", Said.PASSING, ""),
}
AT_STATES = {
    "Sent": "forwarded-by-gateway",
    "Submitted": "sent",
    "Buffered": "sent",
    "Success": "delivered",
    "Delivered": "delivered",
    "Rejected": "failed",
    "Failed": "failed",
    "Expired": "failed",
    "AbsentSubscriber": "failed",
}
AT_PLANS = (
    (),
    ("Sent",),
    ("Sent", "Submitted", "Success"),
    ("Success",),
    ("Delivered", "Failed"),
    ("Submitted", "Rejected"),
    ("Expired",),
    ("AbsentSubscriber", "Success"),
    ("Sent", "Buffered", "Mystery"),
    ("Failed", "Sent"),
)
AT_PAGE = 5


class AfricasTalking(Wire):
    """Bulk and premium, one form."""

    name, key_header = AT, "apikey"

    def look(self, request: Request) -> Answer:
        if request.path == "/version1/user":
            return Answer({"UserData": {"balance": "KES 1785.50"}})
        after = self.books.read_until = int(request.query.get("lastReceivedId") or 0)
        rows = [_at_row(*row) for row in self.books.inbox(AT) if row[0] > after]
        return Answer({"SMSMessageData": {"Messages": rows[:AT_PAGE]}})

    def take(self, request: Request) -> Answer:
        asked = request.form
        if request.headers.get("accept") != "application/json" or asked.get("username") != USERNAME:
            self.books.wonder("africas-talking: no Accept header, or another's user name")
        if ("linkId" in asked) and asked.get("bulkSMSMode") != "0":
            self.books.wonder("africas-talking: a linkId in what is not premium")
        keys = [(number, asked["message"]) for number in asked["to"].split(",")]
        chance, bad = self.fate(keys)
        refused = bad is None and not self.books.healed.is_set() and chance.random() < 0.03
        if refused:
            bad = Trouble(Said.HELD, taken=False)
        same = f"ATXid_{chance.getrandbits(64):x}" if chance.random() < 0.05 else None
        rows, deeds = [], []
        for key in keys:
            row, deed = self._row(key, bad, same)
            deed.link_id, deed.premium = asked.get("linkId"), asked.get("bulkSMSMode") == "0"
            rows += row
            deeds.append(deed)
        if chance.random() < 0.1 and not self.books.healed.is_set():  # of a number that nobody asked for
            rows.append({"statusCode": 403, "number": "+254700000000", "status": "InvalidPhoneNumber", "cost": "0"})
        if chance.random() < 0.3:
            chance.shuffle(rows)
        if any(row["number"].startswith("0") for row in rows):  # whoever is missing may be meant
            for deed in deeds:
                deed.said = Said.UNCLEAR if not deed.taken and deed.said is Said.PASSING else deed.said
        data = {"Message": f"Sent to {sum(deed.taken for deed in deeds)}/{len(keys)}", "Recipients": rows}
        if refused:
            data = {"Message": "InvalidSenderId", "Recipients": []}
        good = Answer({"SMSMessageData": data}, chance.choice((200, 201)), deeds=tuple(deeds))
        return bad.spoil(good) if bad else good

    def _row(self, key: Key, bad: Trouble | None, same: str | None) -> tuple[list[Any], Deed]:
        """A recipient's row, or none, and what it says."""
        healed = self.books.healed.is_set()
        chance = random.Random(0.5) if healed else self.books.chance("row", key, self.books.asked[key])
        code = 101 if healed or chance.random() < 0.8 else chance.choice(list(AT_CODES))
        status, said, state = AT_CODES[code]
        deed = self.books.enter(Deed(AT, key, said is Said.TAKEN, said, state))
        row = {"statusCode": code, "number": key[0], "status": status, "cost": "0", "messageId": "None"}
        if deed.taken:
            unique = f"{self.books.chance('ref', key, self.books.asked[key]).getrandbits(64)}"
            ref = same or chance.choice(ODD_IDS).format(f"ATXid_{unique}" if chance.random() < 0.9 else unique)
            lost = not same and self.loses_id(chance)
            row |= {"cost": "KES 0.8000", "messageId": chance.choice(("None", "", None)) if lost else ref}
            deed.ref = None if lost else ref
            if not lost and not same:
                self._plan(chance, key, deed, bad)
        if not healed and chance.random() < 0.1:
            row["number"] = chance.choice((key[0][1:], f"{key[0][:4]} {key[0][4:]}", f"0{key[0][4:]}"))
            if row["number"].startswith("0"):
                deed.said = Said.UNCLEAR if deed.taken else Said.ODD
        if bad:
            deed.taken, deed.said = deed.taken and bad.taken, bad.said
        elif not deed.taken and not healed and chance.random() < 0.2:
            deed.said = Said.PASSING
            return [], deed
        return [row], deed

    def _plan(self, chance: random.Random, key: Key, deed: Deed, bad: Trouble | None) -> None:
        if bad and not bad.taken:
            return
        calls = []
        for status in plan(chance, AT_PLANS):
            reason = (
                chance.choice(("", "DeliveryFailure", "UserInBlackList")) if status in ("Rejected", "Failed") else ""
            )
            state = "denied" if reason == "UserInBlackList" else AT_STATES.get(status)
            _, heard = self.word(str(deed.ref), status, state)
            fields = {"id": str(deed.ref), "status": status, "phoneNumber": key[0], "networkCode": "63902"}
            calls.append(form("delivery-reports", fields | ({"failureReason": reason} if reason else {}), heard))
        self.tell(chance, calls)


def _at_row(place: int, letter: Letter) -> dict[str, Any]:
    return {
        "id": place,
        "from": letter.sender,
        "to": "22000",
        "text": letter.text,
        "date": letter.date,
        "linkId": letter.link_id,
    }


# ---- TextBee: docs/textbee.md

TEXTBEE_EVENTS = {
    "MESSAGE_SENT": ("sent", "sent"),
    "MESSAGE_DELIVERED": ("delivered", "delivered"),
    "MESSAGE_FAILED": ("failed", "failed"),
    "UNKNOWN_STATE": ("unknown", None),
}
# An error code of a failed message → whether it goes out again.
TEXTBEE_ERRORS = {
    "NO_SERVICE": True,
    "NETWORK_ERROR": True,
    "PERMISSION_DENIED": True,
    "NULL_PDU": False,
    "SHORT_CODE_NOT_ALLOWED": False,
    "SOMETHING_NEW": False,
}
TEXTBEE_PLANS = (
    (),
    ("MESSAGE_SENT",),
    ("MESSAGE_SENT", "MESSAGE_DELIVERED"),
    ("MESSAGE_DELIVERED",),
    ("MESSAGE_FAILED",),
    ("MESSAGE_FAILED", "MESSAGE_DELIVERED"),
    ("MESSAGE_SENT", "UNKNOWN_STATE", "MESSAGE_DELIVERED", "MESSAGE_SENT"),
)
TEXTBEE_PAGE = 3


class TextBee(Wire):
    """One device, with its inbox in pages."""

    name, key_header = TEXTBEE, "x-api-key"

    def look(self, request: Request) -> Answer:
        if request.path == "/api/v1/gateway/devices":
            return Answer({"data": [{"_id": DEVICE, "enabled": True}]})
        is_old = self.books.seed % 3 == 0  # an installation that shows its latest messages, without a cursor
        if request.path == "/api/v1/gateway/messages":
            return Answer({}, 404) if is_old else self._inbox(int(request.query.get("cursor") or 0), TEXTBEE_PAGE)
        if request.path == f"/api/v1/gateway/devices/{DEVICE}/messages":
            return self._inbox(0, len(self.books.inbox(TEXTBEE)))
        ref = request.path.rpartition("/")[2]
        words = [word for word in self.books.words_of(ref) if word.heard and not word.again]
        return Answer({"data": {"batch": {}, "messages": [{"status": word.status} for word in words[-1:]]}})

    def _inbox(self, begin: int, most: int) -> Answer:
        listed = self.books.inbox(TEXTBEE)[begin : begin + most]
        rows = [{"_id": f"sms-{n}", "sender": letter.sender, "message": letter.text} for n, letter in listed]
        return Answer({"data": rows, "meta": {"nextCursor": str(begin + len(rows)) if rows else None}})

    def take(self, request: Request) -> Answer:
        if request.path != f"/api/v1/gateway/devices/{DEVICE}/send-sms" or len(request.json["recipients"]) != 1:
            self.books.wonder(f"textbee: {request.path}, or not one recipient")
        key = (str(request.json["recipients"][0]), str(request.json["message"]))

        def accept(chance: random.Random) -> tuple[Any, Deed, Later]:
            deed = Deed(TEXTBEE, key, True, Said.TAKEN, "received-by-gateway")
            healed = self.books.healed.is_set()
            ref = f"batch-{self.books.chance('ref', key, self.books.asked[key]).getrandbits(64)}"
            deed.ref = None if self.loses_id(chance) else ref
            events = plan(chance, TEXTBEE_PLANS[: 3 if healed else None])
            answer = {"data": {"success": True, "smsBatchId": deed.ref, "recipientCount": 1}}
            return answer, deed, lambda: [self._event(chance, key, ref, event) for event in events]

        return self.one(key, accept)

    def _event(self, chance: random.Random, key: Key, ref: str, event: str) -> Any:
        status, state = TEXTBEE_EVENTS[event]
        code = chance.choice(list(TEXTBEE_ERRORS)) if status == "failed" else None
        _, heard = self.word(ref, status, state, again=bool(code and TEXTBEE_ERRORS[code]))
        told = {"webhookEvent": event, "smsId": f"sms-of-{ref}", "smsBatchId": ref, "recipient": key[0]}
        return signed("textbee/events", "X-Signature", {**told, "errorCode": code, "deviceId": DEVICE}, heard)


# ---- Viber: docs/viber.md

VIBER_CODES = {
    0: Said.TAKEN,
    **dict.fromkeys((1, 3, 4, 5, 6, 11, 13, 14, 16, 21), Said.FINAL),
    **dict.fromkeys((2, 7, 8, 9, 10, 12, 15, 22, 23, 24), Said.HELD),
    **dict.fromkeys((25, 99, -1), Said.PASSING),
}
VIBER_PLANS = ((), ("delivered",), ("delivered", "seen"), ("failed",), ("failed", "delivered"), ("seen", "failed"))


class Viber(Wire):
    """A bot, whose people have ids of their own: `ids` tells the numbers."""

    name, key_header = VIBER, "x-viber-auth-token"

    def __init__(self, books: Books, callers: Callers, ids: Mapping[str, str]) -> None:
        super().__init__(books, callers)
        self.ids = ids

    def take(self, request: Request) -> Answer:
        if request.path == "/pa/get_account_info":
            return Answer({"status": 0, "status_message": "ok", "name": "bot", "webhook": "https://example.org"})
        asked = request.json
        if request.path != "/pa/send_message" or asked["receiver"] not in self.ids or asked["type"] != "text":
            self.books.wonder(f"viber: {request.path}, or to nobody who is known")
        key = (self.ids.get(asked["receiver"], "nobody"), str(asked["text"]))

        def accept(chance: random.Random) -> tuple[Any, Deed, Later]:
            healed = self.books.healed.is_set()
            code = 0 if healed or chance.random() < 0.8 else chance.choice(list(VIBER_CODES))
            said = VIBER_CODES[code]
            if said is not Said.TAKEN:
                deed = Deed(VIBER, key, False, said, "denied" if code in (5, 6) else "failed")
                return {"status": code, "status_message": "no"}, deed, tuple
            token = 2**60 + self.books.chance("ref", key, self.books.asked[key]).getrandbits(59)
            ref = None if self.loses_id(chance) else str(token)
            deed = Deed(VIBER, key, True, said, "forwarded-by-gateway", ref)
            events = plan(chance, VIBER_PLANS)
            answer = {"status": 0, "status_message": "ok", "message_token": token if ref else None}
            return answer, deed, lambda: [self._event(key, token, event) for event in events]

        return self.one(key, accept)

    def _event(self, key: Key, token: int, event: str) -> Any:
        _, heard = self.word(str(token), event, "failed" if event == "failed" else "delivered")
        user = next(name for name, number in self.ids.items() if number == key[0])
        told = {"event": event, "timestamp": 1516678387902, "message_token": token, "user_id": user, "desc": "no"}
        return signed("viber/events", "X-Viber-Content-Signature", told, heard)


# ---- RapidPro: docs/rapidpro.md

RAPIDPRO_STATES = {
    "queued": "received-by-gateway",
    "wired": "forwarded-by-gateway",
    "sent": "sent",
    "resent": "sent",
    "delivered": "delivered",
    "read": "delivered",
    "errored": "received-by-gateway",
    "failed": "failed",
    "mumbling": None,
}


class RapidPro(Wire):
    """A workspace: what became of a broadcast it tells when it is asked."""

    name, key_header, key_form = RAPIDPRO, "authorization", "Token {}"

    def look(self, request: Request) -> Answer:
        if request.path == "/api/v2/workspace.json":
            return Answer({"name": "generated"})
        ref = request.query.get("broadcast", "")
        words = self.books.words_of(ref)
        others = [{"broadcast": 1, "status": "failed"}, {"status": "delivered"}]
        for word in words:  # it will be heard of for sure, as nothing gets lost any more
            word.heard = word.heard or self.books.healed.is_set()
        rows = [{"broadcast": int(ref), "status": word.status} for word in words if ref.isdigit()]
        return Answer({"results": [*rows, *others]})

    def take(self, request: Request) -> Answer:
        urns = request.json["urns"]
        if request.path != "/api/v2/broadcasts.json" or len(urns) != 1 or not urns[0].startswith("tel:+"):
            self.books.wonder(f"rapidpro: {request.path}, or not one number")
        key = (urns[0].removeprefix("tel:"), request.json["text"].replace("@@", "@"))

        def accept(chance: random.Random) -> tuple[Any, Deed, Later]:
            number = self.books.chance("ref", key, self.books.asked[key]).getrandbits(50)
            deed = Deed(RAPIDPRO, key, True, Said.TAKEN, "received-by-gateway", str(number))
            status = chance.choice(list(RAPIDPRO_STATES))

            def later() -> Sequence[Call]:
                self.word(str(number), status, RAPIDPRO_STATES[status])
                return ()

            return {"id": number, "uuid": f"uuid-{number}", "status": "queued"}, deed, later

        return self.one(key, accept)
