"""What a measurement works with: the stage that it plays on, the floors it is held against, where its results go."""

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from bench.figures import Figure, Floor, Results, Usage
from bench.load import Answered, Job, Kind
from bench.machine import Meter
from bench.plan import Plan
from bench.stage import Stage

LOAD_FIGURES = (("", "requests/s", "rate"), (", p50", "ms", "p50_ms"), (", p99", "ms", "p99_ms"))
BUSY_GENERATOR = 80.0  # percent of a core, from which on the generator may be what is measured


@dataclass(frozen=True, slots=True)
class Floors:
    """What the machine does without mjumbe."""

    puts: Mapping[int, Answered]  # by connections
    bulks: Mapping[int, Answered]  # by documents in a write; its rate is writes a second
    empty: Mapping[int, Answered]  # by connections
    empty_mb: float  # peak memory of the server with the empty route

    def documents_per_second(self, bulk: int) -> float:
        return self.bulks[bulk].rate * bulk


@dataclass(slots=True)
class Bench:
    """One stage, one run's results. `say` is told in a line what is being measured or was."""

    plan: Plan
    stage: Stage
    results: Results
    say: Callable[[str], None]
    group: str = ""
    _name: str = ""
    _stored: int = 0
    _peaks: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def measured(self, name: str, pids: Mapping[str, int] | None = None) -> Iterator[None]:
        """Around one measurement, for what the processes use meanwhile; waits first until nothing is under way."""
        self.say(f"{self.group}: {name}")
        self.stage.settle()
        self._name, self._stored = name, self.stage.stored()
        meter = Meter({**self.stage.pids, **(pids or {})})
        yield
        seconds, cpu, peaks = meter.read()
        self.results.usages.append(Usage(self.group, name, self.stage.size, self._stored, seconds, cpu, peaks))
        for process, peak in peaks.items():
            self._peaks[process] = max(peak, self._peaks.get(process, 0.0))

    def add(self, name: str, value: float, unit: str, *floors: Floor) -> None:
        """One figure of the measurement that is on, or was last."""
        self.results.figures.append(Figure(self.group, name, unit, value, self.stage.size, self._stored, floors))

    def problem(self, what: str) -> None:
        """Something that makes the measurement that is on doubtful."""
        self.results.problems.append(f"{self.group}, {self._name}, {self.stage.size:,} stored: {what}")

    def load(self, kind: Kind, url: str, connections: int, most: int, seconds: float, **more: object) -> Answered:
        """Run one load and check it; its messages are new ones unless `tag` says which."""
        job = Job(kind, url, connections, most, seconds, **{"tag": secrets.token_hex(4), **more})  # type: ignore[arg-type]
        answered = self.stage.lab.generator.run(job)
        if answered.wrong:
            self.problem(f"{answered.wrong} of {answered.wrong + answered.good} not stored: {answered.first_wrong}")
        if answered.cpu_percent > BUSY_GENERATOR:
            self.problem(f"the load generator used {answered.cpu_percent:.0f} % of a core")
        return answered

    def add_load(self, name: str, answered: Answered, *floors: tuple[str, Answered]) -> None:
        """The three figures of a load, each with the floors' own."""
        for suffix, unit, value in LOAD_FIGURES:
            held = (Floor(f"{floor}{suffix}", getattr(other, value)) for floor, other in floors)
            self.add(f"{name}{suffix}", getattr(answered, value), unit, *held)

    def add_memory(self, floors: Floors) -> None:
        """The peak memory of our two processes over the group's measurements."""
        for process in ("api", "sentinel"):
            name = "one API worker, most memory" if process == "api" else "sentinel, most memory"
            floor = Floor("the same server with an empty route", floors.empty_mb)
            self.add(name, self._peaks.get(process, 0.0), "MB", floor)
        self._peaks.clear()


def loads(floors: Floors, connections: int) -> tuple[tuple[str, Answered], tuple[str, Answered]]:
    """The floors of a callback at so many connections: its one write, and its way through the server."""
    return (
        (f"single PUTs, {at(connections)}", floors.puts[connections]),
        (f"empty route, {at(connections)}", floors.empty[connections]),
    )


def at(connections: int) -> str:
    return f"{connections} connection{'' if connections == 1 else 's'}"
