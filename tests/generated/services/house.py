"""mjumbe's processes in a run: a store, an API, sentinels, and what may befall them."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mjumbe import settings, setup
from mjumbe.couch import Couch
from mjumbe.credentials import Vault, VaultKeys
from tests.faults.rig import kill
from tests.generated.services.books import Books
from tests.generated.services.callers import KEY
from tests.generated.services.people import insist
from tests.integration.processes import ADMIN, ROOT, VAULT_KEY, Process, start, stop_all

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
FROZEN_SECONDS = 12.0  # longer than a lease lasts
SERVICES = ("africastalking.com", "textbee", "rapidpro")


class House:
    """All of them. `api_url` is the API's, also while it is away."""

    def __init__(self, books: Books, folder: Path, sentinels: int) -> None:
        self._books, self._folder = books, folder
        self._processes: list[Process] = []
        self._thaws: list[threading.Timer] = []
        self._store = self._start_store(0)
        login = ":".join(ADMIN)
        self._couch_url = f"{self._store.url.replace('://', f'://{login}@')}/test-{uuid.uuid4().hex}"
        self.couch = Couch(self._couch_url)
        setup.prepare(self.couch)
        vault = Vault(self.couch, VaultKeys.load(VAULT_KEY, folder))
        for service in SERVICES:
            vault.set(f"{service}:incoming", KEY)
        for service in (*SERVICES, "viber"):
            vault.set(f"{service}:outgoing", KEY)
        self._api = self._start_api(0)
        self.api_url = self._api.url
        self._sentinels = [self._start_sentinel() for _ in range(sentinels)]

    def set(self, sms: Mapping[str, Any]) -> None:
        """Change the settings as a person would, by hand."""

        def change() -> None:
            doc = self.couch.main.get("settings")
            assert doc is not None
            doc["settings"] = settings.merge(doc["settings"], {"sms": sms})
            settings.parse(doc["settings"])
            self.couch.main.put(doc)

        insist(change)

    def ended(self) -> list[str]:
        """Those that ended by themselves."""
        return [
            str(each.output) for each in (self._store, self._api, *self._sentinels) if each.popen.poll() is not None
        ]

    def stop(self) -> None:
        for thaw in self._thaws:
            thaw.cancel()
        stop_all(self._processes)

    # ---- starts

    def _start_store(self, port: int) -> Process:
        arguments = ["embedded", "--port", str(port), "--data", str(self._folder / "store"), "--admin", ":".join(ADMIN)]
        return self._started(start(arguments, self._output("store")))

    def _start_api(self, port: int) -> Process:
        arguments = ["mjumbe.cli", "api", "--port", str(port)]
        return self._started(start(arguments, self._output("api"), self._environment()))

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

    # ---- what befalls them

    def kill_api(self, chance: random.Random) -> None:
        kill(self._api)
        time.sleep(chance.random())
        self._api = self._start_api(self._api.port)

    def restart_api(self, chance: random.Random) -> None:
        self._api.stop()
        self._api = self._start_api(self._api.port)

    def freeze_api(self, chance: random.Random) -> None:
        _freeze(self._api, chance.random() * 2)

    def kill_sentinel(self, chance: random.Random) -> None:
        self._books.kill()
        place = chance.randrange(len(self._sentinels))
        self._sentinels[place].stop(signal.SIGKILL)
        time.sleep(chance.random())
        self._sentinels[place] = self._start_sentinel()

    def restart_sentinel(self, chance: random.Random) -> None:
        """As at an update: what is under way is stored first, so nothing is in doubt after it."""
        place = chance.randrange(len(self._sentinels))
        self._sentinels[place].stop()
        self._sentinels[place] = self._start_sentinel()

    def restart_sentinels(self) -> None:
        for place, each in enumerate(self._sentinels):
            each.stop()
            self._sentinels[place] = self._start_sentinel()

    def freeze_sentinel(self, chance: random.Random) -> None:
        """Until another one leads; what it had begun it may end, and nothing else."""
        self._books.kill()
        frozen = chance.choice(self._sentinels)
        frozen.popen.send_signal(signal.SIGSTOP)
        thaw = threading.Timer(FROZEN_SECONDS, frozen.popen.send_signal, (signal.SIGCONT,))
        thaw.start()
        self._thaws.append(thaw)

    def kill_store(self, chance: random.Random) -> None:
        self._store.stop(signal.SIGKILL)
        time.sleep(chance.random() * 3)
        self._store = self._start_store(self._store.port)

    def freeze_store(self, chance: random.Random) -> None:
        _freeze(self._store, chance.random() * 4)

    def thawed(self) -> bool:
        return not any(thaw.is_alive() for thaw in self._thaws)


def _freeze(process: Process, seconds: float) -> None:
    process.popen.send_signal(signal.SIGSTOP)
    time.sleep(seconds)
    process.popen.send_signal(signal.SIGCONT)
