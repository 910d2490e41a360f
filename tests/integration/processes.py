"""Starting and stopping the processes that the integration tests talk to."""

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from mjumbe.couch import ADMINS_ONLY, Couch, CouchError, Database
from tests import leaks

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 30.0
STOP_SECONDS = 30.0
ADMIN = ("admin", leaks.secret("a-test-password"))
VAULT_KEY = leaks.secret("a passphrase for tests only")


@dataclass
class Process:
    """A process of ours that listens at `url` (without a slash at the end)."""

    popen: "subprocess.Popen[bytes]"
    output: Path
    url: str = ""

    def __post_init__(self) -> None:
        leaks.outputs[self.output] = None

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 0

    def log(self) -> str:
        """All that it wrote, to both streams."""
        return self.output.read_text(errors="replace")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it, if it has not ended, and return its exit code."""
        if self.popen.poll() is None:
            self.popen.send_signal(number)
            try:
                self.popen.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()
                raise
        return self.popen.returncode


def stop_all(processes: Sequence[Process]) -> None:
    """End those that have not ended, all at once."""
    for process in processes:
        if process.popen.poll() is None:
            process.popen.send_signal(signal.SIGCONT)
            process.popen.terminate()
    for process in processes:
        process.stop()


def start(
    arguments: Sequence[str], output: Path, env: Mapping[str, str] | None = None, says: str = "listening on"
) -> Process:
    """Start `python -m <arguments>` and wait until it says where it listens."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MJUMBE_", "COUCH_"))}
    with output.open("wb") as stream:
        popen = subprocess.Popen(
            [sys.executable, "-m", *arguments], cwd=ROOT, env=clean | dict(env or {}), stdout=stream, stderr=stream
        )
    process = Process(popen, output)
    deadline = time.monotonic() + START_SECONDS
    while not (found := re.search(says + r" (http://\S+?)/?\s", process.log())):
        if popen.poll() is not None or time.monotonic() > deadline:
            process.stop(signal.SIGKILL)
            raise AssertionError(f"{' '.join(arguments)} does not listen:\n{process.log()}")
        time.sleep(0.02)
    process.url = found[1]
    return process


def family(pid: int) -> list[int]:
    """A process and those it started."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(one for child in children for one in family(int(child)))]


def runs(pid: int) -> bool:
    """Whether there is such a process; one that has ended and waits for its parent to notice is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def eventually(condition: Callable[[], object], seconds: float = 15.0) -> None:
    """Wait until `condition` is true; a failed assertion in it counts as not yet. Fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
            problem: AssertionError | None = None
        except AssertionError as error:
            problem = error
        if time.monotonic() > deadline:
            raise problem or AssertionError(f"not true within {seconds:.0f} s")
        time.sleep(0.02)


def make_databases(couch: Couch) -> None:
    """Make its databases of one copy each, before `setup.prepare` finds them.

    A cluster answers a write that two of three copies have (fabric_doc_update.erl), and a view is read from one of the
    three: tests that write and then look would find nothing at times.
    """
    for database in couch.databases:
        with suppress(CouchError):  # it is there
            couch.request("PUT", f"/{quote(database.name, safe='')}", params={"n": "1"})
            couch.request("PUT", f"/{quote(database.name, safe='')}/_security", body=ADMINS_ONLY)


@contextmanager
def nothing_stored(*databases: Database) -> Iterator[None]:
    """Around what must not store anything in these databases.

    Their changes are looked at: a sequence is opaque, and a cluster gives two of one place, by which of its nodes
    answered (fabric_db_info.erl).
    """
    places = [str(database.info()["update_seq"]) for database in databases]
    yield
    for database, place in zip(databases, places, strict=True):
        assert database.changes(place, limit=10, docs=False).changes == []


def make_user(couch: Couch, name: str, password: str, roles: Sequence[str]) -> tuple[str, str]:
    """A CouchDB user of its own, as (name, password) for requests."""
    unique = f"{name}-{uuid.uuid4().hex[:8]}"
    doc = {
        "_id": f"org.couchdb.user:{unique}",
        "name": unique,
        "password": leaks.secret(password),
        "roles": list(roles),
        "type": "user",
    }
    couch.request("PUT", f"/_users/org.couchdb.user:{unique}", body=doc)
    users.append(unique)
    return unique, password


users: list[str] = []  # whom `make_user` made


def remove_users(server_url: str) -> None:
    """Remove those whom this process's tests made."""
    users_of = Database(Couch(f"{server_url}/_users"), "_users")
    for doc in users_of.fetch(f"org.couchdb.user:{name}" for name in users).values():
        users_of.delete(doc["_id"], doc["_rev"])
