"""Group commit: what many threads hand in while one batch is under way makes up the next batch.

CouchDB writes 366 documents a second one by one and 12,000 in bulks of 100; so whoever writes often shares a bulk.
"""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Batcher(Generic[Item, Answer]):
    """One thread that calls `work(items)` with up to `limit` items and gives each submitter its own answer.

    `work` returns one answer an item, in their order; an answer that is an exception is raised to that submitter
    alone, an exception that `work` raises reaches everybody in the batch.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[Sequence[Item]], Sequence[Answer | Exception]],
        limit: int = 500,
        linger: float = 0.0,
    ) -> None:
        """`linger` is how long (seconds) a batch that is not full waits for company."""
        self._work = work
        self._limit = limit
        self._linger = linger
        self._queue: queue.SimpleQueue[tuple[Item, Future[Answer]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, item: Item) -> "Future[Answer]":
        """Hand in an item; the future has its answer when the batch with it is done."""
        future: Future[Answer] = Future()
        self._queue.put((item, future))
        return future

    def close(self) -> None:
        """Finish what was handed in, then end the thread."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        open_ = True
        while open_:
            batch = []
            entry = self._queue.get()
            closes = time.monotonic() + self._linger
            while entry is not None:
                batch.append(entry)
                if len(batch) == self._limit:
                    break
                try:
                    entry = self._queue.get(timeout=max(0.0, closes - time.monotonic()))
                except queue.Empty:
                    break
            open_ = entry is not None
            if batch:
                self._answer(batch)

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
