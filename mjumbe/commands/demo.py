"""The demonstration: a health worker's SMS comes in, is answered, and the answer is delivered, step by step."""

import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from urllib.parse import quote

import click
import requests

from mjumbe import settings_document, setup, states
from mjumbe.config import Config
from mjumbe.couch import Couch
from mjumbe.credentials import Vault, VaultKeys
from mjumbe.documents import Document, incoming_id, milliseconds, read_moment, tasks_of
from mjumbe.follow import versions
from mjumbe.gateways import africas_talking
from mjumbe.states import State
from mjumbe.status import LEADER_ID

PATIENCE_SECONDS = 60.0
PHONE = "+254711000111"
TEXT = "HELP"
PERSON = {"_id": "demo-amina", "type": "person", "name": "Amina Otieno", "phone": PHONE}
CALLBACKS = {"--incoming-url": "incoming-messages", "--reports-url": "delivery-reports", "--opt-out-url": "opt-out"}


class Demo:
    """A database set up for the simulator, and one message's way through it."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        config = Config.load(environ)
        self._couch = Couch(config.couch_url)
        self._vault = Vault(self._couch, VaultKeys.load(config.vault_key, config.data))
        self._key = secrets.token_urlsafe(12)

    def callback_options(self, api_url: str) -> list[str]:
        """The simulator's options that name where it posts."""
        family = f"{api_url}/api/v1/sms/{africas_talking.CALLBACKS.slug}"
        return [
            word
            for option, route in CALLBACKS.items()
            for word in (option, f"{family}/{route}?key={quote(self._key, safe='')}")
        ]

    def configure(self, simulator_url: str) -> None:
        """What an admin does for a real account: two credentials and the settings; and a contact to be recognised."""
        setup.prepare(self._couch)
        self._vault.set(africas_talking.INCOMING_CREDENTIAL, self._key)
        self._vault.set(africas_talking.OUTGOING_CREDENTIAL, secrets.token_urlsafe(12))
        account = {"username": "sandbox", "base_url": simulator_url}
        settings_document.change(self._couch.main, {"sms": {"africas_talking": account}})
        self._couch.main.put(PERSON)

    def wait_for_sentinel(self, stop: threading.Event) -> None:
        """Until a sentinel leads, at most as long as a start may take."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self._couch.sentinel.get(LEADER_ID) is None and time.monotonic() < deadline and not stop.wait(0.05):
            pass

    def play(self, simulator_url: str, stop: threading.Event) -> bool:
        """Type the message and show what becomes of it; whether the answer was delivered."""
        pressed = milliseconds(states.now())
        click.echo(f"{'':>9}  {PHONE} types {TEXT}")
        answer = requests.post(
            f"{simulator_url}/incoming", json={"from": PHONE, "text": TEXT}, timeout=PATIENCE_SECONDS
        )
        doc_id = incoming_id(africas_talking.NAME, answer.json()["id"])
        shown = 0
        steps: list[tuple[int, str]] = []
        for doc in versions(self._couch.main, doc_id, PATIENCE_SECONDS, stop.is_set):
            steps = list(_steps(doc))
            for at, words in steps[shown:]:
                click.echo(f"{at - pressed:6d} ms  {words}")
            shown = len(steps)
            if all(states.of(task) is State.DELIVERED for task in tasks_of(doc)) and shown > 2:
                return True
        last = steps[-1][1] if steps else f"it did not come in: {answer.text}"
        if stop.is_set():
            click.echo(f"Stopped before the answer was delivered; the last step: {last}", err=True)
        else:
            click.echo(f"The answer was not delivered within {PATIENCE_SECONDS:.0f} s; the last step: {last}", err=True)
        return False


def _steps(doc: Document) -> Iterator[tuple[int, str]]:
    """What has happened to the message so far: when (ms) and what."""
    received = int(doc["reported_date"])
    yield received, f"received   stored as {doc['_id']}"
    answered = next((states.history(task) for task in tasks_of(doc)), [])
    if not doc.get("transitions"):
        return
    linked_at = (read_moment(answered[0]["timestamp"]) if answered else None) or received
    sender = f"{PERSON['name']}, document {doc['contact']['_id']}" if doc.get("contact") else "nobody we know"
    yield linked_at, f"linked     to {sender}"
    for task in tasks_of(doc):
        for entry in states.history(task):
            yield read_moment(entry["timestamp"]) or 0, _words(entry, task)


def _words(entry: Document, task: Document) -> str:
    state = entry["state"]
    if state == State.PENDING and not entry.get("state_details"):
        return f"answered   “{task['messages'][0]['message']}”"
    if state == State.FORWARDED_TO_GATEWAY:
        return f"claimed    for {entry.get('service')}, attempt {entry.get('attempt')}"
    return f"{state:<10} {entry.get('state_details') or ''}".rstrip()
