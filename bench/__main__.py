"""`python -m bench`: run the benchmark, print its tables, write its JSON."""

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from bench import machine, report
from bench.bench import Bench, Floors
from bench.client import RefusedError
from bench.figures import Results
from bench.lab import Lab
from bench.load import LoadError
from bench.measure import GROUPS, floors
from bench.plan import FULL, QUICK, Plan
from bench.processes import StartError
from bench.stage import Stage, StageError
from mjumbe.couch import CouchError, UnavailableError

FAILURES = (StartError, StageError, LoadError, RefusedError, CouchError, UnavailableError, OSError, ValueError)
SIGNALS = (signal.SIGINT, signal.SIGTERM)
WIDTH = 160  # of the tables where there is no terminal
REFRESHES_PER_SECOND = 2  # the machine is busy with something else


class Interrupted(BaseException):
    """SIGINT or SIGTERM."""


class Runner:
    """One run: stage after stage, group after group, with its progress shown."""

    def __init__(self, plan: Plan, groups: Sequence[str], console: Console) -> None:
        self.results = Results()
        self._plan = plan
        self._groups = groups
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=console, refresh_per_second=REFRESHES_PER_SECOND)
        self._began = time.monotonic()
        self._bar: TaskID | None = None

    def run(self, lab: Lab) -> None:
        """Measure all. Raises one of FAILURES; what was measured until then is in the results."""
        with self._progress:
            self._bar = self._progress.add_task("", total=len(self._plan.sizes) * (len(self._groups) + 1))
            for size in self._plan.sizes:
                self._at_size(lab, size)

    def _at_size(self, lab: Lab, size: int) -> None:
        """Every group at one size. An empty database is made anew for each group, a filled one serves for all."""
        held: Floors | None = None
        with ExitStack() as stack:
            stage: Stage | None = None
            for group in self._groups:
                if stage is None or size == 0:
                    stack.close()
                    stage = stack.enter_context(self._stage(lab, size))
                bench = Bench(self._plan, stage, self.results, self._say)
                if held is None:
                    held = floors.measure(bench)
                    self._advance()
                bench.group = group
                GROUPS[group](bench, held)
                bench.add_memory(held)
                self._advance()

    def _stage(self, lab: Lab, size: int) -> Stage:
        self._say(f"a database with {size:,} messages, its views built")
        seeding = self._progress.add_task("storing messages", total=size, visible=size > 0)

        def advance(count: int) -> None:
            self._progress.advance(seeding, count)
            if self._progress.tasks[seeding].finished:
                self._progress.update(seeding, visible=False)

        return Stage(lab, size, advance)

    def _advance(self) -> None:
        assert self._bar is not None
        self._progress.advance(self._bar)

    def _say(self, what: str) -> None:
        assert self._bar is not None
        self._progress.update(self._bar, description=what)
        if not self._progress.console.is_terminal:
            self._progress.console.print(f"{time.monotonic() - self._began:6.0f} s  {what}")


def main(arguments: list[str] | None = None) -> int:
    """Run as the command line says. Returns the exit status."""
    options = _parse(arguments)
    for number in SIGNALS:
        signal.signal(number, _interrupt)
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    runner = Runner(QUICK if options.quick else FULL, options.only or list(GROUPS), console)
    facts: dict[str, Any] = {
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        "mode": "quick" if options.quick else "full",
        "groups": options.only or list(GROUPS),
    }
    trouble = _measure(runner, options.couch, facts)
    facts["complete"] = trouble is None
    _show(console, runner.results, facts)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(report.as_json(runner.results, facts), indent=1) + "\n")
    console.print(f"Written to {options.json}.")
    if trouble is not None:
        console.print(f"[red]Not complete:[/red] {trouble}", highlight=False)
    return 0 if trouble is None else 1


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description="What mjumbe does, beside what the machine can.")
    parser.add_argument("--couch", metavar="URL", help="http://admin:password@host:port of a CouchDB (else: embedded)")
    parser.add_argument("--quick", action="store_true", help="smaller and shorter: some three minutes")
    parser.add_argument("--only", nargs="+", choices=list(GROUPS), metavar="NAME", help=f"of: {', '.join(GROUPS)}")
    parser.add_argument("--json", type=Path, default=Path("data/bench.json"), metavar="FILE", help="(%(default)s)")
    options = parser.parse_args(arguments)
    if options.couch and not options.couch.startswith("http://"):
        parser.error("--couch must be http://admin:password@host:port: the load generator speaks no TLS")
    return options


def _measure(runner: Runner, couch_url: str | None, facts: dict[str, Any]) -> str | None:
    """Run it all, and stop what was started; why it did not come to its end, None when it did."""
    began = time.monotonic()
    trouble = None
    try:
        with Lab(couch_url) as lab:
            facts |= machine.facts(lab.folder)
            facts["store"] = f"{lab.welcome()}{'' if couch_url else ' (started for this run)'}"
            try:
                runner.run(lab)
            finally:
                facts["seconds"] = round(time.monotonic() - began)
    except Interrupted:
        trouble = "interrupted"
    except FAILURES as error:
        trouble = f"{type(error).__name__}: {error}"
    return trouble


def _interrupt(*_: object) -> None:
    # Stopping takes some seconds, which a second Ctrl-C must not cut short.
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise Interrupted


def _show(console: Console, results: Results, facts: dict[str, Any]) -> None:
    for name in ("machine", "versions"):
        values = ", ".join(f"{key} {value}" for key, value in facts.get(name, {}).items())
        console.print(f"{name}: {values}", highlight=False)
    console.print(f"store: {facts.get('store')}; commit: {facts.get('commit')}; {facts.get('seconds')} s")
    if results.figures:
        sizes = sorted({figure.size for figure in results.figures})
        console.print(report.figures_table(results, sizes))
        console.print(report.floors_table(results))
        console.print(report.usage_table(results.usages))
    for problem in results.problems:
        console.print(f"[red]Doubtful:[/red] {problem}", highlight=False)


if __name__ == "__main__":
    sys.exit(main())
