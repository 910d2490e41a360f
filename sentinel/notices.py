"""What services tell of people: opt-outs, subscriptions, Viber users. Taken from `<db>-callbacks`, kept in the main
database, then removed there."""

from collections.abc import Iterable, Sequence

import structlog

from mjumbe import phone_numbers, states
from mjumbe.couch import Couch
from mjumbe.documents import SUBSCRIBED, Document, milliseconds, product_register, read_moment
from mjumbe.live_settings import LiveSettings
from sentinel.registers import OPTED_OUT, Entry, Register, Registers

log = structlog.get_logger(__name__)

KINDS = ("opt_out", "subscription", "viber_user")


class Notices:
    """Applies notices. `take` is for the thread that follows the callbacks, `opted_out` and `left` are for any."""

    def __init__(self, couch: Couch, settings: LiveSettings, registers: Registers) -> None:
        self._couch = couch
        self._settings = settings
        self._opt_outs = registers.opt_outs
        self._viber_users = registers.viber_users

    def take(self, docs: Sequence[Document]) -> None:
        """Keep what these documents tell, then remove them."""
        notices = [doc for doc in docs if doc.get("type") in KINDS]
        notices.sort(key=lambda doc: read_moment(doc.get("received")) or 0)
        done = [doc for doc in notices if self._is_kept(doc)]
        if done:
            self._couch.callbacks.purge(done)

    def _is_kept(self, doc: Document) -> bool:
        """Keep what a notice tells; False when it is none that can be read, or CouchDB does not take what it tells."""
        try:
            if doc["type"] == "opt_out":
                return not self._opt_outs.record(self._opt_out(doc))
            if doc["type"] == "subscription":
                return self._subscription(doc)
            return self._viber_user(doc)
        except (KeyError, TypeError, AttributeError):
            # One odd document must not stop every other notice and report; it stays as it is.
            log.exception("a notice cannot be read, so it is left as it is", doc=doc["_id"])
            return False

    def opted_out(self, numbers: Iterable[str | None], source: str) -> None:
        """A service said of these people that they opted out of its messages."""
        now = milliseconds(states.now())
        entries = [
            Entry(self._number(number), OPTED_OUT, now, source)
            for number in numbers
            if number and not self._opt_outs.get(self._number(number))
        ]
        if entries:
            self._opt_outs.record(*entries)

    def left(self, numbers: Iterable[str], source: str) -> None:
        """Viber said of these people that they left the bot; the event that told of it did not come."""
        now = milliseconds(states.now())
        entries = [Entry(self._number(number), None, now, f"{source}: not subscribed") for number in numbers]
        if entries:
            self._viber_users.record(*entries)

    def _number(self, written: str) -> str:
        return phone_numbers.canonical(written, self._settings.current.default_country_code)

    def _opt_out(self, doc: Document) -> Entry:
        """A service's word, or that of a person who took it from somebody."""
        if doc.get("by"):
            value, source = None if doc["update"] == "opt-in" else OPTED_OUT, f"{doc['update']}, told by {doc['by']}"
        else:
            value, source = OPTED_OUT, f"{doc['gateway']}: opt-out from {doc.get('sender_id') or 'bulk messages'}"
        return Entry(self._number(doc["phone"]), value, doc["received"], source)

    def _subscription(self, doc: Document) -> bool:
        """A subscription is a register of its own for each product: who is in it."""
        product = product_register(doc.get("short_code") or "", doc.get("keyword") or "")
        value = SUBSCRIBED if doc["update"] == "addition" else None
        entry = Entry(self._number(doc["phone"]), value, doc["received"], f"{doc['gateway']}: {doc['update']}")
        return not Register(self._couch.main, product).record(entry)

    def _viber_user(self, doc: Document) -> bool:
        user, source = str(doc.get("user") or ""), f"viber: {doc.get('update')}"
        if doc.get("update") == "unsubscribed":
            # One person may have registered for several customers, and has left the bot for all of them.
            entries = [Entry(number, None, doc["received"], source) for number in self._viber_users.numbers_of(user)]
        elif doc.get("update") == "subscribed":
            former = self._viber_users.former_numbers_of(user)
            entries = [Entry(number, user, doc["received"], source) for number in former]
        else:
            number = self._registered_number(doc)
            entries = [Entry(number, user, doc["received"], source)] if number and user else []
        if not entries:
            log.info("a Viber user is not known by number", update=doc.get("update"))
        return not self._viber_users.record(*entries)

    def _registered_number(self, doc: Document) -> str | None:
        """The number that the person shared, or wrote, or that stands in the contact whose id they wrote."""
        code = self._settings.current.default_country_code
        if doc.get("phone"):
            return phone_numbers.canonical(str(doc["phone"]), code)
        customer = str(doc.get("customer") or "").strip()
        is_id = bool(customer) and not customer.startswith("_") and not phone_numbers.normalise(customer, code)
        # Not by `get`: what a stranger wrote may be no path, and an error here would hold up every report behind it.
        contact = self._couch.main.fetch([customer]).get(customer) if is_id else None
        return phone_numbers.normalise(str((contact or {}).get("phone") or customer), code)
