"""Replies: from a keyword's webhook to the request with its answer at the service, idle and during a broadcast."""

import random
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from urllib.parse import urlencode, urlsplit

from bench import seed
from bench.bench import Bench, Floors
from bench.bodies import FORM, incoming_form
from bench.client import Client
from bench.figures import Floor, percentile
from bench.measure.outgoing import SECONDS, hand_over, texts
from bench.stage import Stage

KEYWORD = "HELP"  # answered by the settings that a new database starts from
BROADCAST_LATENCY_MS = 50
EVERY_SECONDS = 0.1  # during the broadcast
LOOK_EVERY = 10  # replies: whether the broadcast is over
POSTERS = 32
PAUSES_SECONDS = (0.1, 0.4)  # between idle replies, so that none meets the work for the one before, nor a rhythm


def measure(bench: Bench, floors: Floors) -> None:
    """Both; the clocks of the webhook and of the request are the same machine's."""
    _idle(bench, floors)
    _during_broadcast(bench, floors)


def _idle(bench: Bench, floors: Floors) -> None:
    stage, posted = bench.stage, {}
    with bench.measured("idle, one at a time"):
        stage.lab.service.begin()
        client, path = _poster(stage)
        for n in range(bench.plan.idle_replies):
            number = seed.number(n, "+254733")
            posted[number] = _post(client, path, number)
            stage.lab.service.wait_requests(n + 1)
            time.sleep(random.uniform(*PAUSES_SECONDS))
        arrivals = stage.lab.service.arrivals()
    _add(bench, floors, "idle", posted, arrivals)


def _during_broadcast(bench: Bench, floors: Floors) -> None:
    stage, count = bench.stage, bench.plan.broadcast
    name = f"during a broadcast of {count:,}"
    with bench.measured(name):
        stage.lab.service.begin(latency_ms=BROADCAST_LATENCY_MS)
        pool = ThreadPoolExecutor(1)
        broadcast = pool.submit(hand_over, stage, texts(count, equal=True))
        pool.shutdown(wait=False)
        posted = _post_steadily(stage, lambda: _is_accepted(stage, broadcast, count))
        broadcast.result()
        accepted, _ = stage.lab.service.wait_accepted(count + len(posted), SECONDS)
        arrivals = stage.lab.service.arrivals()
    ended = max((at for number, at in arrivals.items() if number not in posted), default=0.0)
    during = {number: began for number, began in posted.items() if began < ended}
    if accepted != count + len(posted):
        bench.problem(f"{accepted} of {count + len(posted)} messages, replies among them, were accepted")
    _add(bench, floors, f"{name}, {BROADCAST_LATENCY_MS} ms", during, arrivals)


def _is_accepted(stage: Stage, broadcast: Future[None], count: int) -> bool:
    """Whether the service has taken as many messages. Raises what the handing over failed with."""
    if broadcast.done():
        broadcast.result()
    return bool(stage.lab.service.counts()["accepted"] >= count)


def _post_steadily(stage: Stage, is_over: Callable[[], bool]) -> dict[str, float]:
    """A webhook every tenth of a second until the broadcast is over: the senders, with when they wrote."""
    local = threading.local()

    def post(number: str) -> float:
        if not hasattr(local, "poster"):
            local.poster = _poster(stage)
        client, path = local.poster
        return _post(client, path, number)

    posted: dict[str, Future[float]] = {}
    next_at, deadline = time.monotonic(), time.monotonic() + SECONDS
    with ThreadPoolExecutor(POSTERS) as pool:
        while time.monotonic() < deadline:
            number = seed.number(len(posted), "+254744")
            posted[number] = pool.submit(post, number)
            if len(posted) % LOOK_EVERY == 0 and is_over():
                break
            next_at += EVERY_SECONDS
            time.sleep(max(0.0, next_at - time.monotonic()))
    return {number: future.result() for number, future in posted.items()}


def _poster(stage: Stage) -> tuple[Client, str]:
    parts = urlsplit(stage.callback_url("incoming-messages"))
    return Client(stage.api_url), f"{parts.path}?{parts.query}"


def _post(client: Client, path: str, number: str) -> float:
    """Post the keyword from `number`; when the request was begun (s since epoch)."""
    form = incoming_form(f"ATXid_{secrets.token_hex(16)}", number, KEYWORD)
    return client.send("POST", path, urlencode(form).encode(), FORM).began


def _add(bench: Bench, floors: Floors, name: str, posted: dict[str, float], arrivals: dict[str, float]) -> None:
    """The figures of the replies to `posted`; both by number, in s since epoch."""
    latencies = [(arrivals[number] - began) * 1000 for number, began in posted.items() if number in arrivals]
    if not latencies or len(latencies) < len(posted):
        bench.problem(f"{len(latencies)} of {len(posted)} replies arrived")
        if not latencies:
            return
    for percent, floor in ((50, floors.puts[1].p50_ms), (99, floors.puts[1].p99_ms)):
        held = Floor(f"a single PUT, 1 connection, p{percent}", floor)
        bench.add(f"{name}, p{percent}", percentile(latencies, percent), "ms", held)
