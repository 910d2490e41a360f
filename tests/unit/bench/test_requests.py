"""The load generator's requests, and how it reads answers."""

import json
from urllib.parse import parse_qs

import pytest

from bench.bodies import MAKERS, message_id
from bench.generator import Run, split_answer
from bench.load import Job, Kind

CALLBACK = "http://127.0.0.1:8000/api/v1/sms/africastalking/incoming-messages?key=a%20key"
DATABASE = "http://127.0.0.1:5984/some-db"


def job(kind: Kind, url: str, **more: int) -> Job:
    return Job(kind, url, **{"connections": 1, "most": 30, "seconds": 60.0, **more}, tag="t", headers={"Cookie": "c"})  # type: ignore[arg-type]


def split(request: bytes) -> tuple[str, dict[str, str], bytes]:
    """First line, headers and body."""
    head, _, body = request.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return first, dict(line.split(": ", 1) for line in lines), body


@pytest.mark.parametrize(
    ("kind", "url", "first"),
    [
        ("webhook", CALLBACK, "POST /api/v1/sms/africastalking/incoming-messages?key=a%20key HTTP/1.1"),
        ("put", DATABASE, "PUT /some-db/incoming%3Aafricas-talking%3AATXid_t00000007 HTTP/1.1"),
        ("bulk", DATABASE, "POST /some-db/_bulk_docs HTTP/1.1"),
    ],
)
def test_requests_are_whole(kind: Kind, url: str, first: str) -> None:
    line, headers, body = split(MAKERS[kind](job(kind, url))(7))
    assert line == first
    assert headers["Content-Length"] == str(len(body))
    assert headers["Cookie"] == "c"


def test_webhooks_are_africas_talkings_form() -> None:
    _, headers, body = split(MAKERS["webhook"](job("webhook", CALLBACK))(7))
    fields = parse_qs(body.decode())
    assert headers["Content-Type"].startswith("application/x-www-form-urlencoded")
    assert list(fields) == ["id", "from", "to", "text", "date", "networkCode"]
    assert fields["id"] == [message_id("t", 7)]


def test_reports_are_africas_talkings_form() -> None:
    fields = parse_qs(split(MAKERS["report"](job("report", CALLBACK))(7))[2].decode())
    assert list(fields) == ["id", "status", "phoneNumber", "networkCode", "retryCount"]
    assert (fields["id"], fields["status"]) == ([message_id("t", 7)], ["Success"])


def test_bulks_write_documents_that_no_other_bulk_does() -> None:
    make = MAKERS["bulk"](job("bulk", DATABASE, docs=3))
    ids = [doc["_id"] for n in range(4) for doc in json.loads(split(make(n))[2])["docs"]]
    assert len(set(ids)) == len(ids) == 12


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", None),
        (b"HTTP/1.1 200 OK\r\nContent-Le", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n1234", None),
        (b"HTTP/1.1 200 OK\r\ncontent-length:5\r\nServer: x\r\n\r\n12345", (200, b"12345")),
        (b"HTTP/1.1 503 Away\r\nRetry-After: 5\r\nContent-Length: 0\r\n\r\n", (503, b"")),
        (b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n", None),
        (
            b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\n\r\n",
            (201, b"2\r\n[]\r\n0\r\n\r\n"),
        ),
    ],
)
def test_answers_are_read_when_they_are_whole(data: bytes, expected: tuple[int, bytes] | None) -> None:
    assert split_answer(bytearray(data)) == expected


def test_a_run_ends_at_its_count_and_measures_what_comes_after_the_warm_up() -> None:
    run = Run(job("put", DATABASE))
    while run.next() is not None:
        run.answered(201, b'{"ok":true}', began=0.0)
    run.answered(409, b'{"error":"conflict"}', began=0.0)
    result = run.result()
    assert (result.good, result.wrong, result.first_wrong) == (30, 1, '409 {"error":"conflict"}')
    assert result.rate > 0


def test_a_run_that_is_no_longer_than_its_warm_up_has_no_result() -> None:
    with pytest.raises(ValueError, match="0 answers"):
        Run(job("put", DATABASE)).result()
