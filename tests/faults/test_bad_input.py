"""Bad input: whatever is posted, no 500, no traceback, what is acknowledged is stored, and memory is bounded."""

import io
import json
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from urllib.parse import quote_from_bytes, urlencode, urlsplit

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.core.result import Ok

from mjumbe import documents
from tests import leaks
from tests.faults.rig import INCOMING, REPORTS, incoming, memory, post_all, sizes, stored
from tests.integration.processes import eventually
from tests.integration.sentinel.world import INCOMING_KEY, World, number

PATHS = (INCOMING, REPORTS, "/api/v1/sms/africastalking/opt-out", "/api/v1/sms/africastalking/subscription")
MB = 2**20
MORE_MEMORY = 150  # MB: what many requests at once may leave behind, and no growth with their number
NOT_NUMBERED = 10_000

FORM, JSON, MULTIPART = "application/x-www-form-urlencoded", "application/json", "multipart/form-data; boundary=x"


@pytest.fixture(autouse=True)
def nothing_made_up_is_a_secret() -> Iterator[None]:
    with leaks.deaf():
        yield


relaxed = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))


def post(world: World, path: str, body: bytes, content_type: str, **headers: str) -> requests.Response:
    sent = {"Content-Type": content_type, **headers}
    return requests.post(world.api.url + path, params={"key": INCOMING_KEY}, data=body, headers=sent, timeout=60)


def assert_sound(world: World) -> None:
    """It goes on: the API takes an ordinary message, and neither process has met an error that it did not expect."""
    ordinary = incoming(uuid.uuid4().hex, number(), "HABARI")
    assert post_all(world.api.url + INCOMING, [ordinary], 1) == [200]
    assert stored(world.couch.main, [ordinary])
    for process in world._processes:
        assert "Traceback" not in process.log()
        assert "request failed" not in process.log()


# ---- bodies by hand

FIELDS = urlencode({"id": "ID", "from": "+254711000001", "to": "22000", "text": "TEXT"})

BODIES: dict[str, tuple[bytes, str]] = {
    "invalid UTF-8": (FIELDS.replace("TEXT", "%ff%fe%c3").encode(), FORM),
    "invalid UTF-8, not quoted": (FIELDS.encode().replace(b"TEXT", b"\xff\xfe\xc3("), FORM),
    "NUL": (FIELDS.replace("TEXT", "a%00b").encode(), FORM),
    "lone surrogates": (json.dumps({"id": "ID", "from": "+254711000001", "text": "\ud800"}).encode(), JSON),
    "100,000 fields": ("&".join(f"f{n}=1" for n in range(100_000)).encode(), FORM),
    "20,000 short fields": (b"a&" * 20_000, FORM),
    "a text of 1 MB": (FIELDS.replace("TEXT", "x" * MB).encode(), FORM),
    "a number of 1 MB": (b"id=ID&text=x&from=" + b"7" * MB, FORM),
    "a text of 60 KB": (FIELDS.replace("TEXT", "x" * 60_000).encode(), FORM),
    "an id of 60 KB": (FIELDS.replace("ID", "i" * 60_000).encode(), FORM),
    "a long JSON number": (b'{"id": ' + b"9" * 60_000 + b"}", JSON),
    "a large JSON exponent": (b'{"id": 1e999999, "from": 1, "text": 2}', JSON),
    "nested JSON": (b'{"id": ' + b"[" * 30_000 + b"]" * 30_000 + b"}", JSON),
    "nested JSON objects": (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, JSON),
    "nested JSON that is not closed": (b"[" * 60_000, JSON),
    "JSON of another shape": (b'["id", "from"]', JSON),
    "JSON with NaN": (b'{"id": NaN, "from": Infinity}', JSON),
    "JSON in UTF-16": (json.dumps({"id": "ID"}).encode("utf-16"), JSON + "; charset=utf-16"),
    "an unknown charset": (FIELDS.encode(), FORM + "; charset=klingon"),
    "multipart without a boundary": (b"--x\r\n\r\n", "multipart/form-data"),
    "multipart that ends early": (b'--x\r\nContent-Disposition: form-data; name="id"\r\n\r\n', MULTIPART),
    "multipart with 900 parts": (
        b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n' * 900 + b"--x--",
        MULTIPART,
    ),
    "a type that is none": (FIELDS.encode(), "\x7f;;;=,"),
    "nothing": (b"", FORM),
}  # fmt: skip


@pytest.mark.parametrize("path", PATHS[:2])
@pytest.mark.parametrize("name", BODIES)
def test_bodies(world: World, name: str, path: str) -> None:
    body, content_type = BODIES[name]
    message_id = f"bad-{uuid.uuid4().hex}"
    answer = post(world, path, body.replace(b"ID", message_id.encode()), content_type)
    assert answer.status_code in (200, 400, 413), answer.text
    if (
        answer.status_code == 200
        and path == INCOMING
        and message_id.encode() in body.replace(b"ID", message_id.encode())
    ):
        assert world.couch.main.get(documents.incoming_id("africas-talking", message_id)) or name == "an id of 60 KB"


def test_bodies_left_everything_sound(world: World) -> None:
    assert_sound(world)


def test_memory_is_bounded(world: World) -> None:
    bodies = [body for body in BODIES.values() if len(body[0]) > NOT_NUMBERED]
    for body, content_type in bodies:
        post(world, INCOMING, body, content_type)
    before = memory(world.api)
    for _ in range(15):
        for body, content_type in bodies:
            post(world, INCOMING, body, content_type)
    assert memory(world.api) - before < MORE_MEMORY


# ---- headers by hand

HEADERS: dict[str, bytes] = {
    "two lengths": b"Content-Length: 5\r\nContent-Length: 50\r\n",
    "a length and chunks": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    "a negative length": b"Content-Length: -1\r\n",
    "a length that is no number": b"Content-Length: 5x\r\n",
    "a very large length": b"Content-Length: 99999999999999999999\r\n",
    "chunks that are none": b"Transfer-Encoding: chunked\r\n",
    "a chunk with a bare CR": b"Transfer-Encoding: chunked\r\n\r\n5;a\rb\r\n",
    "an unknown transfer encoding": b"Transfer-Encoding: cow\r\n",
    "gzip that is none": b"Content-Encoding: gzip\r\nContent-Length: 5\r\n",
    "a header of 100 KB": b"X-Long: " + b"x" * 100_000 + b"\r\nContent-Length: 5\r\n",
    "2,000 headers": b"".join(b"X-%d: 1\r\n" % n for n in range(2_000)) + b"Content-Length: 5\r\n",
    "a header without a name": b": value\r\nContent-Length: 5\r\n",
    "a folded header": b"X-Folded: a\r\n b\r\nContent-Length: 5\r\n",
    "bytes that are no text": b"X-Bytes: \xff\xfe\x00\r\nContent-Length: 5\r\n",
    "a forged address": b"X-Forwarded-For: ' OR 1=1 --\r\nForwarded: for=evil\r\nContent-Length: 5\r\n",
    "a wrong Basic login": b"Authorization: Basic \xff\xff\r\nContent-Length: 5\r\n",
    "a Basic login that is no base64": b"Authorization: Basic :::\r\nContent-Length: 5\r\n",
    "an odd cookie": b"Cookie: AuthSession=\x01\x02; ;;=\r\nContent-Length: 5\r\n",
    "an expectation": b"Expect: 200-maybe\r\nContent-Length: 5\r\n",
    "a range": b"Range: bytes=5-1\r\nContent-Length: 5\r\n",
    "methods in disguise": b"X-HTTP-Method-Override: DELETE\r\nContent-Length: 5\r\n",
    "CR in a value": b"X-CR: a\rb\r\nContent-Length: 5\r\n",
}
TARGETS = (
    f"{INCOMING}?key={INCOMING_KEY}",
    "/api/v1/settings",
    "/api/sms",
    "/%ff%fe",
    "/" + "a" * 9_000,
    "//x/../..",
    "*",
)


@pytest.mark.parametrize("name", HEADERS)
def test_headers(world: World, name: str) -> None:
    for method in (b"POST", b"PUT", b"GET", b"BREW"):
        for target in TARGETS:
            status = raw(
                world, method + b" " + target.encode() + b" HTTP/1.1\r\nHost: x\r\n" + HEADERS[name] + b"\r\nid=1&"
            )
            # 501: a method or a transfer encoding that no server has; None: closed without an answer.
            assert status is None or status < 500 or status in (501, 505), (method, target, status)


def test_headers_left_everything_sound(world: World) -> None:
    assert_sound(world)


def raw(world: World, request: bytes) -> int | None:
    """The status of the answer to a request in bytes, after which nothing more is sent."""
    parts = urlsplit(world.api.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=60) as connection:
        with suppress(OSError):
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
        try:
            line = connection.makefile("rb").readline()
        except OSError:
            return None
    return int(line.split()[1]) if line.startswith(b"HTTP/") else None


# ---- bodies by chance

texts = st.one_of(st.text(), st.text(st.characters(min_codepoint=0, max_codepoint=0x2FFFF)))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
)
names = st.sampled_from(
    ["from", "to", "text", "date", "linkId", "cost", "networkCode", "status", "phoneNumber", "updateType"]
)


@st.composite
def forms(draw: Callable[..., object]) -> tuple[str, bytes, str]:
    """An incoming message with an id of its own and whatever else: (id, body, type)."""
    message_id = f"chance-{uuid.uuid4().hex}"
    if draw(st.booleans()):
        fields = draw(st.dictionaries(st.one_of(names, texts), values))
        assert isinstance(fields, dict)
        body = json.dumps(fields | {"id": message_id}).encode("utf-8", "surrogatepass")
        return message_id, body, JSON
    pairs = draw(st.lists(st.tuples(st.one_of(names.map(str.encode), st.binary()), st.binary())))
    assert isinstance(pairs, list)
    parts = [
        quote_from_bytes(name) + "=" + quote_from_bytes(value) for name, value in [(b"id", message_id.encode()), *pairs]
    ]
    return message_id, "&".join(parts).encode(), FORM


@sizes("examples", [150], [3_000])
def test_messages_by_chance(world: World, examples: int) -> None:
    acknowledged: set[str] = set()

    @settings(relaxed, max_examples=examples)
    @given(forms())
    def check(form: tuple[str, bytes, str]) -> None:
        message_id, body, content_type = form
        answer = post(world, INCOMING, body, content_type)
        assert answer.status_code in (200, 400, 413), (answer.status_code, body)
        if answer.status_code == 200:
            acknowledged.add(documents.incoming_id("africas-talking", message_id))

    check()
    assert set(world.couch.main.fetch(acknowledged)) == acknowledged
    # The sentinel has seen them all, too.
    world.until(world.write(number(), "after all that"), "delivered")
    assert_sound(world)


@sizes("examples", [150], [3_000])
def test_bytes_by_chance(world: World, examples: int) -> None:
    content_types = st.sampled_from([FORM, JSON, MULTIPART, "text/plain", ""])

    @settings(relaxed, max_examples=examples)
    @given(st.sampled_from(PATHS), st.binary(max_size=2_000), content_types)
    def check(path: str, body: bytes, content_type: str) -> None:
        assert post(world, path, body, content_type).status_code in (200, 400, 413)

    check()
    assert_sound(world)


# ---- by the description of the API

# Answers that say how somebody else is.
PERMITTED = {
    "/readyz": 503,
    "/api/v1/gateways/viber/webhook": 502,
    "/api/v1/subscriptions": 502,
    "/api/v1/subscriptions/fetch": 502,
}


@sizes("examples", [8], [200])
def test_what_the_description_allows_and_forbids(own_world: World, examples: int) -> None:
    world = own_world
    assert world.couch.user is not None
    admin = (world.couch.user, world.couch._password)
    description = requests.get(f"{world.api.url}/api/openapi.json", timeout=60).json()
    schema = schemathesis.openapi.from_file(io.StringIO(json.dumps(description)))
    found = [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]
    # Settings of chance could send us to services on the internet: they come last.
    for operation in sorted(found, key=lambda operation: "settings" in operation.path):

        @settings(relaxed, max_examples=examples)
        @given(case=operation.as_strategy(), allowed=st.booleans())
        def check(case: schemathesis.Case, allowed: bool) -> None:
            answer = case.call(base_url=world.api.url, auth=admin if allowed else None, timeout=60)
            permitted = PERMITTED.get(case.path)
            assert answer.status_code < 500 or answer.status_code == permitted, (case.method, case.path, answer.text)

        check()
    assert found
    assert "Traceback" not in world.api.log()
    assert "request failed" not in world.api.log()
    eventually(lambda: requests.get(f"{world.api.url}/healthz", timeout=60).status_code == 200)
