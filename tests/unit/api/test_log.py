"""No secret in any log line, whichever way it comes."""

import io
import json
import logging
import socket
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import structlog

from mjumbe import log
from mjumbe.http_sessions import plain_session

SECRET = "s3cr3t"


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    monkeypatch.setenv("MJUMBE_LOG", "json")
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


@pytest.mark.parametrize("library", ["urllib3.connectionpool", "ibm_cloud_sdk_core", "asyncio"])
def test_what_libraries_say_of_each_request_is_not_logged_at_any_level(
    stream: io.StringIO, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    monkeypatch.setenv("MJUMBE_LOG_LEVEL", "debug")
    log.configure(stream)
    logging.getLogger(library).info("a request")
    logging.getLogger("ours").info("an event")
    assert "a request" not in stream.getvalue()
    assert "an event" in stream.getvalue()


@pytest.mark.parametrize(
    "text",
    [
        f"GET /api/v1/sms/africastalking/incoming-messages?key={SECRET} HTTP/1.1",
        f"/x?a=1&key={SECRET}&b=2",
        f"/x?KEY={SECRET}",
        f"/x?key%3D{SECRET}",
        f"api_key={SECRET}",
        f"username=sandbox&apiKey={SECRET}",
        f"Authorization: Basic {SECRET}",
        f"{{'Authorization': 'Basic {SECRET}', 'Accept': 'x'}}",
        f'{{"apiKey": "{SECRET}"}}',
        f"Cookie: AuthSession={SECRET}; Path=/",
        f"Set-Cookie: AuthSession={SECRET}",
        f"x-api-key: {SECRET}",
        f"http://admin:{SECRET}@127.0.0.1:5984/medic",
        f"password={SECRET}",
        f"http://admin:pa/ss@{SECRET}@127.0.0.1:5984/medic",
        f"{{'name': 'admin', 'password': '{SECRET}'}}",
        f'{{"secret": "{SECRET}"}}',
        f"/x%3Fkey%3D{SECRET}",
        f"/x%3fkey%3d{SECRET}&b=2",
        f"/x%253Fkey%253D{SECRET}",
        f"http%3A%2F%2Fh%2Fp%3Fkey%3D{SECRET}",
        f"/x%2Fkey={SECRET}",
        f"/x?k%65y={SECRET}",
        f"/x%3F%4Bey%3D{SECRET}",
        f"/x%253Fk%2565y%253D{SECRET}",
        f"phoneNumber=x&checkoutToken={SECRET}",
        f"accessToken={SECRET}",
        f"access_token={SECRET}",
        f'{{"accessToken": "{SECRET}"}}',
        f"X-Viber-Auth-Token: {SECRET}",
        f"{{'X-Viber-Auth-Token': '{SECRET}'}}",
        f"Authorization: Digest a=b, response={SECRET}",
        f"Cookie: a=b, AuthSession={SECRET}",
        f"admin%3A{SECRET}%40host",
        f"http%3A%2F%2Fadmin%3A{SECRET}%40host%3A5984",
        f"admin%253A{SECRET}%2540host",
    ],
)
def test_texts_are_scrubbed(text: str) -> None:
    assert SECRET not in log.scrub_text(text)


@pytest.mark.parametrize(
    "text",
    [
        "a monkey=banana",
        "/x%3Fmonkey%3Dbanana",
        "the key is wrong",
        "Viber did not take the token: invalidAuthToken",
        "http://127.0.0.1:5984/medic",
        "keyword=x",
        "opt-out:africas-talking:22000%3A%2B254711000111",
        "http%3A%2F%2F127.0.0.1%3A5984",
        "/people/a%40b",
    ],
)
def test_other_texts_stay(text: str) -> None:
    assert log.scrub_text(text) == text


def test_events_are_json_lines_without_secrets(stream: io.StringIO) -> None:
    log.configure(stream)
    logger = structlog.get_logger()
    headers = {"Authorization": SECRET, "list": [f"key={SECRET}"]}
    logger.info("request", path="/x", key=SECRET, token=SECRET, headers=headers)
    try:
        raise ValueError(f"http://admin:{SECRET}@host")
    except ValueError:
        logger.exception("failed")
    logging.getLogger("gunicorn.error").warning("Invalid request line: %s", f"GET /?key={SECRET}")
    logging.getLogger("somebody").error("failed", exc_info=ValueError(f"key={SECRET}"))
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["request", "failed", "Invalid request line: GET /?key=***", "failed"]
    assert [line["level"] for line in lines] == ["info", "error", "warning", "error"]
    assert all(line["timestamp"].endswith("Z") for line in lines)
    assert "Traceback" in lines[1]["exception"]
    assert SECRET not in stream.getvalue()


def test_warnings_are_events_without_secrets(stream: io.StringIO) -> None:
    log.configure(stream)
    warnings.warn(f"key={SECRET} is deprecated", stacklevel=1)
    [line] = stream.getvalue().splitlines()
    assert json.loads(line)["level"] == "warning"
    assert "key=***" in line


def test_what_logged_already_goes_where_the_next_configuration_says(stream: io.StringIO) -> None:
    logger, second = structlog.get_logger(), io.StringIO()
    for place, out in enumerate((stream, second)):
        log.configure(out)
        logger.info(f"event {place}")
    assert ("event 1" in stream.getvalue(), "event 1" in second.getvalue()) == (False, True)


def test_for_people(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MJUMBE_LOG", "console")
    log.configure(stream)
    structlog.get_logger().info("API listening", port=8000)
    assert "API listening" in stream.getvalue()
    assert "port=8000" in stream.getvalue()


def test_libraries_are_quiet(stream: io.StringIO) -> None:
    log.configure(stream)
    for name in log.QUIET:
        logging.getLogger(name).info("chatter")
    structlog.get_logger().debug("detail")
    assert stream.getvalue() == ""


def test_nothing_is_said_of_an_answer_whose_head_cannot_be_read(stream: io.StringIO) -> None:
    """It may repeat what was asked."""
    log.configure(stream)
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nno header\r\nX-Asked: Habari\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with ThreadPoolExecutor() as threads, plain_session() as session:
            asked = threads.submit(session.get, url, timeout=30)
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)
                assert asked.result().status_code == 200
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("text", "logged"),
    [
        ("+254711000111", "**********111"),
        ("254711000111 and 0711000112", "*********111 and *******112"),
        ("/x?phone=%2B254711000111&a=1", "/x?phone=%2B*********111&a=1"),
        ("outgoing:254711000111", "outgoing:*********111"),
        ("opt-out:africas-talking:22000%3A%2B254711000111", "opt-out:africas-talking:22000%3A%2B*********111"),
        ("/x%252B254711000111", "/x%252B*********111"),
        ("0711 000 111", "*********111"),
        ("0711-000111, or 0712 000112", "********111, or ********112"),
        ("0711 000 111 0712 000 112", "**********************112"),
        ("+254-711-000111", "************111"),
        ("0711 00 111", "********111"),
        ("+254 711 000 111.", "*************111."),
        ("12345678", "12345678"),
        ("0711 000", "0711 000"),
        ("05 2026 08:30:00", "05 2026 08:30:00"),
        ("2026-01-31 08:30:00", "2026-01-31 08:30:00"),
        ("08:30:00 +0000", "08:30:00 +0000"),
        ("00-0123456789abcdef-01", "00-0123456789abcdef-01"),
        ("2026-01-31T08:30:00.123456789Z", "2026-01-31T08:30:00.123456789Z"),
        ("0f8fad5b-d9cb-469f-a165-708677289502", "0f8fad5b-d9cb-469f-a165-708677289502"),
        ("ATXid_123456789012", "ATXid_123456789012"),
    ],
)
@pytest.mark.parametrize("form", ["json", "console"])
def test_numbers_are_masked_unless_the_operator_wants_them(
    stream: io.StringIO, monkeypatch: pytest.MonkeyPatch, form: str, text: str, logged: str
) -> None:
    monkeypatch.setenv("MJUMBE_LOG", form)
    for wanted in ("masked", "full"):
        monkeypatch.setenv("MJUMBE_LOG_NUMBERS", wanted)
        log.configure(stream)
        structlog.get_logger().info(f"of {text}", nested={"to": [text]})
        logging.getLogger("somebody").error("failed: %s", text)
    masked, full = stream.getvalue().splitlines()[:2], stream.getvalue().splitlines()[2:]
    assert [line.count(logged) for line in masked] == [2, 1]
    assert [line.count(text) for line in full] == [2, 1]


@pytest.mark.parametrize("value", ["a\nb", "a\r\nb", "\x1b[2J", "a\x85b", "a\u2028b", "a\u202eb", "a\tb"])
@pytest.mark.parametrize("form", ["json", "console"])
def test_nobody_writes_lines_of_their_own(
    stream: io.StringIO, monkeypatch: pytest.MonkeyPatch, form: str, value: str
) -> None:
    monkeypatch.setenv("MJUMBE_LOG", form)
    log.configure(stream)
    structlog.get_logger().info(f"of {value}", path=value, nested={"a": [value]})
    logging.getLogger("gunicorn.error").warning("Invalid request from: %s", value)
    [first, second] = stream.getvalue().split("\n")[:-1]
    assert value not in first
    assert value not in second
    assert not log.CONTROLS.search(first + second)


def test_a_traceback_cannot_pass_for_an_event(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MJUMBE_LOG", "console")
    log.configure(stream)
    try:
        raise ValueError("x\n2026-01-31T08:30:00Z [info     ] forged")
    except ValueError:
        structlog.get_logger().exception("failed")
    lines = stream.getvalue().rstrip("\n").split("\n")
    assert len(lines) > 3
    assert all(line.startswith("    ") for line in lines[1:])
