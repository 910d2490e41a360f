"""What a CouchDB answers while it starts, ends, or looks for its cluster: it is there, and serves nobody.

The answers are those of chttpd:error_info in CouchDB's sources.
"""

import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from tests.faults.rig import INCOMING, House, accepted, incoming, numbers, post_all, stored, until_accepted
from tests.integration.processes import ADMIN, eventually
from tests.integration.sentinel.world import World, number

GOES_ON_SECONDS = 10.0

MOODS = {
    "starting": (500, '{"error":"unknown_error","reason":"badarg"}'),
    "no node has the database yet": (404, '{"error":"not_found","reason":"Database does not exist."}'),
    "a shard without a file": (404, '{"error":"not_found","reason":"no_db_file"}'),
    "all copies down": (412, '{"error":"nodedown","reason":"progress not possible"}'),
    "overloaded": (503, '{"error":"service unavailable","reason":"Nodes are unable to service this request"}'),
    "another secret, and none of ours": (401, '{"error":"unauthorized","reason":"You are not authorized"}'),
    "locked": (403, '{"error":"forbidden","reason":"Account is temporarily locked"}'),
    "a proxy that answers too soon": (200, '{"results":[{"seq":"1-'),
}


class Door(ThreadingHTTPServer):
    """Stands before a store and passes requests on, unless it has a mood: then all below a database gets that."""

    daemon_threads = True

    def __init__(self, store_url: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.store_url = store_url
        self.mood: tuple[int, str] | None = None
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Door

    def log_message(self, *_: Any) -> None:
        """Nothing is logged."""

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, headers, answer = self._moody() or self._passed_on(body)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def _moody(self) -> tuple[int, dict[str, str], bytes] | None:
        mood = self.server.mood
        if mood is None or self.path in ("/", "/_session"):
            return None
        return mood[0], {"Content-Type": "application/json"}, mood[1].encode()

    def _passed_on(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        wanted = ("Authorization", "Cookie", "Content-Type", "Accept")
        headers = {name: self.headers[name] for name in wanted if self.headers[name]}
        with requests.Session() as session:
            session.trust_env = False
            answer = session.request(
                self.command, self.server.store_url + self.path, data=body, headers=headers, timeout=90
            )
        kept = {name: answer.headers[name] for name in ("Content-Type", "Set-Cookie") if name in answer.headers}
        return answer.status_code, kept, answer.content


@dataclass
class Home:
    """A world whose store is behind a door."""

    world: World
    door: Door


@pytest.fixture
def home(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    parts = urlsplit(house.world.couch_url)
    door = Door(f"http://127.0.0.1:{parts.port}")
    url = f"{door.url.replace('://', '://' + ':'.join(ADMIN) + '@')}/test-{uuid.uuid4().hex}"
    made = Home(World(url, tmp_path_factory.mktemp("home")), door)
    yield made
    door.mood = None
    made.world.close()
    door.shutdown()


SHORT = ("no node has the database yet", "all copies down", "another secret, and none of ours")


@pytest.mark.parametrize(
    "mood", [name if name in SHORT else pytest.param(name, marks=pytest.mark.long) for name in MOODS]
)
def test_couchdb_is_there_and_serves_nobody(home: Home, mood: str) -> None:
    """Nothing acknowledged is lost, nothing is sent twice, and 10 s later everything goes on."""
    world, door = home.world, home.door
    world.set(sms={"africas_talking": {"batch_size": 1}})
    world.simulator.control(latency_ms=300, reports=False)
    sentinel, url = world.start_sentinel(), world.api.url + INCOMING
    sender = number()
    assert post_all(url, [incoming(uuid.uuid4().hex, sender, "before")], 1) == [200]
    keys = [(to, f"message {n}") for n, to in enumerate(numbers(60))]
    ids = world.write_many(keys)
    until_accepted(world, 10)
    door.mood = MOODS[mood]
    forms = [incoming(uuid.uuid4().hex, sender, f"meanwhile {n}") for n in range(10)]
    statuses = post_all(url, forms, 2)
    began = time.monotonic()
    eventually(lambda: time.monotonic() - began > 4, 6)  # the claims under way meet the mood, the lease does not end
    door.mood = None
    returned = time.monotonic()
    world.until(world.write(number(), "afterwards"), "sent", GOES_ON_SECONDS)
    assert time.monotonic() - returned < GOES_ON_SECONDS
    assert statuses == [200] * 10
    eventually(lambda: stored(world.couch.main, forms) == {form["id"] for form in forms}, 30)
    eventually(lambda: set(world.states(ids)) == {"sent"}, 60)
    counts = accepted(world)
    assert {key: counts[key] for key in keys} == dict.fromkeys(keys, 1)
    assert sentinel.popen.poll() is None
    assert "Traceback" not in sentinel.log() + world.api.log()
