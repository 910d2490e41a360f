"""The load generator: `python -m bench.generator` reads a job a line on its input and answers each with a line.

Plain sockets in one event loop, requests made before they are needed: what it costs itself (some 40 µs a request) is
in every answer, because it shares the machine with what it measures.
"""

import asyncio
import json
import sys
import time
from array import array
from collections.abc import Callable
from dataclasses import asdict
from urllib.parse import urlsplit

from bench.bodies import EXPECTED, MAKERS
from bench.figures import percentile
from bench.load import Answered, Job

WARM_UP = 20  # requests, or two a connection when that is more: connecting is not measured
PATIENCE_SECONDS = 60.0  # for the answers that are still to come when a job's time is over
HTTP_PORT = 80  # where a URL names none

Make = Callable[[int], bytes]


class Run:
    """One job: hands out requests, and counts answers."""

    def __init__(self, job: Job) -> None:
        self._make: Make = MAKERS[job.kind](job)
        self._expected = EXPECTED[job.kind]
        self._most = job.most
        self._warm = max(WARM_UP, 2 * job.connections) if job.kind != "bulk" else 1
        self._deadline = time.perf_counter() + job.seconds
        self._issued = self._answers = 0
        self._began = self._ended = self._cpu_began = self._cpu_ended = 0.0
        self._latencies = array("d")
        self._good = self._wrong = 0
        self._first_wrong = ""

    def next(self) -> bytes | None:
        """The next request, None when the job is over."""
        if self._issued >= self._most or time.perf_counter() > self._deadline:
            return None
        self._issued += 1
        return self._make(self._issued - 1)

    def answered(self, status: int, body: bytes, began: float) -> None:
        """Count an answer to the request that was sent at `began`."""
        now = time.perf_counter()
        if 200 <= status < 300 and self._expected in body:
            self._good += 1
        else:
            self.failed(f"{status} {body[:200].decode(errors='replace')}")
        self._answers += 1
        if self._answers > self._warm:
            self._latencies.append(now - began)
            self._ended, self._cpu_ended = now, time.process_time()
        elif self._answers == self._warm:
            self._began, self._cpu_began = now, time.process_time()

    def failed(self, why: str) -> None:
        """Count a request that got no answer, or a wrong one."""
        self._wrong += 1
        self._first_wrong = self._first_wrong or why

    def result(self) -> Answered:
        """What came of it. Raises ValueError when nothing was answered after the warm-up."""
        if not self._latencies:
            raise ValueError(f"{self._answers} answers, which is no more than the warm-up; {self._first_wrong}")
        seconds = self._ended - self._began
        return Answered(
            good=self._good,
            wrong=self._wrong,
            first_wrong=self._first_wrong,
            rate=len(self._latencies) / seconds,
            p50_ms=percentile(self._latencies, 50) * 1000,
            p99_ms=percentile(self._latencies, 99) * 1000,
            cpu_percent=(self._cpu_ended - self._cpu_began) / seconds * 100,
        )


class Connection(asyncio.Protocol):
    """One keep-alive connection. `over` is done when it has no more to send, or broke."""

    def __init__(self, run: Run) -> None:
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._run = run
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._began: float | None = None  # when the request was sent that waits for its answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def send(self) -> None:
        """Send the next request, or end."""
        assert self._transport is not None
        request = self._run.next()
        if request is None:
            self._transport.close()
            return
        self._began = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        answer = split_answer(self._buffer)
        if answer is not None and self._began is not None:
            began, self._began = self._began, None
            self._buffer.clear()
            self._run.answered(*answer, began)
            self.send()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._began is not None:
            self._run.failed(f"the connection broke before the answer: {exc or 'closed'}")
        if not self.over.done():
            self.over.set_result(None)


def split_answer(data: bytearray) -> tuple[int, bytes] | None:
    """Status and body (with its chunk sizes, if any) of the one HTTP answer in `data`; None until it is whole."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = bytes(data[:end]).lower()
    body = bytes(data[end + 4 :])
    at = head.find(b"\r\ncontent-length:")
    if at >= 0:
        whole = len(body) >= int(head[at + 17 :].split(b"\r\n", 1)[0])
    else:  # chunked: CouchDB's answers to _bulk_docs
        whole = body == b"0\r\n\r\n" or body.endswith(b"\r\n0\r\n\r\n")
    return (int(head[9:12]), body) if whole else None


async def perform(job: Job) -> Answered:
    """Run one job. Raises OSError when there is nobody to connect to, ValueError when nothing was measured."""
    loop, parts = asyncio.get_running_loop(), urlsplit(job.url)
    run = Run(job)
    assert parts.hostname is not None
    address = (parts.hostname, parts.port or HTTP_PORT)
    connections = [(await loop.create_connection(lambda: Connection(run), *address))[1] for _ in range(job.connections)]
    for connection in connections:
        connection.send()
    await asyncio.wait([connection.over for connection in connections], timeout=job.seconds + PATIENCE_SECONDS)
    for connection in connections:
        if not connection.over.done():
            run.failed("no answer")
    return run.result()


def main() -> None:
    """Answer jobs until the input ends."""
    for line in sys.stdin:
        try:
            answer: dict[str, object] = asdict(asyncio.run(perform(Job(**json.loads(line)))))
        except (OSError, ValueError) as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
