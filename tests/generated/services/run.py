"""A run: mjumbe's processes among services that behave at random, killed and started again, and what comes of it."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from tests.generated.services.books import AT, PHONE, RAPIDPRO, SERVICES, TEXTBEE, VIBER, Books, Letter
from tests.generated.services.callers import Callers, Phone
from tests.generated.services.house import PROBE_SECONDS, House
from tests.generated.services.judge import Rules, in_full, judge
from tests.generated.services.people import KEYWORD, REPLY, SHORT_CODE, People, insist
from tests.generated.services.server import Server
from tests.generated.services.wires import DEVICE, USERNAME, AfricasTalking, RapidPro, TextBee, Viber
from tests.integration.processes import ADMIN, eventually, make_user

MAX_ATTEMPTS = 6


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    messages: int
    letters: int
    troubles: int
    seconds: float  # over which all of it is spread
    read_timeout: int
    sentinels: int
    patience: float = 300.0


class Run:
    """One seed's. `play` returns what is wrong."""

    def __init__(self, seed: int, size: Size, folder: Path) -> None:
        self.size = size
        self.books = Books(seed)
        self._chance = self.books.chance("run")
        self.in_doubt = self._chance.choice(("retry", "hold"))
        self._callers = Callers(self.books)
        self._people = People(self.books, self._callers, size.seconds)
        wires = {
            "at": AfricasTalking(self.books, self._callers),
            "textbee": TextBee(self.books, self._callers),
            "viber": Viber(self.books, self._callers, self._people.on_viber),
            "rapidpro": RapidPro(self.books, self._callers),
        }
        self._server = Server(self.books, wires, size.read_timeout)
        self._house = House(self.books, folder, size.sentinels)
        self._callers.url = self._house.api_url
        self._phones = [
            Phone(self.books, self._callers, make_user(self._house.couch, f"phone{n}", f"a-password-{n}", ["gateway"]))
            for n in range(2)
        ]

    def play(self) -> list[str]:
        try:
            self._set_up()
            self._live()
            return self._end()
        finally:
            self._callers.stop()
            for phone in self._phones:
                phone.stop()
            self._house.stop()
            self._server.stop()

    def _set_up(self) -> None:
        url, timeout = self._server.url, {"read_timeout": self.size.read_timeout}
        batch = {"batch_size": self._chance.choice((1, 3, 100)), "concurrency": self._chance.choice((1, 4, 16))}
        sms = {
            "in_doubt": self.in_doubt,
            "max_attempts": MAX_ATTEMPTS,
            "retry_base": 1,
            "retry_max": 1,
            "reply_to": SHORT_CODE,
            "replies": [{"keyword": KEYWORD, "message": REPLY}],
            "duplicate_limit": 20,
            "africas_talking": {"username": USERNAME, "base_url": f"{url}/at", **timeout, **batch},
            "textbee": {"device_id": DEVICE, "base_url": f"{url}/textbee/api/v1", **timeout},
            "viber": {"sender_name": "Mtandao", "base_url": f"{url}/viber/pa", **timeout},
            "rapidpro": {"url": f"{url}/rapidpro", **timeout},
            "medic_gateway": {"silent_after": 3},
        }
        self._house.set(sms | self._route())
        self._people.join(self._house.couch, max(3, self.size.messages // 10), self.size.patience)

    def _route(self) -> dict[str, Any]:
        """Which services, in which order."""
        first, *others = self._chance.sample(SERVICES, len(SERVICES))
        return {"outgoing_service": first, "fallback_services": others[: self._chance.randrange(len(SERVICES))]}

    # ---- in the middle

    def _live(self) -> None:
        for phone in self._phones:
            phone.start()
        threads = [
            threading.Thread(target=self._people.write_messages, args=(self._house.couch, self.size.messages)),
            threading.Thread(target=self._people.write_letters, args=(self._phones, self.size.letters)),
        ]
        for thread in threads:
            thread.start()
        self._make_trouble()
        for thread in threads:
            thread.join()
        eventually(self._house.thawed, self.size.patience)

    def _make_trouble(self) -> None:
        """Processes end and start again, people change their minds, in the time that the run has."""
        house, chance = self._house, self._chance
        kinds = [house.kill_api, house.kill_sentinel, house.kill_sentinel, house.kill_store]
        kinds += [house.restart_api, house.freeze_api, house.restart_sentinel, house.freeze_store]
        if self.size.sentinels > 1:
            kinds.append(house.freeze_sentinel)
        troubles: list[Callable[[], Any]] = []
        for _ in range(self.size.troubles):
            kind = chance.choice(kinds)
            troubles += [lambda kind=kind: kind(chance), lambda: house.set(self._route()), self._settle]
        for trouble in troubles:
            time.sleep(chance.random() * 2 * self.size.seconds / len(troubles))
            trouble()

    def _settle(self) -> None:
        """A person says of a message in doubt whether it was sent, right or wrong."""
        docs: list[Any] = []
        insist(lambda: docs.extend(self._house.couch.main.beginning_with("")))
        tasks = [task for doc in docs for task in (*(doc.get("tasks") or ()), *(doc.get("scheduled_tasks") or ()))]
        doubted = [task["messages"][0] for task in tasks if task.get("in_doubt")]
        if not doubted:
            return
        message, sent = self._chance.choice(doubted), self._chance.random() < 0.5
        self.books.settle((in_full(message["to"]), message["message"]), sent)
        url = f"{self._callers.url}/api/v1/messages/{message['uuid']}/settle"
        try:
            answer = requests.post(url, json={"sent": sent}, auth=ADMIN, timeout=60)
        except requests.RequestException:
            return
        if answer.status_code not in (200, 409, 503):
            self.books.wonder(f"settling was answered {answer.status_code}: {answer.text[:200]}")

    # ---- the end

    def _end(self) -> list[str]:
        """From now on every service takes everything, and all is told that is to be: what is wrong in the end."""
        self.books.healed.set()
        self._callers.hurry()
        self._people.register_again()
        changed = {"read_timeout": self.size.read_timeout + 1}  # which frees a held service
        services = {name.replace("-", "_"): changed for name in (AT, TEXTBEE, RAPIDPRO, VIBER)}
        self._house.set({"outgoing_service": AT, "fallback_services": [TEXTBEE, RAPIDPRO, PHONE, VIBER], **services})
        rules = Rules(self.in_doubt, MAX_ATTEMPTS, self.books.age(), PROBE_SECONDS)
        found = ["what was told is not all heard, or not stored"]

        def is_well() -> bool:
            found[:] = [*judge(self.books, self._house.couch.main.beginning_with(""), rules), *self._house.ended()]
            return not found

        try:
            eventually(self._is_told, self.size.patience)
            self._show_inbox()
            eventually(lambda: self.books.read_until == len(self.books.inbox(AT)), self.size.patience)
            eventually(is_well, self.size.patience)
            # Whoever leads next looks at all of it anew, and must send nothing but what is new.
            self._house.restart_sentinels()
            self._people.write_one(self._house.couch)
            eventually(is_well, self.size.patience)
        except AssertionError:
            return found
        return []

    def _is_told(self) -> bool:
        """Whether all that is to be told is heard and stored."""
        docs = self._house.couch.main.beginning_with("incoming:")
        stored = {(doc["sms_message"]["from"], doc["sms_message"]["message"]) for doc in docs}
        heard = {(letter.sender, letter.text) for letter in self._heard()}
        return self._callers.are_done() and all(phone.is_done() for phone in self._phones) and heard <= stored

    def _show_inbox(self) -> None:
        """Now Africa's Talking's inbox shows what came by callbacks, too: it is stored, and so must not be again."""
        for letter in self._heard():
            if letter.service == AT and not letter.listed:
                self.books.show(letter)

    def _heard(self) -> list[Letter]:
        return [letter for letter in self.books.letters if letter.heard]
