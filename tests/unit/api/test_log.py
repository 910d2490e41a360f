"""No secret in any log line, whichever way it comes."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from mjumbe import log

SECRET = "s3cr3t"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


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
    ],
)
def test_texts_are_scrubbed(text: str) -> None:
    assert SECRET not in log.scrub_text(text)


@pytest.mark.parametrize("text", ["a monkey=banana", "the key is wrong", "http://127.0.0.1:5984/medic", "keyword=x"])
def test_other_texts_stay(text: str) -> None:
    assert log.scrub_text(text) == text


def test_events_are_json_lines_without_secrets(stream: io.StringIO) -> None:
    log.configure("json", stream)
    logger = structlog.get_logger()
    logger.info("request", path="/x", key=SECRET, headers={"Authorization": SECRET, "list": [f"key={SECRET}"]})
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


def test_for_people(stream: io.StringIO) -> None:
    log.configure("console", stream)
    structlog.get_logger().info("API listening", port=8000)
    assert "API listening" in stream.getvalue()
    assert "port=8000" in stream.getvalue()


def test_libraries_are_quiet(stream: io.StringIO) -> None:
    log.configure("json", stream)
    for name in log.QUIET:
        logging.getLogger(name).info("chatter")
    structlog.get_logger().debug("detail")
    assert stream.getvalue() == ""
