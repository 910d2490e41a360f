"""Group commit: what many threads hand in while one batch is under way makes up the next batch.

CouchDB writes 366 documents a second one by one and 12,000 in bulks of 100; so whoever writes often shares a bulk.
"""

import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Generic, TypeVar

import structlog

log = structlog.get_logger(__name__)

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Batcher(Generic[Item, Answer]):
    """Threads that call `work(items)` with what was handed in meanwhile and give each submitter its own answer.

    `work` returns one answer an item, in their order; an answer that is an exception is raised to that submitter
    alone, an exception that `work` raises reaches everybody in the batch.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[Sequence[Item]], Sequence[Answer | Exception]],
        limit: int = 500,
        enough: int | None = None,
        threads: int = 1,
        weigh: Callable[[Item], int] = lambda _: 1,
    ) -> None:
        """A batch is full with the item by which it weighs `limit`. One that does not weigh `enough`, `limit` where
        that is not given, waits for those who are just about to hand something in. With several `threads` as many
        batches are under way at once.
        """
        self._work = work
        self._limit = limit
        self._enough = enough or limit
        self._weigh = weigh
        self._queue: queue.SimpleQueue[tuple[Item, Future[Answer]] | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._run, name=name, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def submit(self, item: Item) -> "Future[Answer]":
        """Hand in an item; the future has its answer when the batch with it is done. Cancelled before its batch is
        begun, it is not worked on."""
        future: Future[Answer] = Future()
        self._queue.put((item, future))
        return future

    def close(self) -> None:
        """Finish what was handed in, then end the threads."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        try:
            self._work_on_all()
        except Exception:
            # Whoever handed something in would wait for ever, and all look well. Like kill -9, this loses nothing.
            log.exception("a writer failed, so its process ends; whoever supervises it starts it anew")
            os._exit(1)

    def _work_on_all(self) -> None:
        open_ = True
        while open_:
            gathered = self._gather()
            open_ = gathered[-1] is not None
            batch = [entry for entry in gathered if entry is not None and entry[1].set_running_or_notify_cancel()]
            if batch:
                self._answer(batch)

    def _gather(self) -> "list[tuple[Item, Future[Answer]] | None]":
        """The next batch, which ends in None when it is this thread's last."""
        batch = [self._queue.get()]
        self._add_what_waits(batch)
        if self._weight(batch) < self._enough and batch[-1] is not None:
            time.sleep(0)
            self._add_what_waits(batch)
        return batch

    def _add_what_waits(self, batch: "list[tuple[Item, Future[Answer]] | None]") -> None:
        weight = self._weight(batch)
        with suppress(queue.Empty):
            while weight < self._limit and batch[-1] is not None:
                batch.append(self._queue.get_nowait())
                weight += self._weight(batch[-1:])

    def _weight(self, entries: "list[tuple[Item, Future[Answer]] | None]") -> int:
        return sum(self._weigh(entry[0]) for entry in entries if entry is not None)

    def _answer(self, batch: "list[tuple[Item, Future[Answer]]]") -> None:
        try:
            answers = self._work([item for item, _ in batch])
        except Exception as error:  # whatever it is, the submitters must not wait for ever
            for _, future in batch:
                future.set_exception(error)
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
