"""A run: mjumbe's processes among services that behave at random, killed and started again, and what comes of it."""

import base64
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests

from mjumbe import documents, settings, setup, states
from mjumbe.couch import ConflictError, Couch, CouchError, UnavailableError
from mjumbe.credentials import Vault, VaultKeys
from tests import leaks
from tests.faults.rig import kill
from tests.generated.services_books import AT, PHONE, RAPIDPRO, SERVICES, TEXTBEE, VIBER, Books, Letter, Order
from tests.generated.services_callers import KEY, Call, Callers, Phone, form, signed
from tests.generated.services_judge import Rules, judge
from tests.generated.services_server import Server
from tests.generated.services_wires import DEVICE, USERNAME, AfricasTalking, RapidPro, TextBee, Viber
from tests.integration.processes import ADMIN, ROOT, VAULT_KEY, Process, eventually, make_user, start, stop_all

# A minute is too long to wait for in a test: what mjumbe does once a minute it does here every PROBE_SECONDS.
PROBE_SECONDS = 2.0
SENTINEL = f"""
from datetime import timedelta
from mjumbe.gateways import africas_talking
from sentinel import claims, outbox, polls, reports, schedule, service
service.PROBE_SECONDS, service.BREAKER_SECONDS, service.LEFT_ALONE_SECONDS = {PROBE_SECONDS}, 0.5, 1.0
polls.POLL_SECONDS, polls.SPOOL_SECONDS, africas_talking.UNSETTLED = 1.0, 1.0, timedelta(seconds=1)
reports.LOOK_AGAIN_SECONDS, reports.LOOK_AT_ALL_SECONDS = 1.0, 3.0
claims.UNREACHED_WAIT, outbox.LEFT_SECONDS = timedelta(seconds=2), 2.0
schedule.SETTINGS_SECONDS, schedule.CLAIMS_SECONDS, schedule.MINUTE_SECONDS, schedule.STUCK_SECONDS = 1, 2, 2, 2
from mjumbe.cli import main
main()
"""
KEYWORD, REPLY = "HABARI", "Nzuri, asante sana kwa kuuliza"
MAX_ATTEMPTS = 6


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    messages: int
    letters: int
    kills: int
    seconds: float  # over which all of it is spread
    read_timeout: int
    patience: float = 240.0


class Run:
    """One seed's. `play` returns what is wrong."""

    def __init__(self, seed: int, size: Size, folder: Path) -> None:
        self.size, self._folder = size, folder
        self.books = Books(seed)
        self._chance = self.books.chance("run")
        self._callers = Callers(self.books)
        self._began = time.monotonic()
        prefix = f"+2547{seed % 1000:03}"
        self._numbers = iter(leaks.number(f"{prefix}{n:05}") for n in random.Random(seed).sample(range(100_000), 5_000))
        self._people = {
            number: _viber_id(number) for number in (next(self._numbers) for _ in range(size.messages // 3))
        }
        self.books.regulars |= self._people.keys()
        wires = {
            "at": AfricasTalking(self.books, self._callers),
            "textbee": TextBee(self.books, self._callers),
            "viber": Viber(self.books, self._callers, {name: number for number, name in self._people.items()}),
            "rapidpro": RapidPro(self.books, self._callers),
        }
        self._server = Server(self.books, wires, size.read_timeout)
        self.in_doubt = self._chance.choice(("retry", "hold"))
        self._processes: list[Process] = []
        self._port = 0
        self._store = self._start_store(0)
        login = ":".join(ADMIN)
        self._couch_url = f"{self._store.url.replace('://', f'://{login}@')}/test-{uuid.uuid4().hex}"
        self.couch = Couch(self._couch_url)
        setup.prepare(self.couch)
        self._set_up()
        self._phones = [
            Phone(self.books, self._callers, make_user(self.couch, f"phone{n}", f"phone-password-{n}", ["gateway"]))
            for n in range(2)
        ]
        self._api = self._start_api()
        self._sentinel = self._start_sentinel()

    # ---- processes

    def _start_store(self, port: int) -> Process:
        arguments = ["embedded", "--port", str(port), "--data", str(self._folder / "store"), "--admin", ":".join(ADMIN)]
        return self._started(start(arguments, self._output("store")))

    def _start_api(self) -> Process:
        arguments = ["mjumbe.cli", "api", "--port", str(self._port)]
        process = self._started(start(arguments, self._output("api"), self._environment()))
        self._port, self._callers.url = process.port, process.url
        return process

    def _start_sentinel(self) -> Process:
        output = self._output("sentinel")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("MJUMBE_", "COUCH_"))}
        with output.open("wb") as stream:
            popen = subprocess.Popen(
                [sys.executable, "-c", SENTINEL, "sentinel"],
                cwd=ROOT,
                env=clean | self._environment(),
                stdout=stream,
                stderr=stream,
            )
        return self._started(Process(popen, output))

    def _started(self, process: Process) -> Process:
        self._processes.append(process)
        return process

    def _output(self, name: str) -> Path:
        return self._folder / f"{name}-{len(self._processes)}"

    def _environment(self) -> dict[str, str]:
        url, folder = self._couch_url, str(self._folder)
        return {"COUCH_URL": url, "MJUMBE_DATA": folder, "MJUMBE_VAULT_KEY": VAULT_KEY, "MJUMBE_LOG": "json"}

    # ---- settings

    def _set_up(self) -> None:
        vault = Vault(self.couch, VaultKeys.load(VAULT_KEY, self._folder))
        for service in ("africastalking.com", "textbee", "rapidpro"):
            vault.set(f"{service}:incoming", KEY)
        for service in ("africastalking.com", "textbee", "rapidpro", "viber"):
            vault.set(f"{service}:outgoing", KEY)
        url, timeout = self._server.url, {"read_timeout": self.size.read_timeout}
        batch = {"batch_size": self._chance.choice((1, 3, 100)), "concurrency": self._chance.choice((1, 4, 16))}
        self._set(
            in_doubt=self.in_doubt,
            max_attempts=MAX_ATTEMPTS,
            retry_base=1,
            retry_max=1,
            reply_to="22000",
            replies=[{"keyword": KEYWORD, "message": REPLY}],
            africas_talking={"username": USERNAME, "base_url": f"{url}/at", **timeout, **batch},
            textbee={"device_id": DEVICE, "base_url": f"{url}/textbee/api/v1", **timeout},
            viber={"sender_name": "Mtandao", "base_url": f"{url}/viber/pa", **timeout},
            rapidpro={"url": f"{url}/rapidpro", **timeout},
            medic_gateway={"silent_after": 3},
            **self._route(),
        )

    def _route(self) -> dict[str, Any]:
        """Which services, in which order."""
        first, *others = self._chance.sample(SERVICES, len(SERVICES))
        return {"outgoing_service": first, "fallback_services": others[: self._chance.randrange(len(SERVICES))]}

    def _set(self, **sms: Any) -> None:
        def change() -> None:
            doc = self.couch.main.get("settings")
            assert doc is not None
            doc["settings"] = settings.merge(doc["settings"], {"sms": sms})
            settings.parse(doc["settings"])
            self.couch.main.put(doc)

        _insist(change)

    # ---- what happens

    def play(self) -> list[str]:
        try:
            return self._play()
        finally:
            self._callers.stop()
            for phone in self._phones:
                phone.stop()
            stop_all(self._processes)
            self._server.stop()

    def _play(self) -> list[str]:
        self._register()
        for phone in self._phones:
            phone.start()
        work = [self._write_messages, self._write_letters]
        threads = [threading.Thread(target=each, args=(self.books.chance(each.__name__),)) for each in work]
        for thread in threads:
            thread.start()
        self._make_trouble()
        for thread in threads:
            thread.join()
        return self._heal()

    def _register(self) -> None:
        """Everybody who has Viber tells the bot who they are."""
        for number, name in self._people.items():
            self._say(name, f"register+{number}")
        eventually(self._callers.are_done, self.size.patience)
        eventually(
            lambda: all((self.couch.main.get(f"viber-user:{number}") or {}).get("value") for number in self._people),
            self.size.patience,
        )

    def _say(self, name: str, text: str, after: float = 0.0, *, again: int = 0) -> None:
        """Somebody writes to the bot."""
        letter = self.books.write(Letter(VIBER, name, text))
        token = 2**62 + self.books.chance("said", name, text).getrandbits(60)
        message = {"type": "text", "text": leaks.text(text)}
        event = {"event": "message", "timestamp": 1516678387902, "message_token": token, "message": message}
        call = signed("viber/events", "X-Viber-Content-Signature", {**event, "sender": {"id": name}}, _heard(letter))
        for _ in range(again + 1):
            self._callers.call(call, after)

    def _make_trouble(self) -> None:
        """Kill and start again, and change the settings, in the time that the run has."""
        kills = [self._kill_api, self._kill_sentinel, self._kill_store]
        deeds: list[Callable[[], None]] = [self._chance.choice(kills) for _ in range(self.size.kills)]
        deeds += [lambda: self._set(**self._route()) for _ in range(self.size.kills)]
        self._chance.shuffle(deeds)
        for deed in deeds:
            time.sleep(self._chance.random() * 2 * self.size.seconds / len(deeds))
            deed()

    def _kill_api(self) -> None:
        self.books.kill("api")
        kill(self._api)
        time.sleep(self._chance.random())
        self._api = self._start_api()

    def _kill_sentinel(self) -> None:
        self.books.kill("sentinel")
        self._sentinel.popen.kill()
        self._sentinel.popen.wait()
        time.sleep(self._chance.random())
        self._sentinel = self._start_sentinel()

    def _kill_store(self) -> None:
        self.books.kill("store")
        port = self._store.port
        self._store.stop(signal.SIGKILL)
        time.sleep(self._chance.random() * 3)
        self._store = self._start_store(port)

    # ---- messages out

    def _write_messages(self, chance: random.Random) -> None:
        """Alone, in bulks of one text, one text twice to one person; by the API or as documents."""
        left, serial = self.size.messages, 0
        while left > 0:
            time.sleep(chance.random() * 2 * self.size.seconds / self.size.messages)
            serial += 1
            count = chance.choice((1, 1, 1, chance.randrange(1, 8)))
            text = leaks.text(f"message {serial} @home for you" + chance.choice(("", " ü", " @@ contact.name")))
            numbers = [self._recipient(chance) for _ in range(count)]
            if count == 2 and chance.random() < 0.3:
                numbers[1] = numbers[0]
                self.books.regulars.add(numbers[0])
            facts = self._facts(chance, numbers)
            for number in numbers:
                self.books.order(Order((number, text), facts.get("service"), bool(facts.get("premium"))))
            self._post(chance, numbers, text, facts) if chance.random() < 0.5 else self._store_docs(
                numbers, text, facts
            )
            left -= count

    def _recipient(self, chance: random.Random) -> str:
        return chance.choice(list(self._people)) if chance.random() < 0.3 else next(self._numbers)

    def _facts(self, chance: random.Random, numbers: list[str]) -> dict[str, Any]:
        """What is said of a message besides."""
        facts: dict[str, Any] = {}
        if chance.random() < 0.4:
            reached = set(numbers) <= set(self._people)
            facts["service"] = chance.choice(SERVICES if reached else [name for name in SERVICES if name != VIBER])
        if chance.random() < 0.2:
            facts["premium"] = True
        return facts

    def _post(self, chance: random.Random, numbers: list[str], text: str, facts: dict[str, Any]) -> None:
        """By the API, until it says that it has them; at times once more."""
        messages = [{"to": number, "message": text, "uuid": uuid.uuid4().hex, **facts} for number in numbers]

        def post() -> None:
            answer = requests.post(f"{self._callers.url}/api/v1/messages", json=messages, auth=ADMIN, timeout=60)
            if answer.status_code not in (202, 503):
                self.books.wonder(f"messages were answered {answer.status_code}: {answer.text[:200]}")
            if answer.status_code == 503:
                raise requests.ConnectionError

        _insist(post)
        while chance.random() < 0.2:
            _insist(post)

    def _store_docs(self, numbers: list[str], text: str, facts: dict[str, Any]) -> None:
        """As documents, until the store has them."""
        now = states.now()
        facts = {"via" if name == "service" else name: value for name, value in facts.items()}
        docs = [
            documents.outgoing_document(documents.new_task(number, text, now, **facts), now, None) for number in numbers
        ]

        def store() -> None:
            assert all(saved.rev or saved.conflict for saved in self.couch.main.bulk(docs))

        _insist(store)

    # ---- messages in

    def _write_letters(self, chance: random.Random) -> None:
        """Each by any service, again at once and later; some ask for an answer."""
        for serial in range(self.size.letters):
            time.sleep(chance.random() * 2 * self.size.seconds / self.size.letters)
            text = f"{chance.choice((KEYWORD, 'jambo'))} letter {serial} @ü"
            service = chance.choice(SERVICES)
            if service == VIBER:
                self._say(chance.choice(list(self._people.values())), text, again=chance.randrange(3))
            else:
                self._receive(chance, serial, service, leaks.text(text))

    def _receive(self, chance: random.Random, serial: int, service: str, text: str) -> None:
        link_id = f"link-{serial}" if service == AT and chance.random() < 0.5 else None
        date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
        letter = self.books.write(Letter(service, next(self._numbers), text, link_id, date))
        is_told = service not in (AT, TEXTBEE) or chance.random() < 0.6
        # Africa's Talking's inbox has ids of its own, so it must not show what is still on its way.
        place = self.books.show(letter) if service == TEXTBEE or not is_told else 0
        if service == PHONE:
            chance.choice(self._phones).receive(f"phone-letter-{serial}", letter)
        elif is_told:
            call = _call_of(letter, serial, place)
            self._callers.call(call)
            while chance.random() < 0.4:
                self._callers.call(call, chance.choice((0.0, chance.random() * 8)))

    # ---- the end

    def _letters_heard(self) -> list[Letter]:
        return [letter for letter in self.books.letters if letter.heard]

    def _stored(self) -> set[tuple[str, str]]:
        docs = self.couch.main.beginning_with("incoming:")
        return {(doc["sms_message"]["from"], doc["sms_message"]["message"]) for doc in docs}

    def _heal(self) -> list[str]:
        """From now on every service takes everything and all that is to be told is told: what is wrong in the end."""
        self.books.healed.set()
        self._callers.hurry()
        for number, name in self._people.items():  # some were taken out of the map, as they had left
            self._say(name, f"register+{number} again")
        order = [AT, TEXTBEE, RAPIDPRO, PHONE, VIBER]
        changed = {"read_timeout": self.size.read_timeout + 1}  # which frees a held service
        services = {name.replace("-", "_"): changed for name in (AT, TEXTBEE, RAPIDPRO, VIBER)}
        self._set(outgoing_service=order[0], fallback_services=order[1:], **services)
        rules = Rules(self.in_doubt, MAX_ATTEMPTS, time.monotonic() - self._began, PROBE_SECONDS)
        found = ["it never ended"]

        eventually(self._callers.are_done, self.size.patience)
        eventually(lambda: set(map(_key, self._letters_heard())) <= self._stored(), self.size.patience)
        for letter in self._letters_heard():
            if letter.service == AT and not letter.listed:
                self.books.show(letter)

        def is_well() -> bool:
            assert self._callers.are_done() and all(phone.is_done() for phone in self._phones), "all is told"
            found[:] = judge(self.books, self.couch.main.beginning_with(""), rules)
            if self._sentinel.popen.poll() is not None:
                found.append("the sentinel ended")
            return not found

        try:
            eventually(is_well, self.size.patience)
        except AssertionError as error:
            return found or [str(error)]
        return []


def _key(letter: Letter) -> tuple[str, str]:
    return letter.sender, letter.text


def _call_of(letter: Letter, serial: int, place: int) -> Call:
    """The webhook by which a service tells of it."""
    heard, name = _heard(letter), f"letter-{serial}"
    if letter.service == AT:
        fields = {"id": name, "from": letter.sender, "to": "22000", "text": letter.text, "date": letter.date}
        return form("incoming-messages", fields | ({"linkId": letter.link_id} if letter.link_id else {}), heard)
    if letter.service == TEXTBEE:
        told = {"smsId": f"sms-{place}", "sender": letter.sender, "message": letter.text}
        return signed("textbee/events", "X-Signature", {"webhookEvent": "MESSAGE_RECEIVED", **told}, heard)
    body = json.dumps({"id": name, "from": letter.sender, "content": letter.text}).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Token {KEY}"}
    return Call("/api/v1/sms/rapidpro/incoming-messages", body, headers, heard, insists=False)


def _viber_id(number: str) -> str:
    return base64.b64encode(f"viber {number}".encode()).decode()


def _heard(letter: Letter) -> Callable[[], None]:
    def heard() -> None:
        letter.heard = True

    return heard


def _insist(deed: Callable[[], None]) -> None:
    """Until it is done: a store, or an API, may be away."""
    while True:
        try:
            return deed()
        except (UnavailableError, CouchError, ConflictError, requests.RequestException):
            time.sleep(0.1)
