"""CouchDB stopped under webhooks: the spool, its order, its end, and what happens when it cannot be written."""

import json
import resource
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest
import requests

from mjumbe import documents
from tests import leaks
from tests.faults.rig import (
    INCOMING,
    REPORTS,
    House,
    incoming,
    is_doubted,
    kill,
    numbers,
    post_all,
    report,
    sizes,
    stored,
)
from tests.integration.processes import Process, eventually, family
from tests.integration.sentinel.world import INCOMING_KEY, World

STREAMS = 16


def spool_path(world: World) -> Path:
    return Path(world.environment["MJUMBE_DATA"]) / "spool.sqlite"


def waiting(world: World) -> int:
    return spooled(world, "waiting")


def spooled(world: World, table: str) -> int:
    if not spool_path(world).exists() or spool_path(world).stat().st_size == 0:
        return 0
    with closing(sqlite3.connect(spool_path(world))) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def ready(api: Process) -> dict[str, tuple[bool, str]]:
    checks = requests.get(f"{api.url}/readyz", timeout=60).json()["checks"]
    return {check["name"]: (check["ok"], check["says"]) for check in checks}


def post(api: Process, form: dict[str, str], path: str = INCOMING) -> int:
    answer = requests.post(f"{api.url}{path}", params={"key": INCOMING_KEY}, data=form, timeout=60)
    return answer.status_code


class Stream:
    """Phones that write one message after the other, each telling its service's answer."""

    def __init__(self, api: Process) -> None:
        self._api = api
        self._stop = threading.Event()
        self.answers: list[tuple[dict[str, str], int]] = []
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in numbers(STREAMS)]
        for thread in self._threads:
            thread.start()

    def _run(self, number: str) -> None:
        for n in count():
            if self._stop.wait(0.02):
                return
            form = incoming(f"{number}-{n:05}", number, f"message {n}")
            self.answers.append((form, post(self._api, form)))

    def until(self, more: int) -> None:
        """Wait for so many more answers."""
        enough = len(self.answers) + more
        eventually(lambda: len(self.answers) >= enough, 60)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def stream(house: House) -> Iterator[Callable[[Process], Stream]]:
    started: list[Stream] = []

    def start(api: Process) -> Stream:
        started.append(Stream(api))
        return started[-1]

    yield start
    for one in started:
        one.stop()


@sizes("seconds", [4], [30])
def test_couchdb_is_stopped_under_a_stream_of_webhooks(
    house: House, stream: Callable[[Process], Stream], seconds: int
) -> None:
    world = house.world
    api = world.start_api()
    texts = stream(api)
    texts.until(40)
    house.stop_store()
    began = time.monotonic()
    refs = [f"ATXid_{n}" for n in range(20)]
    reports = [report(ref, "Success", number) for ref, number in zip(refs, numbers(20), strict=True)]
    assert post_all(api.url + REPORTS, reports, 4) == [200] * 20
    eventually(lambda: waiting(world) > 20)
    said = ready(api)
    assert not said["couchdb"][0]
    assert not said["spool"][0]
    assert "documents wait in the spool" in said["spool"][1]
    eventually(lambda: time.monotonic() - began > seconds, seconds + 5)
    house.start_store()
    eventually(lambda: waiting(world) == 0, 30)
    texts.until(40)
    texts.stop()
    assert {status for _, status in texts.answers} == {200}
    forms = [form for form, _ in texts.answers]
    eventually(lambda: len(stored(world.couch.main, forms)) == len(forms))
    assert len({form["id"] for form in forms}) == len(forms)
    assert [world.couch.callbacks.get(f"report:africas-talking:{ref}:Success") is not None for ref in refs] == [
        True
    ] * 20
    assert_order_of_receipt(world)
    eventually(lambda: ready(api)["spool"] == (True, "Nothing waits in the spool."))
    assert "Traceback" not in api.log()


def test_a_sentinel_is_stopped_while_results_wait_for_couchdb(house: House) -> None:
    """It ends by itself; what it could not store is in doubt for the next one."""
    world, text = house.world, "not stored"
    world.set(sms={"in_doubt": "hold"})
    world.simulator.control(latency_ms=5000, reports=False)
    sentinel = world.start_sentinel(store_seconds=1)
    doc_id = world.write(numbers(1)[0], text)
    eventually(lambda: world.simulator.requests(text))
    house.stop_store()
    assert sentinel.stop() == 0
    assert "is not waited for any longer" in sentinel.log()
    assert "Traceback" not in sentinel.log()
    house.start_store()
    world.start_sentinel()
    task = world.until_task(doc_id, is_doubted, "is not in doubt")
    assert task["state"] == "forwarded-to-gateway"
    assert len(world.simulator.messages(text)) == 1


def test_the_first_webhook_comes_after_couchdb_has_stopped(house: House) -> None:
    """Nobody had posted yet, so nobody had asked for the key with which it is to be told from a stranger's."""
    world = house.world
    api = world.start_api()
    eventually(lambda: ready(api)["couchdb"][0] and "CouchDB is ready" in api.log())
    house.stop_store()
    forms = [incoming(f"first-{n}", sender, "HELP") for n, sender in enumerate(numbers(8))]
    assert post_all(api.url + INCOMING, forms, 4) == [200] * 8
    assert requests.post(api.url + INCOMING, params={"key": "wrong"}, data=forms[0], timeout=60).status_code == 403
    house.start_store()
    eventually(lambda: len(stored(world.couch.main, forms)) == len(forms), 30)


def test_after_a_power_cut_the_api_is_back_before_couchdb(house: House) -> None:
    """What proves that a callback is the service's, and of which country its numbers are, is known on this machine."""
    world = house.world
    world.set(default_country_code="256")
    api = world.start_api()
    forms = [incoming(f"early-{n}", sender, "HELP") for n, sender in enumerate(numbers(9))]
    forms[1]["from"] = leaks.number("0772000111")
    assert post(api, forms[0]) == 200
    house.stop_store()
    kill(api)
    api = world.start_api(api.port)
    assert post_all(api.url + INCOMING, forms[1:], 4) == [200] * 8
    assert requests.post(api.url + INCOMING, params={"key": "wrong"}, data=forms[0], timeout=60).status_code == 403
    house.start_store()
    eventually(lambda: len(stored(world.couch.main, forms)) == len(forms), 30)
    doc = world.couch.main.get(documents.incoming_id("africas-talking", forms[1]["id"]))
    assert doc is not None
    assert doc["from"] == "+256772000111"
    eventually(lambda: ready(api)["couchdb"][0])
    assert "Traceback" not in api.log()


def test_couchdb_hangs_under_webhooks(house: House) -> None:
    """It takes connections and answers nothing: whoever asks about it is told so all the same."""
    world = house.world
    api = world.start_api()
    forms = [incoming(f"hang-{n}", sender, "HELP") for n, sender in enumerate(numbers(201))]
    assert post(api, forms[0]) == 200
    house.store.popen.send_signal(signal.SIGSTOP)
    try:
        assert post_all(api.url + INCOMING, forms[1:], 50) == [200] * 200
        said = ready(api)
        assert "cannot be reached" in said["couchdb"][1]
        assert "200 documents wait in the spool" in said["spool"][1]
        # A view may take 90 s; a login is not waited for as long.
        logins = ["/sms/invoke-bulk-sms?phone=254711000111", "/api/v1/settings", "/api/v1/messages"]
        with ThreadPoolExecutor() as threads:  # each waits for CouchDB by itself
            figures, metrics, *refused = threads.map(
                lambda path: requests.get(api.url + path, auth=("program", "password"), timeout=60),
                ["/api/v2/monitoring", "/metrics", *logins],
            )
        assert figures.json()["couchdb"]["medic"]["doc_count"] == -1
        assert "mjumbe_couchdb_up 0.0" in metrics.text
        assert [answer.status_code for answer in refused] == [503] * 3
    finally:
        house.store.popen.send_signal(signal.SIGCONT)
    eventually(lambda: waiting(world) == 0, 30)
    assert len(stored(world.couch.main, forms)) == 201
    assert_order_of_receipt(world)
    assert "Traceback" not in api.log()


def assert_order_of_receipt(world: World) -> None:
    """Each phone's messages came to CouchDB in the order in which they were written, each once."""
    changes = world.couch.main.changes("0", limit=100_000).changes
    docs = [change.doc for change in changes if change.doc and change.id.startswith("incoming:")]
    by_sender: dict[str, list[tuple[int, str]]] = {}
    for doc in docs:
        by_sender.setdefault(doc["from"], []).append((doc["reported_date"], doc["_id"]))
    for written in by_sender.values():
        assert written == sorted(written)


def test_killed_with_a_full_spool_it_is_drained_at_the_next_start(house: House) -> None:
    world = house.world
    api = world.start_api()
    senders = numbers(300)
    forms = [incoming(f"full-{n}", sender, "HELP") for n, sender in enumerate(senders)]
    assert post(api, forms[0]) == 200
    house.stop_store()
    assert post_all(api.url + INCOMING, forms, 50) == [200] * 300
    assert waiting(world) == 300, "the one that CouchDB has is known to the spool's drain, not to the spool"
    kill(api)
    assert waiting(world) == 300
    api = world.start_api(api.port)
    assert waiting(world) == 300, "CouchDB is still away"
    house.start_store()
    eventually(lambda: waiting(world) == 0, 30)
    assert len(stored(world.couch.main, forms)) == 300
    assert spooled(world, "set_aside") == 0
    assert "Traceback" not in api.log()


def test_killed_while_the_spool_is_drained_nothing_is_lost(house: House) -> None:
    world = house.world
    api = world.start_api()
    forms = [incoming(f"drain-{n}", sender, "HELP") for n, sender in enumerate(numbers(2_000))]
    assert post(api, forms[0]) == 200
    house.stop_store()
    assert set(post_all(api.url + INCOMING, forms, 100)) == {200}
    house.start_store()
    eventually(lambda: waiting(world) < 2_000, 30)
    kill(api)
    assert len(stored(world.couch.main, forms)) + waiting(world) >= 2_000
    world.start_api(api.port)
    eventually(lambda: waiting(world) == 0, 30)
    assert len(stored(world.couch.main, forms)) == 2_000
    assert_order_of_receipt(world)


# ---- a spool that takes nothing


def test_whoever_holds_the_spools_lock_holds_up_what_is_spooled_alone(house: House) -> None:
    world = house.world
    api = world.start_api()
    forms = [incoming(f"lock-{n}", sender, "HELP") for n, sender in enumerate(numbers(3))]
    assert post(api, forms[0]) == 200
    house.stop_store()
    assert post(api, forms[1]) == 200
    with closing(sqlite3.connect(spool_path(world), isolation_level=None)) as other, ThreadPoolExecutor() as threads:
        other.execute("BEGIN EXCLUSIVE")
        waits = threads.submit(post, api, forms[2])
        for _ in range(20):
            assert requests.get(f"{api.url}/healthz", timeout=60).status_code == 200
        assert not waits.done()
        other.execute("ROLLBACK")
        assert waits.result() == 200, "or it waited for longer than it may"
    house.start_store()
    eventually(lambda: len(stored(world.couch.main, forms)) == 3, 30)


@pytest.mark.parametrize("poisoned", [False, True])
def test_a_full_disk_is_said_and_answered_503(house: House, poisoned: bool) -> None:
    """A limit on the size of files stands for a disk that is full: SQLite meets the same error in the same place.

    What is all in CouchDB is removed all the same; what is refused has to be kept.
    """
    world = house.world
    api = world.start_api()
    forms = [incoming(f"disk-{n}", sender, "x" * 40_000) for n, sender in enumerate(numbers(40))]
    assert post(api, forms[0]) == 200
    house.stop_store()
    limit_files(api, 400_000)
    answers = [post(api, form) for form in forms[1:]]
    assert set(answers) == {200, 503}
    assert "callbacks can be stored nowhere" in api.log()
    assert "free some disk space" in api.log()
    limit_files(api, resource.RLIM_INFINITY)
    assert post(api, forms[-1]) == 200, "there is room again"
    if poisoned:
        with closing(sqlite3.connect(spool_path(world))) as connection, connection:
            poison(connection, world.couch.main.name, "cut off")
    limit_files(api, 10)
    house.start_store()
    acknowledged = {form["id"] for form, status in zip(forms[1:], answers, strict=True) if status == 200}
    acknowledged |= {forms[0]["id"], forms[-1]["id"]}
    eventually(lambda: stored(world.couch.main, forms) == acknowledged, 30)
    if poisoned:
        eventually(lambda: "free some disk space" in ready(api)["spool"][1])
        assert waiting(world) > 0, "nothing can be removed"
    else:
        eventually(lambda: ready(api)["spool"][0])
        assert spool_path(world).stat().st_size == 0
    assert post(api, forms[-2]) == 200, "CouchDB takes it"
    assert forms[-2]["id"] in stored(world.couch.main, forms)
    limit_files(api, resource.RLIM_INFINITY)
    eventually(lambda: waiting(world) == 0, 30)
    eventually(lambda: ready(api)["spool"][0] is not poisoned)
    assert stored(world.couch.main, forms) == acknowledged | {forms[-2]["id"]}
    assert "Traceback" not in api.log()


def test_a_disk_that_takes_no_log_line_stops_no_webhook(house: House) -> None:
    world = house.world
    api = world.start_api()
    forms = [incoming(f"log-{n}", sender, "HELP") for n, sender in enumerate(numbers(20))]
    assert post(api, forms[0]) == 200
    limit_files(api, 10)
    assert post_all(api.url + INCOMING, forms[1:], 4) == [200] * 19
    limit_files(api, resource.RLIM_INFINITY)
    assert len(stored(world.couch.main, forms)) == 20
    assert "Traceback" not in api.log()


def limit_files(api: Process, size: int) -> None:
    for pid in family(api.popen.pid):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def test_a_spool_that_cannot_be_written_is_said_and_answered_503(house: House) -> None:
    world = house.world
    api = world.start_api()
    first, second, third = (incoming(f"closed-{n}", sender, "HELP") for n, sender in enumerate(numbers(3)))
    assert post(api, first) == 200
    # Permissions would not stop a superuser.
    spool_path(world).mkdir()
    house.stop_store()
    assert post(api, second) == 503
    assert "callbacks can be stored nowhere" in api.log()
    assert ready(api)["spool"][0] is False
    spool_path(world).rmdir()
    assert post(api, third) == 200
    house.start_store()
    eventually(lambda: stored(world.couch.main, [first, second, third]) == {first["id"], third["id"]}, 30)
    assert "Traceback" not in api.log()


def test_a_spool_that_cannot_be_read_holds_up_no_webhook_while_couchdb_is_well(house: House) -> None:
    world = house.world
    api = world.start_api()
    forms = [incoming(f"damaged-{n}", sender, "HELP") for n, sender in enumerate(numbers(4))]
    assert post(api, forms[0]) == 200
    house.stop_store()
    assert post(api, forms[1]) == 200
    kill(api)
    path, aside = spool_path(world), spool_path(world).with_name("aside")
    path.rename(aside)
    path.write_bytes(b"no spool" * 1_000)
    house.start_store()
    api = world.start_api(api.port)
    assert post(api, forms[2]) == 200
    eventually(lambda: "the spool cannot be drained" in api.log())
    assert f"he spool {path} cannot be read" in ready(api)["spool"][1]
    assert post(api, forms[3]) == 200
    assert len(stored(world.couch.main, forms)) == 3
    assert path.read_bytes() == b"no spool" * 1_000
    aside.replace(path)
    eventually(lambda: len(stored(world.couch.main, forms)) == 4, 30)
    eventually(lambda: ready(api)["spool"][0])
    assert "CouchDB is away" not in api.log()
    assert "Traceback" not in api.log()


# ---- entries that can never be stored

POISONS = {
    "refused by CouchDB": (json.dumps({"_id": "refused by CouchDB", "_unknown": 1}).encode(), "doc_validation"),
    "cut off": (b'{"_id": "cut off", "text": "cut o', "no JSON"),
    "nested too deeply": (b'{"_id": "nested too deeply", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "no JSON"),
    "a flipped bit": (b'{"_id": "a flipped bit", "text": "\xe8"}', "no JSON"),
    "no document": (b'["no", "document"]', "not the document of this id"),
    "another's document": (b'{"_id": "of another row"}', "not the document of this id"),
    "larger than CouchDB takes": (
        json.dumps({"_id": "larger than CouchDB takes", "text": "x" * 9_000_000}).encode(),
        "too_large",
    ),
}


def poison(connection: sqlite3.Connection, database: str, *names: str) -> None:
    rows = [(database, name, POISONS[name][0]) for name in names]
    connection.executemany("INSERT INTO waiting (db, id, doc) VALUES (?, ?, CAST(? AS TEXT))", rows)


def test_poisoned_entries_are_set_aside_and_the_rest_goes_on(house: House) -> None:
    world = house.world
    api = world.start_api()
    forms = [incoming(f"sound-{n}", sender, "HELP") for n, sender in enumerate(numbers(21))]
    assert post(api, forms[0]) == 200
    house.stop_store()
    assert post_all(api.url + INCOMING, forms[1:11], 4) == [200] * 10
    with closing(sqlite3.connect(spool_path(world))) as connection, connection:
        poison(connection, world.couch.main.name, *POISONS)
    assert post_all(api.url + INCOMING, forms[11:], 4) == [200] * 10
    house.start_store()
    eventually(lambda: waiting(world) == 0, 30)
    assert len(stored(world.couch.main, forms)) == 21
    with closing(sqlite3.connect(spool_path(world))) as connection:
        found = connection.execute("SELECT id, CAST(doc AS BLOB), reason FROM set_aside")
        aside = {doc_id: (content, reason) for doc_id, content, reason in found}
    assert {name: content for name, (content, _) in aside.items()} == {name: each[0] for name, each in POISONS.items()}
    for doc_id, (_, reason) in POISONS.items():
        assert reason in aside[doc_id][1]
    assert api.log().count("a spooled document is refused and set aside") == len(POISONS)
    assert f"CouchDB refused {len(POISONS)} spooled documents" in ready(api)["spool"][1]
    assert post(api, incoming("after", numbers(1)[0], "HELP")) == 200
    assert world.couch.main.get(documents.incoming_id("africas-talking", "after"))
