"""A world with every service: Africa's Talking at one simulator, TextBee, Viber and RapidPro at another.

So each half can be in trouble without the other.
"""

from pathlib import Path
from typing import Any

from mjumbe import states
from mjumbe.documents import Document
from mjumbe.edits import apply_edits
from mjumbe.live_settings import LiveSettings
from mjumbe.states import State
from sentinel.polls import Polls
from sentinel.services import Services
from tests import leaks
from tests.integration.processes import Process, eventually, start
from tests.integration.sentinel.world import INCOMING_KEY, SOON, Simulator, World

KEY = leaks.secret("the-key-of-the-others-3e5d")
AT, TEXTBEE, VIBER, RAPIDPRO, PHONE = "africas-talking", "textbee", "viber", "rapidpro", "medic-gateway"
CALLED = (AT, TEXTBEE, VIBER, RAPIDPRO)


class Town(World):
    """`simulator` is Africa's Talking, `twins` is the others. A person's Viber id there is their number in base64."""

    def __init__(self, couch_url: str, folder: Path) -> None:
        super().__init__(couch_url, folder)
        arguments = ["simulator", "--port", "0", "--key", KEY, "--report-delay-ms", "0"]
        proofs = ["--textbee-secret", KEY, "--viber-token", KEY, "--rapidpro-key", KEY]
        self._processes.append(start([*arguments, *proofs], folder / "twins"))
        self.twins = Simulator(self._processes[-1])
        for credential in ("textbee:outgoing", "textbee:incoming", "viber:outgoing"):
            self.vault.set(credential, KEY)
        for credential in ("rapidpro:outgoing", "rapidpro:incoming"):
            self.vault.set(credential, KEY)
        self.set(
            sms={
                "outgoing_service": AT,
                "textbee": {"base_url": f"{self.twins.url}/api/v1", "device_id": "simulated"},
                "viber": {"base_url": f"{self.twins.url}/pa", "sender_name": "Mtandao"},
                "rapidpro": {"url": self.twins.url},
            }
        )

    @property
    def api(self) -> Process:
        """The API, with all callbacks pointed at it."""
        if self._api is None:
            base = super().api.url + "/api/v1/sms"
            self.simulator.control(
                opt_out_url=f"{base}/africastalking/opt-out?key={INCOMING_KEY}",
                subscription_url=f"{base}/africastalking/subscription?key={INCOMING_KEY}",
            )
            self.twins.control(
                textbee_url=f"{base}/textbee/events",
                viber_url=f"{base}/viber/events",
                rapidpro_url=f"{base}/rapidpro/incoming-messages".replace("/v1/", "/v2/"),
            )
        return super().api

    def at(self, service: str) -> Simulator:
        """Where a service is simulated."""
        return self.simulator if service == AT else self.twins

    # ---- what the leader says

    def why_held(self, service: str) -> str:
        """Why the sentinel says that it holds a service; empty when it does not."""
        status = self.status()
        found = status.services.get(service) if status else None
        return (found.reason or "held") if found and found.held else ""

    def until_held(self, service: str, words: str) -> None:
        """Wait until the sentinel says that it holds the service for this reason."""

        def is_held() -> bool:
            assert words in self.why_held(service), f"{service} is not held for {words!r}: {self.why_held(service)!r}"
            return True

        eventually(is_held, SOON)

    def free(self, service: str) -> None:
        """A changed setting is looked into at once, not after the minute of a hold."""
        name = service.replace("-", "_")
        values = (self.couch.main.get("settings") or {})["settings"]
        self.set(sms={name: {"read_timeout": values["sms"].get(name, {}).get("read_timeout", 60) - 1}})

    # ---- messages

    def hear(self, service: str, sender: str, text: str, **more: Any) -> list[dict[str, Any]]:
        """Somebody writes to us by a service; returns how its callbacks were answered."""
        assert self.api.url
        path = "/incoming" if service == AT else f"/incoming/{service}"
        answers: list[dict[str, Any]] = self.at(service).ask("POST", path, {"from": sender, "text": text, **more})[
            "answers"
        ]
        return answers

    def register(self, number: str) -> None:
        """The person with this number tells the bot who they are."""
        assert [answer["status"] for answer in self.hear(VIBER, number, f"register+{number}")] == [200]
        eventually(lambda: (self.couch.main.get(f"viber-user:{number}") or {}).get("value"), SOON)

    def incoming(self, text: str) -> list[Document]:
        """The documents of incoming messages with this text."""
        docs = self.couch.main.beginning_with("incoming:")
        return [doc for doc in docs if doc["sms_message"]["message"] == text]

    def clear(self, doc_id: str) -> None:
        """A person takes a message back, so that it is not tried again."""

        def edit(doc: Document) -> bool:
            return states.move(doc["tasks"][0], State.CLEARED, states.now(), "by a person")

        apply_edits(self.couch.main, {doc_id: edit})

    def accepted(self, text: str) -> list[str]:
        """The numbers to which any service accepted this text, sorted, each as often as that happened."""
        return sorted(entry["to"] for at in (self.simulator, self.twins) for entry in at.messages(text))

    def polls(self) -> Polls:
        """What the sentinel does once a minute, to be done now: `polls().ask_all()`."""
        live = LiveSettings(self.couch.main)
        live.refresh()
        services = Services(lambda: live.current, self.vault.get, lambda: None)
        services.refresh()
        return Polls(self.couch, live, services)
