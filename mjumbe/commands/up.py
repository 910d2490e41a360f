"""`mjumbe up`: every process in one terminal, started in order, started again when one ends, stopped by one Ctrl-C."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import click
import structlog

from mjumbe.commands.demo import Demo
from mjumbe.config import data_directory
from mjumbe.couch import Couch, CouchError, UnavailableError
from mjumbe.log import scrub_text
from mjumbe.parent import end_with
from mjumbe.private_files import make_private, private_draft
from mjumbe.stopping import stop_event

log = structlog.get_logger(__name__)

PORTS = {"embedded": 5984, "api": 8000, "simulator": 8080}
PASSWORD_FILE = "admin-password"  # noqa: S105  # a file in MJUMBE_DATA, when the store is ours
START_SECONDS = 30.0
STOP_SECONDS = 75.0  # the sentinel finishes its requests, and a service may take 60 s to answer one
AGAIN_SECONDS = 1.0
AWAY_SECONDS = 3.0
# A machine that goes down tells all processes to end at once, and systemd all of a service. The others have something
# to store then, so the store is deaf to SIGTERM and ends when we say so.
ENDINGS = {"embedded": signal.SIGINT}


@dataclass(slots=True)
class Process:
    """One `mjumbe …` process; `url` is where it said that it listens."""

    name: str
    arguments: list[str]
    environ: Mapping[str, str]
    popen: subprocess.Popen[str] | None = None
    url: str | None = None
    listening: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        command = [sys.executable, "-m", "mjumbe.cli", self.name, *self.arguments]
        self.popen = subprocess.Popen(  # noqa: S603  # our own command
            command,
            env=dict(self.environ),
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C reaches us alone, and we stop the processes in order
            preexec_fn=partial(self._begin, os.getpid()),  # noqa: PLW1509  # system calls, no lock
        )
        threading.Thread(target=self._read, args=(self.popen,), daemon=True).start()

    def _begin(self, parent: int) -> None:
        """In the new process, before its program is loaded."""
        # Without us nobody would stop it, and it would keep its port and data from the next start.
        end_with(parent)
        if self.name in ENDINGS:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a program inherits that

    def _read(self, popen: "subprocess.Popen[str]") -> None:
        for line in popen.stdout or ():
            if " listening on http" in line:
                self.url = line.split(" listening on ")[1].strip().rstrip("/")
                self.listening.set()
        self.listening.set()

    def ended(self) -> bool:
        """Whether it ended without listening."""
        return self.listening.is_set() and self.url is None

    def stop(self) -> None:
        if self.popen is not None and self.popen.poll() is None:
            self.popen.send_signal(ENDINGS.get(self.name, signal.SIGTERM))
            try:
                self.popen.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                log.warning("a process did not stop in time and is killed", process=self.name)
                self.popen.kill()
                self.popen.wait()


class Supervisor:
    """Starts processes, keeps them running, stops them in reverse order."""

    def __init__(self) -> None:
        self._processes: list[Process] = []

    def start(self, name: str, arguments: list[str], environ: Mapping[str, str]) -> Process:
        process = Process(name, arguments, environ)
        self._processes.append(process)
        process.start()
        return process

    def listen(self, name: str, arguments: list[str], environ: Mapping[str, str]) -> str:
        """Start a process that listens, on its usual port or a free one; its URL. Raises RuntimeError."""
        port = free_port(PORTS[name])
        process = self._start_at(port, name, arguments, environ)
        if process.ended():  # somebody took the port after we had looked, and may have left it again
            self._processes.remove(process)
            process = self._start_at(free_port(port), name, arguments, environ)
        if process.url is None:
            raise RuntimeError(f"{name} did not start; its own messages above say why")
        return process.url

    def _start_at(self, port: int, name: str, arguments: list[str], environ: Mapping[str, str]) -> Process:
        """Start a process, and wait until it listens or ends, for START_SECONDS at most."""
        if port != PORTS[name]:
            _say(f"Port {PORTS[name]} is taken, so {name} listens on port {port}.")
        process = self.start(name, [*arguments, "--port", str(port)], environ)
        process.listening.wait(START_SECONDS)
        return process

    def watch(self, stop: threading.Event) -> None:
        """Start again what ends, until `stop` is set."""
        while not stop.wait(AGAIN_SECONDS):
            for process in self._processes:
                if process.popen is not None and process.popen.poll() is not None:
                    self._start_again(process, process.popen.returncode)

    def _start_again(self, process: Process, code: int) -> None:
        log.error("a process ended and is started again", process=process.name, code=code)
        try:
            process.start()
        except OSError as error:  # no memory, for instance: the others run on, and it is tried again
            log.error("a process cannot be started now", process=process.name, reason=error.strerror)

    def stop(self) -> None:
        for process in reversed(self._processes):
            process.stop()


def _say(words: str, *, err: bool = False) -> None:
    """Print a line for whoever is there. An output that takes nothing (a full disk, a closed pipe) stops nobody."""
    with suppress(OSError):
        click.echo(words, err=err)


def free_port(wanted: int) -> int:
    """`wanted` when nobody listens there, else a free one."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise RuntimeError("no free port on 127.0.0.1")


def run(*, demo: bool, once: bool) -> int:
    """Run everything until SIGINT or SIGTERM (with `once` until the demo message is delivered). The exit status."""
    stop = stop_event()
    environ, supervisor, began = dict(os.environ), Supervisor(), time.monotonic()
    environ["COUCH_URL"] = environ.get("COUCH_URL", "").strip()  # as the processes read it
    with ExitStack() as stack:
        if demo:
            environ.setdefault("MJUMBE_LOG_LEVEL", "warning")  # the steps are what is to be seen
            environ["MJUMBE_DATA"] = stack.enter_context(tempfile.TemporaryDirectory(prefix="mjumbe-demo-"))
            if environ["COUCH_URL"]:
                environ["COUCH_URL"] = f"{environ['COUCH_URL'].rstrip('/')}-demo-{secrets.token_hex(4)}"
                stack.callback(_drop, environ["COUCH_URL"])
        stack.callback(supervisor.stop)
        try:
            if not environ["COUCH_URL"]:
                environ["COUCH_URL"] = _start_embedded(supervisor, environ)
            if demo:
                return _run_demo(supervisor, environ, stop, began, once=once)
            api_url = supervisor.listen("api", [], environ)
            supervisor.start("sentinel", [], environ)
            _say_if_away(environ["COUCH_URL"])
        except RuntimeError as error:
            _say(f"mjumbe cannot start: {error}", err=True)
            return 1
        _say(f"mjumbe is up at {api_url} (API reference at {api_url}/api/docs). Ctrl-C stops it.")
        supervisor.watch(stop)
    return 0


def _say_if_away(couch_url: str) -> None:
    """A COUCH_URL that was set for other commands, or long ago, may lead nowhere; the processes wait for it."""
    try:
        Couch(couch_url, AWAY_SECONDS).welcome()
    except (UnavailableError, CouchError) as error:
        _say(f"{error}: start it, correct COUCH_URL, or unset it for the embedded store.", err=True)


def _start_embedded(supervisor: Supervisor, environ: Mapping[str, str]) -> str:
    """Start the store in MJUMBE_DATA and return its COUCH_URL; the admin's password is made at the first start."""
    data = data_directory(environ)
    password = _admin_password(data)
    admin = {**environ, "COUCH_ADMIN": f"admin:{password}"}
    url = supervisor.listen("embedded", ["--data", str(data / "couch")], admin)
    return f"{url.replace('://', f'://admin:{password}@')}/medic"


def _admin_password(data: Path) -> str:
    """The password in the file, which is made when there is none. Raises RuntimeError."""
    path = data / PASSWORD_FILE
    try:
        make_private(data)
        password = path.read_text("utf-8", "surrogateescape").strip() if path.exists() else ""
        if not password:
            password = secrets.token_urlsafe(18)
            with private_draft(path, password.encode()) as draft:
                draft.replace(path)
            log.info("Made the user admin of the embedded store", password_file=str(path))
    except OSError as error:
        raise RuntimeError(
            f"the file {path} with the admin's password cannot be made or read ({error.strerror}); set MJUMBE_DATA to "
            "a directory that this user may write to, or COUCH_URL to a CouchDB"
        ) from None
    if not password.isprintable():
        raise RuntimeError(f"the file {path} holds no password that can be typed; remove it, and a new one is made")
    return password


def _run_demo(
    supervisor: Supervisor, environ: Mapping[str, str], stop: threading.Event, began: float, *, once: bool
) -> int:
    demo = Demo(environ)
    api_url = supervisor.listen("api", [], environ)
    simulator_url = supervisor.listen("simulator", demo.callback_options(api_url), environ)
    demo.configure(simulator_url)
    supervisor.start("sentinel", [], environ)
    demo.wait_for_sentinel(stop)
    click.echo(f"Up in {time.monotonic() - began:.1f} s.\n")
    delivered = demo.play(simulator_url, stop)
    if once or stop.is_set():
        return 0 if delivered else 1
    click.echo(f"\nThe phone to type on: {simulator_url}/\nThe API reference:    {api_url}/api/docs")
    click.echo(f"CouchDB:              {scrub_text(environ['COUCH_URL'])}")
    password = data_directory(environ) / PASSWORD_FILE
    if password.exists():
        click.echo(f"Its admin's password: {password}")
    click.echo("Ctrl-C stops everything, and removes the demonstration's database.")
    supervisor.watch(stop)
    return 0


def _drop(couch_url: str) -> None:
    """Remove a demonstration's databases."""
    for database in Couch(couch_url).databases:
        database.drop()
