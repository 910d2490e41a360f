"""What is made of a load and of the service's record: figures, floors, and what is doubtful."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from bench.bench import Bench, Floors
from bench.figures import Results
from bench.load import Answered
from bench.measure import outgoing, replies
from bench.plan import CONCURRENCY, QUICK
from bench.stage import Stage


def answered(good: int = 800, wrong: int = 0, rate: float = 100.0, cpu_percent: float = 5.0) -> Answered:
    return Answered(good, wrong, "503" if wrong else "", rate, 4.0, 9.0, cpu_percent)


FLOORS = Floors(puts={1: answered()}, bulks={500: answered(rate=6.0)}, empty={}, empty_mb=60.0)


def bench(load: Answered | None = None, **counts: int) -> Bench:
    """One whose load is answered like that, at a service with these counts."""
    service = SimpleNamespace(counts=lambda: {"duplicates": 0, **counts})
    lab = SimpleNamespace(generator=SimpleNamespace(run=lambda _: load), service=service)
    return Bench(QUICK, cast(Stage, SimpleNamespace(lab=lab, size=0)), Results(), say=print, group="incoming")


@pytest.mark.parametrize(
    ("load", "problem"),
    [
        (answered(), None),
        (answered(good=799, wrong=1), "1 of 800 not stored: 503"),
        (answered(cpu_percent=81.0), "the load generator used 81 % of a core"),
    ],
)
def test_a_load_that_lost_something_or_measured_itself_is_doubtful(load: Answered, problem: str | None) -> None:
    used = bench(load)
    assert used.load("webhook", "http://127.0.0.1/", 8, 800, 2.0) == load
    assert [said.partition("stored: ")[2] for said in used.results.problems] == ([problem] if problem else [])


@pytest.mark.parametrize(("accepted", "duplicates", "doubtful"), [(9, 0, False), (8, 0, True), (9, 1, True)])
def test_messages_lost_or_sent_twice_are_doubtful(accepted: int, duplicates: int, doubtful: bool) -> None:
    used = bench(duplicates=duplicates)
    outgoing._check(used, 9, accepted)
    assert bool(used.results.problems) is doubtful


@pytest.mark.parametrize(
    ("latency", "equal", "floor"),
    [
        (0, False, 1_000.0),  # 6 writes of 500 documents a second, three a message
        (50, False, CONCURRENCY * 20.0),
        (500, False, CONCURRENCY * 2.0),
        (500, True, 1_000.0),
    ],
)
def test_the_floor_of_sending_is_the_slower_of_store_and_service(latency: int, equal: bool, floor: float) -> None:
    assert outgoing._floor(FLOORS, latency, equal=equal).value == floor


def test_replies_are_held_against_a_put_and_counted() -> None:
    used = bench()
    posted, arrivals = {"a": 10.0, "b": 20.0, "c": 30.0}, {"a": 10.25, "b": 20.5, "other": 1.0}
    replies._add(used, FLOORS, "idle", posted, arrivals)
    found = [(figure.name, figure.value, figure.floors[0].value) for figure in used.results.figures]
    assert found == [("idle, p50", 250.0, 4.0), ("idle, p99", 500.0, 9.0)]
    assert used.results.problems == ["incoming, , 0 stored: 2 of 3 replies arrived"]


def test_the_most_memory_is_that_of_the_group_s_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    used, peaks = bench(), iter([80.0, 90.0, 85.0, 70.0])
    cast(Any, used.stage).__dict__.update(settle=lambda: None, stored=lambda: 0, pids={})
    meter = SimpleNamespace(read=lambda: (1.0, {}, {"api": next(peaks), "sentinel": 50.0}))
    monkeypatch.setattr("bench.bench.Meter", lambda _: meter)
    for count in (3, 1):
        for _ in range(count):
            with used.measured("webhooks"):
                pass
        used.add_memory(FLOORS)
    assert [figure.value for figure in used.results.figures] == [90.0, 50.0, 70.0, 50.0]
    assert used.results.figures[0].ratios == (1.5,)
