"""What the faults are made with: sizes, killing, many webhooks at once, and the counts at the end."""

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from mjumbe import documents, states
from mjumbe.couch import Database
from mjumbe.states import Task
from tests import leaks
from tests.integration.processes import Process, family
from tests.integration.sentinel.world import INCOMING_KEY, World, number

Form = Mapping[str, str]

INCOMING = "/api/v1/sms/africastalking/incoming-messages"
REPORTS = "/api/v1/sms/africastalking/delivery-reports"
PATIENCE = 60.0  # seconds for one webhook; a service would give up long before

seed = int(os.environ.get("FAULTS_SEED") or time.time())
moments = random.Random(seed)


def sizes(names: str, short: Sequence[Any], full: Sequence[Any]) -> pytest.MarkDecorator:
    """The two sizes of a fault: for every run, and the issue's full numbers for `./scripts/test --long`."""
    return pytest.mark.parametrize(
        names, [pytest.param(*short, id="short"), pytest.param(*full, id="full", marks=pytest.mark.long)]
    )


# ---- processes


@dataclass
class House:
    """A world and the store it stands on."""

    world: World
    store: Process
    _start: Callable[[int], Process]

    def stop_store(self) -> None:
        """The way a machine loses its CouchDB: without a word."""
        self.store.stop(signal.SIGKILL)

    def start_store(self) -> None:
        """The same data at the same port again."""
        self.store = self._start(self.store.port)


def kill(process: Process) -> None:
    """kill -9, the processes that it started too, as when the machine's memory runs out."""
    for pid in family(process.popen.pid):
        os.kill(pid, signal.SIGKILL)
    process.popen.wait()


def kill_alone(process: Process) -> None:
    """kill -9 of the one process that was started, by somebody who knows of no other."""
    process.popen.kill()
    process.popen.wait()


def memory(process: Process) -> int:
    """MB of memory that a process and those it started hold."""
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in family(process.popen.pid))
    return pages * os.sysconf("SC_PAGE_SIZE") // 2**20


# ---- webhooks


def incoming(message_id: str, sender: str, text: str) -> dict[str, str]:
    return {"id": message_id, "from": leaks.number(sender), "to": "22000", "text": leaks.text(text)}


def report(ref: str, status: str, number: str) -> dict[str, str]:
    return {"id": ref, "status": status, "phoneNumber": leaks.number(number), "networkCode": "63902"}


def post_all(
    url: str,
    forms: Iterable[Form],
    at_once: int,
    each: Callable[[Form, int], None] = lambda form, status: None,
    key: str = INCOMING_KEY,
) -> list[int]:
    """Post forms, `at_once` of them under way; the HTTP status of each in their order, 0 where there was no answer.

    `each` hears of every answer as it comes.
    """
    return asyncio.run(_post_all(f"{url}?key={key}", list(forms), at_once, each))


async def _post_all(url: str, forms: list[Form], at_once: int, each: Callable[[Form, int], None]) -> list[int]:
    statuses = [0] * len(forms)
    waiting = iter(enumerate(forms))

    async def work(session: aiohttp.ClientSession) -> None:
        for place, form in waiting:
            try:
                async with session.post(url, data=form) as answer:
                    await answer.read()
                    statuses[place] = answer.status
            except (aiohttp.ClientError, TimeoutError, OSError):
                statuses[place] = 0
            each(form, statuses[place])

    connector, patience = aiohttp.TCPConnector(limit=at_once), aiohttp.ClientTimeout(PATIENCE)
    async with aiohttp.ClientSession(connector=connector, timeout=patience, trust_env=False) as session:
        await asyncio.gather(*(work(session) for _ in range(at_once)))
    return statuses


def stored(database: Database, forms: Iterable[Form]) -> set[str]:
    """The ids (the service's) of those incoming messages that have a document."""
    ids = {documents.incoming_id("africas-talking", form["id"]): form["id"] for form in forms}
    return {ids[doc_id] for doc_id in database.fetch(ids)}


# ---- what the service saw


def accepted(world: World) -> Counter[tuple[str, str]]:
    """How often the simulated service accepted each (number, text), by its own record."""
    listed = world.simulator.ask("GET", "/messages", limit=100_000)["messages"]
    return Counter((entry["to"], entry["message"]) for entry in listed)


def numbers(count: int) -> list[str]:
    """Phone numbers that no other test has, and that the simulated service treats as any."""
    prefix = number("")
    return [f"{prefix}{n:05}" for n in range(count)]


def until_accepted(world: World, count: int) -> None:
    """Wait until the simulated service accepted `count` messages."""
    answer = world.simulator.ask("GET", "/messages", limit=1, wait_for=count, timeout_ms=int(PATIENCE * 1000))
    assert answer["reached"], f"{answer['total']} of {count} messages were accepted"


def is_doubted(task: Task) -> bool:
    """Whether some request with this message ended without a stored answer."""
    return any(entry.get("in_doubt") for entry in states.history(task))
