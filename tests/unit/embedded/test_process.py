"""The embedded store as a process: what it says when it cannot start, and when its disk is full."""

from __future__ import annotations

import errno
import resource
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from embedded.errors import disk_trouble

ROOT = Path(__file__).parents[3]
ADMIN = ("admin", "pw")


NO_FILES = ("sh", "-c", 'ulimit -f 0; exec "$@"', "sh")  # runs a command that may write to no file
FEW_ADDRESSES = ("sh", "-c", 'ulimit -v 8000000; exec "$@"', "sh")


def start(data: Path, *arguments: str, by: Sequence[str] = ()) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "embedded", "--data", str(data), "--admin", ":".join(ADMIN), *arguments]
    return subprocess.Popen([*by, *command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def refusal(*arguments: str, data: Path, by: Sequence[str] = ()) -> tuple[int, str]:
    """Exit code and last line of a store that cannot start."""
    with start(data, *arguments, by=by) as process:
        _, errors = process.communicate(timeout=60)
    assert "Traceback" not in errors
    return process.returncode, errors.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--port", "99999"), 2, "argument --port: expected a port, 0 to 65535, got 99999"),
        (("--port", "-1"), 2, "argument --port: expected a port, 0 to 65535, got -1"),
        (("--port", "0", "--host", "300.1.1.1"), 1, "choose another --host"),
        (("--port", "0", "--host", "192.0.2.1"), 1, "choose another --host"),
    ],
)
def test_an_address_that_cannot_be(arguments: tuple[str, ...], code: int, says: str, tmp_path: Path) -> None:
    status, line = refusal(*arguments, data=tmp_path)
    assert status == code
    assert line.endswith(says)


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, line = refusal("--port", str(port), data=tmp_path)
    where = f"it cannot listen at 127.0.0.1, port {port} (Address already in use)"
    assert (code, line) == (1, f"The embedded store cannot start: {where}; choose another --port")


def test_too_few_addresses_for_v8_are_said(tmp_path: Path) -> None:
    """It would abort the process, with nothing but addresses of its own code."""
    code, line = refusal("--port", "0", data=tmp_path, by=FEW_ADDRESSES)
    assert (code, line.partition(", and")[0]) == (
        1,
        "The embedded store cannot start: its addresses are limited to 7812 MB (`ulimit -v`, LimitAS)",
    )


def test_the_url_that_it_shows_can_be_asked_by_ipv6_too(tmp_path: Path) -> None:
    with start(tmp_path, "--port", "0", "--host", "::1") as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().partition(" on ")[2].strip()
            assert not url or requests.get(f"{url}_up", timeout=60).status_code == 200
        finally:
            process.terminate()
        _, errors = process.communicate(timeout=60)
    assert url or "choose another --host" in errors, "or this machine has no IPv6"


@pytest.mark.parametrize("content", ["", '{"couchdb', "[]", '{"couchdb": 1}'])
def test_a_damaged_configuration_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    code, line = refusal("--port", "0", data=tmp_path)
    assert code == 1
    assert line.startswith(f"The embedded store cannot start: its file {tmp_path / 'config.json'} is damaged (")


def test_a_damaged_database_is_named_and_the_others_serve(tmp_path: Path) -> None:
    (tmp_path / "databases").mkdir()
    (tmp_path / "databases" / "medic.sqlite").write_bytes(b"this is no database" * 500)
    with start(tmp_path, "--port", "0") as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().partition(" on ")[2].strip()
            answer = requests.get(f"{url}medic", auth=ADMIN, timeout=60)
            assert requests.get(f"{url}_users", auth=ADMIN, timeout=60).status_code == 200
        finally:
            process.terminate()
        _, errors = process.communicate(timeout=60)
    says = "The embedded store's database medic is damaged (file is not a database): stop the store and put a copy"
    assert answer.status_code == 500 and answer.json()["reason"].startswith(says)
    assert errors == f"{answer.json()['reason']}\n"


@pytest.mark.parametrize("lost", ["gone", "empty"])
def test_a_lost_database_is_named_and_not_begun_anew(lost: str, tmp_path: Path) -> None:
    """Its last writes are in the file beside it, which SQLite would remove without a word."""
    (tmp_path / "databases").mkdir()
    path, log = tmp_path / "databases" / "medic.sqlite", tmp_path / "databases" / "medic.sqlite-wal"
    if lost == "empty":
        path.touch()
    log.write_bytes(b"what was written last")
    with start(tmp_path, "--port", "0") as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().partition(" on ")[2].strip() + "medic"
            answers = [requests.request(method, url, auth=ADMIN, timeout=60) for method in ("PUT", "GET")]
        finally:
            process.terminate()
        process.communicate(timeout=60)
    says = f"The embedded store's database medic is damaged (medic.sqlite is {lost}, and medic.sqlite-wal is not): stop"
    reasons = [str(answer.json()["reason"]) for answer in answers if answer.status_code == 500]
    assert reasons and all(reason.startswith(says) for reason in reasons)
    assert log.read_bytes() == b"what was written last"


def test_clients_that_are_gone_before_their_answers_are_written_are_no_errors(tmp_path: Path) -> None:
    """One or another of many, as when the sentinel is killed, is met between two pieces of its answer."""
    with start(tmp_path, "--port", "0") as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().partition(" on ")[2].strip()
            requests.put(f"{url}medic", auth=ADMIN, timeout=60).raise_for_status()
            docs = [{"_id": str(number), "text": "x" * 100} for number in range(1_600)]
            requests.post(f"{url}medic/_bulk_docs", json={"docs": docs}, auth=ADMIN, timeout=60).raise_for_status()
            wanted = requests.Request("GET", f"{url}medic/_all_docs?include_docs=true", auth=ADMIN).prepare()
            login = wanted.headers["Authorization"]
            request = f"GET {wanted.path_url} HTTP/1.1\r\nHost: x\r\nAuthorization: {login}\r\n\r\n".encode()
            for _ in range(40):
                with socket.create_connection(("127.0.0.1", urlsplit(url).port or 0)) as client:
                    client.sendall(request)
                    assert client.recv(12) == b"HTTP/1.1 200"
        finally:
            process.terminate()
        _, errors = process.communicate(timeout=60)
    assert errors == ""


# A limit on the size of files stands for a disk that is full: SQLite meets an error in the same place.


def test_a_disk_that_is_full_at_the_start(tmp_path: Path) -> None:
    code, line = refusal("--port", "0", data=tmp_path, by=NO_FILES)
    assert code == 1
    assert line.startswith("The embedded store cannot start: The embedded store's disk ")


def test_a_disk_that_becomes_full_is_said_to_the_log_and_to_whoever_writes(tmp_path: Path) -> None:
    with start(tmp_path, "--port", "0") as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split(" on ")[1].strip() + "medic"
            requests.put(url, auth=ADMIN, timeout=60).raise_for_status()
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
            answer = requests.put(f"{url}/large", json={"text": "x" * 1_000_000}, auth=ADMIN, timeout=60)
            assert requests.get(url, auth=ADMIN, timeout=60).json()["doc_count"] == 0, "what is there can be read"
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            again = requests.put(f"{url}/large", json={"text": "x" * 1_000_000}, auth=ADMIN, timeout=60)
        finally:
            process.terminate()
        _, errors = process.communicate(timeout=60)
    assert (answer.status_code, answer.json()["error"]) == (500, "internal_server_error")
    assert answer.json()["reason"].startswith("The embedded store's disk ")
    assert errors == f"{answer.json()['reason']}\n"
    assert again.status_code == 201, "there is room again"


def sqlite_error(words: str, code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(words)
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (sqlite_error("database or disk is full", sqlite3.SQLITE_FULL), "is full (database or disk is full): free"),
        (OSError(errno.ENOSPC, "No space left on device"), "is full ([Errno 28] No space left on device): free"),
        (sqlite_error("disk I/O error", sqlite3.SQLITE_IOERR_WRITE), "fails (disk I/O error): is it full"),
        (OSError(errno.EIO, "Input/output error"), "fails ([Errno 5] Input/output error): is it full"),
        (PermissionError(errno.EACCES, "Permission denied"), "is it full, broken, or closed to this user?"),
        (sqlite_error("no such table: doc", sqlite3.SQLITE_ERROR), None),
        (OSError("no number"), None),
        (FileNotFoundError(errno.ENOENT, "gone"), None),
        (ValueError("x"), None),
    ],
    ids=str,
)
def test_which_errors_are_the_disks(error: Exception, says: str | None) -> None:
    trouble = disk_trouble(error)
    assert says in trouble if says and trouble else trouble is says
