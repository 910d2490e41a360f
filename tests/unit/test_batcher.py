"""Group commit: what waits together is worked on together, and each submitter gets its own answer."""

import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from types import SimpleNamespace

import pytest

from mjumbe.batcher import Batcher

SOON = 30.0


class Work:
    """Doubles numbers; the first call waits until it may go on, so that the rest gathers behind it."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.began = threading.Event()
        self.go_on = threading.Event()

    def __call__(self, items: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(items))
        self.began.set()
        assert self.go_on.wait(SOON)
        return [ValueError(f"{item} is odd") if item % 2 else item * 2 for item in items]


def gather(batcher: Batcher[int, int], work: Work, items: Sequence[int]) -> "list[Future[int]]":
    first = batcher.submit(0)
    assert work.began.wait(SOON)
    futures = [first, *(batcher.submit(item) for item in items)]
    work.go_on.set()
    return futures


def test_what_waits_shares_a_batch_and_keeps_its_order() -> None:
    work = Work()
    batcher: Batcher[int, int] = Batcher("test", work)
    futures = gather(batcher, work, [2, 4, 6])
    assert [future.result(SOON) for future in futures] == [0, 4, 8, 12]
    assert work.batches == [[0], [2, 4, 6]]
    batcher.close()


def test_a_batch_has_a_limit() -> None:
    work = Work()
    batcher: Batcher[int, int] = Batcher("test", work, limit=2)
    futures = gather(batcher, work, [2, 4, 6])
    assert [future.result(SOON) for future in futures] == [0, 4, 8, 12]
    assert work.batches == [[0], [2, 4], [6]]
    batcher.close()


def test_a_batch_is_full_by_what_its_items_weigh() -> None:
    work = Work()
    batcher: Batcher[int, int] = Batcher("test", work, limit=6, weigh=lambda item: item)
    futures = gather(batcher, work, [2, 4, 4, 8, 6, 2])
    assert [future.result(SOON) for future in futures] == [0, 4, 8, 8, 16, 12, 4]
    assert work.batches == [[0], [2, 4], [4, 8], [6], [2]]
    batcher.close()


def test_a_batch_waits_once_for_company_unless_it_has_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    company: list[Future[int]] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        company.append(batcher.submit(4))

    monkeypatch.setattr("mjumbe.batcher.time", SimpleNamespace(sleep=sleep))
    work = Work()
    batcher: Batcher[int, int] = Batcher("test", work, enough=2)
    futures = gather(batcher, work, [6, 8])
    assert [future.result(SOON) for future in (*futures, *company)] == [0, 12, 16, 8]
    batcher.close()  # not before: behind its last entry nobody's company is waited for
    assert work.batches == [[0, 4], [6, 8]]
    assert waited == [0]


def test_several_threads_have_as_many_batches_under_way() -> None:
    meet = threading.Barrier(2)

    def work(items: Sequence[int]) -> list[int | Exception]:
        meet.wait(SOON)
        return list(items)

    batcher: Batcher[int, int] = Batcher("test", work, limit=1, threads=2)
    futures = [batcher.submit(item) for item in range(4)]
    batcher.close()
    assert [future.result(0) for future in futures] == [0, 1, 2, 3]


def test_what_is_cancelled_before_its_batch_is_begun_is_not_worked_on() -> None:
    work = Work()
    batcher: Batcher[int, int] = Batcher("test", work, limit=2)
    under_way = batcher.submit(0)
    assert work.began.wait(SOON)
    futures = [batcher.submit(item) for item in (2, 4, 6, 8, 10)]
    assert [future.cancel() for future in (under_way, *futures[1:4])] == [False, True, True, True]
    work.go_on.set()
    assert [future.result(SOON) for future in (under_way, futures[0], futures[4])] == [0, 4, 20]
    assert work.batches == [[0], [2], [10]]
    batcher.close()


def test_an_answer_that_is_an_exception_is_its_submitters_alone() -> None:
    work = Work()
    batcher: Batcher[int, int] = Batcher("test", work)
    futures = gather(batcher, work, [2, 3, 4])
    assert [future.result(SOON) for future in (futures[1], futures[3])] == [4, 8]
    with pytest.raises(ValueError, match="3 is odd"):
        futures[2].result(SOON)
    batcher.close()


def test_an_exception_reaches_everybody_and_the_thread_goes_on() -> None:
    failures: list[Callable[[], None]] = []

    def work(items: Sequence[int]) -> list[int | Exception]:
        if not failures:
            failures.append(lambda: None)
            raise OSError("the disk is full")
        return list(items)

    batcher: Batcher[int, int] = Batcher("test", work)
    with pytest.raises(OSError, match="the disk is full"):
        batcher.submit(1).result(SOON)
    assert batcher.submit(2).result(SOON) == 2
    batcher.close()


def test_closing_finishes_what_was_handed_in() -> None:
    work = Work()
    batcher: Batcher[int, int] = Batcher("test", work)
    futures = gather(batcher, work, [2, 4])
    batcher.close()
    assert all(future.done() for future in futures)


def test_a_writer_that_fails_ends_its_process() -> None:
    """Whoever waits for its answer would wait for ever."""
    script = """
from mjumbe.batcher import Batcher

Batcher("test", list, weigh=lambda item: item / 0).submit(1).result()
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=SOON)
    assert ended.returncode == 1
    assert "a writer failed, so its process ends" in ended.stdout
