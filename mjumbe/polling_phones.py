"""The phones that poll `/api/sms`: when one was last heard of, in `<db>-sentinel`, where both processes find it."""

import time

from mjumbe import states
from mjumbe.couch import Couch
from mjumbe.documents import Document, milliseconds, read_moment
from mjumbe.edits import apply_edits
from mjumbe.gateways.base import Check
from mjumbe.settings import Settings

PREFIX = "phone:"  # and the phone's user
NOTED_SECONDS = 15.0  # a poll within so many of the last one that was noted is not: no write for each


class PollingPhones:
    """Notes polls, and tells of the newest. Any number of processes may note."""

    def __init__(self, couch: Couch) -> None:
        self._database = couch.sentinel
        self._noted: dict[str, float] = {}  # when this process last noted a user's poll (monotonic)

    def polled(self, user: str) -> None:
        """The phone of this user polls now. Raises UnavailableError."""
        if time.monotonic() - self._noted.get(user, -NOTED_SECONDS) < NOTED_SECONDS:
            return
        moment = states.timestamp(states.now())

        def note(doc: Document) -> bool:
            doc.update(type="phone", user=user, polled=moment)
            return True

        apply_edits(self._database, {PREFIX + user: note}, create=True)
        self._noted[user] = time.monotonic()

    def last_poll(self) -> str | None:
        """When any phone last polled (ISO 8601, UTC), None when none ever did. Raises UnavailableError.

        A moment that is yet to come was noted before the clock was set back, perhaps of a phone that is no more.
        """
        polls = [str(doc.get("polled") or "") for doc in self._database.beginning_with(PREFIX)]
        latest = states.latest()
        return max((polled for polled in polls if polled <= latest), default="") or None

    def check(self, settings: Settings) -> Check:
        """Whether a phone polls, as far as can be told: nothing here can call it. Raises UnavailableError."""
        polled = self.last_poll()
        if polled is None:
            return Check(
                False, "The phone polls by itself; none has yet. Set the app to this server, with a user's login"
            )
        silent = milliseconds(states.now()) - (read_moment(polled) or 0)
        ok = silent < settings.sms.medic_gateway.silent_after * 1000
        asked = "" if ok else ": is it on, in reach, and set to this server?"
        return Check(ok, f"The phone polls by itself; one did last at {polled}{asked}")
