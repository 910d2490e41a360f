"""The books of services that behave at random: what they were asked and said, what they told us, who wrote to us.

Everything in them is from the services' side. The judge holds the documents against them.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

Key = tuple[str, str]  # a message: the number it goes to, and its text

AT, TEXTBEE, VIBER, RAPIDPRO, PHONE = "africas-talking", "textbee", "viber", "rapidpro", "medic-gateway"
SERVICES = (AT, TEXTBEE, VIBER, RAPIDPRO, PHONE)


class Said(Enum):
    """What a service's answer tells of one message, as docs/ have it."""

    TAKEN = auto()  # it has the message
    UNCLEAR = auto()  # no answer, or none that can be read: it may have it or not
    PASSING = auto()  # it has not: again, at most `sms.max_attempts` times
    HELD = auto()  # it has not, and not for this message's sake: no attempt is spent
    LATER = auto()  # it has not, and wants it tomorrow
    FINAL = auto()  # it will never take it
    ODD = auto()  # it has not, and docs/ do not tell what follows


@dataclass
class Deed:
    """One request with one message, and what the service made of it."""

    service: str
    key: Key
    taken: bool
    said: Said
    state: str = ""  # what the answer says the message is in, if it was taken
    ref: str | None = None  # as the answer told it
    link_id: str | None = None
    premium: bool = False
    at: float = field(default_factory=time.monotonic)


@dataclass
class Word:
    """One thing that a service tells of a message later: a delivery report, a status."""

    service: str
    ref: str
    status: str
    state: str | None  # what it means, None for what nobody knows
    again: bool = False  # it failed for now, and goes out again
    heard: bool = False  # whether it was acknowledged


@dataclass
class Letter:
    """An SMS that somebody sent to us."""

    service: str
    sender: str
    text: str
    link_id: str | None = None
    date: str = ""  # as the service tells it
    listed: bool = False  # the service's inbox has it for whoever asks
    heard: bool = False  # whether it was acknowledged

    def was_heard(self) -> None:
        self.heard = True


@dataclass(frozen=True)
class Order:
    """A message that was given to mjumbe."""

    key: Key
    service: str | None = None  # the only one that may send it
    premium: bool = False  # whether its author said that the recipient pays


class Books:
    """All of it. Safe for many threads."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.healed = threading.Event()  # from then on every service takes everything, and tells the rest
        self.regulars: set[str] = set()  # numbers that get several messages
        self.orders: list[Order] = []
        self.deeds: list[Deed] = []
        self.words: list[Word] = []
        self.letters: list[Letter] = []
        self.read_until = 0  # the place in Africa's Talking's inbox behind which mjumbe looked last
        self.inboxes: dict[str, list[Letter]] = {service: [] for service in SERVICES}
        self.kills: list[float] = []  # when a sentinel ended or stood still (monotonic)
        self._began = time.monotonic()
        self.settled: Counter[tuple[Key, bool]] = Counter()  # what a person said of a message: whether it was sent
        self.oddities: list[str] = []  # what no service may be asked, and no callback be answered
        self.asked: Counter[Key] = Counter()
        self._lock = threading.Lock()

    def chance(self, *what: object) -> random.Random:
        """The same chances for the same thing under the same seed, whichever thread comes first."""
        return random.Random(f"{self.seed}:{what}")

    def ask(self, keys: Iterable[Key]) -> int:
        """Note that a service is asked to send these; how often that happened to the first."""
        with self._lock:
            keys = list(keys)
            self.asked.update(keys)
            return self.asked[keys[0]] if keys else 0

    def enter(self, deed: Deed) -> Deed:
        with self._lock:
            self.deeds.append(deed)
        return deed

    def tell(self, word: Word) -> Word:
        with self._lock:
            self.words.append(word)
        return word

    def write(self, letter: Letter) -> Letter:
        with self._lock:
            self.letters.append(letter)
        return letter

    def order(self, order: Order) -> None:
        with self._lock:
            self.orders.append(order)

    def kill(self) -> None:
        with self._lock:
            self.kills.append(time.monotonic())

    def age(self) -> float:
        """Seconds that the run has taken."""
        return time.monotonic() - self._began

    def settle(self, key: Key, sent: bool) -> None:
        with self._lock:
            self.settled[key, sent] += 1

    def wonder(self, oddity: str) -> None:
        with self._lock:
            self.settled: Counter[tuple[Key, bool]] = Counter()  # what a person said of a message: whether it was sent
        self.oddities.append(oddity)

    def show(self, letter: Letter) -> int:
        """Put it into its service's inbox, for whoever asks; its place there."""
        with self._lock:
            letter.listed = True
            self.inboxes[letter.service].append(letter)
            return len(self.inboxes[letter.service])

    def inbox(self, service: str) -> Sequence[tuple[int, Letter]]:
        """What is in an inbox, with the places, from 1 on."""
        with self._lock:
            return tuple(enumerate(self.inboxes[service], 1))

    def words_of(self, ref: str) -> list[Word]:
        with self._lock:
            return [word for word in self.words if word.ref == ref]
