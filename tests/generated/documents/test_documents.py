"""Documents of chance go out while processes die and other programs change them; an oracle says what must come of each.

`FAULTS_SEED` repeats a run: the documents, the settings, what is done to them and in which order. When exactly a
process dies is the machine's to say.
"""

import os
import random
import signal
from collections.abc import Callable
from typing import Any

import pytest

from mjumbe import documents, states
from tests.faults.rig import House, kill, seed
from tests.generated.documents.generator import HELP, Generator, Numbers, region
from tests.generated.documents.oracle import Expected, Oracle
from tests.generated.documents.others import Others
from tests.generated.documents.phone import Phone
from tests.generated.documents.verdict import (
    Progress,
    Tasks,
    Verdict,
    counted,
    history_goes_back,
    summary,
    tasks_by_mark,
)
from tests.integration.gateways.town import AT, Town
from tests.integration.processes import Process, eventually
from tests.integration.sentinel.world import number

PATIENCE = 240.0  # a service that failed rests for up to a minute before it is asked again
SHORT_SEED = int(os.environ.get("FAULTS_SEED") or 1)


class Story:
    """One run: what was written, done and expected."""

    def __init__(self, chance: random.Random, house: House, town: Town) -> None:
        self._chance = chance
        self._house = house
        self._town = town
        self._numbers = Numbers(lambda: number(""))
        self._region = region(chance, self._numbers)
        self._others = Others(chance, Generator(chance, self._numbers, self._region), town)
        self._oracle = Oracle(self._region, documents.milliseconds(states.now()))
        self._last = self._numbers.ordinary()
        self._answers: list[Expected] = []
        self._progress = Progress()
        self._sentinels: list[Process] = []
        self._phones = [Phone(chance, town, name) for name in ("first", "second")]
        self.told: list[str] = []  # what was done

    def begin(self) -> None:
        town = self._town
        assert town.api.url
        town.couch.main.bulk(self._region.documents)
        town.set(**self._region.settings)
        for simulator in (town.simulator, town.twins):
            simulator.control(latency_ms=self._chance.choice([0, 200, 500]))
        self.told.append(f"settings {self._region.settings}")
        self._sentinels = [town.start_sentinel(), town.start_sentinel(leads=False)]

    def go_on(self, count: int) -> None:
        """Some documents, some that others do to them, and something that goes wrong."""
        self._others.write(count)
        happenings = [self._ask_for_help, self._write_by_the_api, self._opt_out, self._trouble, self._bad_service]
        happenings += [self._meddle] * 10
        self._chance.shuffle(happenings)
        for happening in happenings:
            self.told.append(happening())
            self._chance.choice(self._phones).poll()
            if self._chance.random() < 0.3:
                self._wait_for_some()
        self._see_that_nothing_goes_back()

    def end(self) -> None:
        """All is as expected at last, and stays so when another sentinel looks at everything."""
        eventually(self._is_over, PATIENCE)
        for sentinel in self._sentinels:
            kill(sentinel)
        self._sentinels = [self._town.start_sentinel()]
        self._town.until(self._town.write(self._last, "the last message"), "delivered", PATIENCE)
        eventually(self._is_over, PATIENCE)  # what failed was being tried again, perhaps
        self._see_that_nothing_goes_back()
        self.told.append(summary(self._tasks()))

    # ---- what happens

    def _meddle(self) -> str:
        return self._others.meddle()

    def _ask_for_help(self) -> str:
        """Somebody writes a keyword; the callback may come three times at once."""
        sender, repeat = self._numbers.ordinary(), self._chance.choice([1, 3])
        self._hear(sender, "HELP", repeat)
        return f"{sender} asks for help {repeat} times"

    def _write_by_the_api(self, during: Callable[[], None] = lambda: None) -> str:
        """A program writes a message again until it is taken, and once more, as one does that got no answer."""
        to, uuid = self._numbers.ordinary(), f"{self._chance.getrandbits(128):032x}"
        message = {"to": to, "message": "by the API", "uuid": uuid}
        statuses = [self._town.post("/api/v1/messages", message).status_code]
        during()
        eventually(lambda: self._town.post("/api/v1/messages", message).status_code == 202, PATIENCE)
        (taken,) = self._town.post("/api/v1/messages", message).json()["messages"]
        self._answers.append(self._oracle.answer(taken["id"], to, message["message"]))
        return f"{to} is written to by the API, {statuses}"

    def _opt_out(self) -> str:
        """Somebody writes STOP, and is written to all the same."""
        sender = self._numbers.ordinary()
        self._hear(sender, "stop it", 1)
        eventually(lambda: self._town.couch.main.get(f"opt-out:{sender}"), PATIENCE)
        self._oracle.opted_out.add(sender)
        self._others.write_to(sender)
        return f"{sender} opts out"

    def _hear(self, sender: str, text: str, repeat: int) -> None:
        answer = self._town.simulator.ask(
            "POST", "/incoming", {"from": sender, "text": text, "repeat": repeat, "concurrency": repeat}
        )
        assert {post["status"] for post in answer["answers"]} == {200}, answer
        doc_id = documents.incoming_id(AT, answer["id"])
        if text == "HELP":
            self._answers.append(self._oracle.answer(doc_id, sender, HELP))

    def _trouble(self) -> str:
        trouble = self._chance.choice(
            [self._kill_one, self._kill_one, self._kill_all, self._restart, self._restart_store, self._freeze]
        )
        trouble()
        return trouble.__name__

    def _bad_service(self) -> str:
        """Africa's Talking fails for a moment, in a way that leaves requests undone or in doubt."""
        faults: list[dict[str, Any]] = [
            {"error_rate": 0.5},
            {"drop_after_accept": True},
            {"down": True},
            {"answer_body": "<html>"},
        ]
        fault = self._chance.choice(faults)
        before = self._town.simulator.ask("GET", "/control")
        self._town.simulator.control(**fault)
        self._wait_for_some()
        self._town.simulator.control(**{name: before[name] for name in fault})
        return f"the service has {fault}"

    def _freeze(self) -> None:
        """One stands still, as with its machine, while the other goes on; it may believe that it leads still."""
        os.kill(self._sentinels[0].popen.pid, signal.SIGSTOP)
        try:
            self._meddle()
            self._town.wait_for_leader(self._sentinels[1])
        finally:
            os.kill(self._sentinels[0].popen.pid, signal.SIGCONT)

    def _kill_one(self) -> None:
        kill(self._sentinels.pop(self._chance.randrange(2)))
        self._sentinels.append(self._town.start_sentinel(leads=False))

    def _kill_all(self) -> None:
        """Nobody follows for a while."""
        for sentinel in self._sentinels:
            kill(sentinel)
        self.told.append(self._meddle())
        self._sentinels = [self._town.start_sentinel(leads=False) for _ in self._sentinels]

    def _restart(self) -> None:
        stopped = self._sentinels.pop(self._chance.randrange(2)).stop(signal.SIGTERM)
        assert stopped in (0, -signal.SIGTERM), "the second before it has begun"
        self._sentinels.append(self._town.start_sentinel(leads=False))

    def _restart_store(self) -> None:
        self._house.stop_store()
        self._wait_for_some()
        self.told += [self._ask_for_help(), self._write_by_the_api(self._house.start_store)]

    def _wait_for_some(self) -> None:
        """Until services took a few more messages, or for a moment where none goes."""
        total = self._town.simulator.counts()["accepted"]
        wanted = total + self._chance.randrange(1, 6)
        self._town.simulator.ask("GET", "/messages", limit=1, wait_for=wanted, timeout_ms=self._chance.randrange(2_000))

    # ---- what is

    def _tasks(self) -> Tasks:
        ids = [*self._others.authored, *(one.doc_id for one in self._answers)]
        return tasks_by_mark(self._town.couch.main.fetch(ids).values())

    def _see_that_nothing_goes_back(self) -> None:
        tasks = {key: found for key, found in self._tasks().items() if key[0] not in self._others.torn}
        assert self._progress.steps_back(tasks) == []
        assert [(key, steps) for key, (task, *_) in tasks.items() if (steps := history_goes_back(task))] == []

    def _is_over(self) -> bool:
        expected = [one for doc in self._others.authored.values() for one in self._oracle.of(doc)]
        verdict = Verdict(self._region.settings, [*expected, *self._answers])
        services = (self._town.simulator, self._town.twins)
        listed = [service.ask("GET", "/messages", limit=100_000)["messages"] for service in services]
        for phone in self._phones:
            phone.poll()
            listed.append(phone.sent)
        record = counted(entry for entries in listed for entry in entries if entry["to"] != self._last)
        complaints = list(verdict.complaints(record, self._tasks()))
        assert not complaints, "\n\n".join(complaints)
        return True


LONG_RUNS = [pytest.param(seed + run, 10, 12, id=f"full-{run}", marks=pytest.mark.long) for run in range(5)]


@pytest.mark.parametrize("house", [Town], indirect=True)
@pytest.mark.parametrize("seed, rounds, count", [pytest.param(SHORT_SEED, 3, 8, id="short"), *LONG_RUNS])
def test_documents_of_chance(house: House, seed: int, rounds: int, count: int) -> None:
    print("FAULTS_SEED", seed)
    assert isinstance(house.world, Town)
    story = Story(random.Random(seed), house, house.world)
    try:
        story.begin()
        for _ in range(rounds):
            story.go_on(count)
        story.end()
    finally:
        print(*story.told, sep="\n")
