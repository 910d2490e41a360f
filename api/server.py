"""The API's own web server: gunicorn with gevent, run in this process.

Whoever serves must have called gevent's `monkey.patch_all()` before anything else was imported: requests then take
turns in one thread, each a few kilobytes, where threads spent most of their time on waiting for each other.
"""

import errno
import json
import logging
import os
import resource
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any

import gevent
import structlog
from gunicorn import util
from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger
from gunicorn.http import errors
from gunicorn.workers.ggevent import GeventWorker

from api.errors import CODES
from api.headers import SECURITY_HEADERS
from mjumbe.config import Config, ConfigError
from mjumbe.couch import Couch
from mjumbe.credentials import VaultKeys
from mjumbe.parent import end_with

# Seconds that a connection may be silent, between requests or within one; proxies keep theirs for 60 s.
KEEP_ALIVE = 75
GRACEFUL = 30  # seconds that requests under way get at a stop
CONNECTIONS = 2_000
CROWD = 0.9  # of the connections; from there on the one whose client has been silent longest makes room for a new one
FILES = 4_096  # open at once: the connections, those to CouchDB, logs and the spool; the usual limit is 1,024
OTHER_FILES = 32  # of them, that are no connections
BACKLOG = 2_048
PORT_SECONDS = 3.0  # that a start waits for a port: the process before it may be ending
MEMORY = Path("/dev/shm")  # noqa: S108 - a file system in memory
METRICS_ROOM = 16 * 1024 * 1024  # bytes; the counters of a worker have less than one
METRICS_PREFIX = "mjumbe-metrics-"
METRICS_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"  # prometheus-client reads it when it is imported: not before the workers

log = structlog.get_logger(__name__)


def run(config: Config, host: str, port: int, workers: int) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP, then end the process.

    Must run in the main thread, before other threads start. Port 0 takes a free one. Prints the address once it
    listens. Raises ConfigError (the address, the workers), ValueError (COUCH_URL) and CredentialError (the vault's
    key).
    """
    if workers < 1:
        raise ConfigError(f"--workers is {workers}; expected 1 or more processes")
    # Looked at here, where they end the start with a sentence, not a worker with a traceback.
    Couch(config.couch_url)
    VaultKeys.load(config.vault_key, config.data)
    connections = _connections(_allow_files())
    listener = _listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{listener.getsockname()[1]}/"
    handles = _signals()

    def ready(_arbiter: Any) -> None:
        for number, handle in handles.items():
            signal.signal(number, handle)
        with suppress(OSError):  # where the output goes is full, or gone: that must not refuse callbacks
            sys.stdout.write(f"API listening on {address}\n")
            sys.stdout.flush()

    options = OPTIONS | {
        "bind": [f"fd://{listener.detach()}"],  # gunicorn closes it
        "workers": workers,
        "worker_connections": connections,
        "when_ready": ready,
    }
    if workers > 1:
        _share_metrics(options)
    _Server(config, options).run()


def _signals() -> dict[signal.Signals, Any]:
    """How the server takes signals that gunicorn takes otherwise."""
    # Gunicorn would start its workers anew when the terminal is closed, and keep the port; nohup ignores that.
    is_kept_on = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return {
        signal.SIGHUP: signal.SIG_IGN if is_kept_on else lambda *_: os.kill(os.getpid(), signal.SIGTERM),
        signal.SIGUSR2: signal.SIG_IGN,  # to gunicorn: start a second server, which would outlive a stop
    }


def _allow_files() -> int:
    """Let this process, and its workers, have FILES files open, as far as the system's own limit goes; how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


def _connections(files: int) -> int:
    """How many connections a worker may keep: each request may need one to CouchDB too. Raises ConfigError."""
    connections = min(CONNECTIONS, (files - OTHER_FILES) // 2)
    if connections < 1:
        raise ConfigError(f"the API may have only {files} files open at once; allow {FILES} (`ulimit -n`, LimitNOFILE)")
    if connections < CONNECTIONS:
        log.warning("few files may be open at once, so few connections are kept", files=files, connections=connections)
    return connections


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens at the address, for which it waits shortly. Raises ConfigError."""
    if not host:  # the system takes that for every address
        raise ConfigError("--host is empty; name an address: 127.0.0.1, or 0.0.0.0 for all of this machine's")
    deadline = time.monotonic() + PORT_SECONDS
    while True:
        try:
            return _bind(host, port)
        except (OSError, OverflowError) as error:
            if getattr(error, "errno", None) != errno.EADDRINUSE or time.monotonic() > deadline:
                reason = getattr(error, "strerror", None) or error
                wrong_host = isinstance(error, socket.gaierror) or getattr(error, "errno", None) == errno.EADDRNOTAVAIL
                advice = f"choose another {'--host' if wrong_host else '--port'}"
                raise ConfigError(f"the API cannot listen at {host}, port {port} ({reason}); {advice}") from None
        time.sleep(0.05)


def _bind(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)  # only now the address is ours
    except BaseException:
        listener.close()
        raise
    return listener


def _share_metrics(options: dict[str, Any]) -> None:
    """Let a scrape, which reaches one worker, see the counters of all."""
    # The counters are in mapped files: on a disk that is full, counting would end a worker by SIGBUS.
    in_memory = os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= METRICS_ROOM
    shared = MEMORY if in_memory else Path(tempfile.gettempdir())
    for left in shared.glob(f"{METRICS_PREFIX}*"):  # by those who were killed
        pid = left.name.removeprefix(METRICS_PREFIX).partition("-")[0]
        if pid == str(os.getpid()) or not Path("/proc", pid).exists():
            shutil.rmtree(left, ignore_errors=True)
    # No TemporaryDirectory: each worker that ends would remove it, and those after it could not start.
    directory = tempfile.mkdtemp(prefix=f"{METRICS_PREFIX}{os.getpid()}-", dir=shared)
    os.environ[METRICS_DIRECTORY] = directory
    options["on_exit"] = lambda _arbiter: shutil.rmtree(directory, ignore_errors=True)


FAILED = HTTPStatus.INTERNAL_SERVER_ERROR
# What is answered to what is no HTTP request: the first that fits, 500 where none does. A wrong header of our own is no
# fault of the client's.
NO_REQUEST = (
    (errors.InvalidResponseHeader, FAILED),
    (errors.InvalidResponseHeaderName, FAILED),
    (errors.LimitRequestLine, HTTPStatus.REQUEST_URI_TOO_LONG),
    (errors.LimitRequestHeaders, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE),
    (errors.ExpectationFailed, HTTPStatus.EXPECTATION_FAILED),
    (errors.UnsupportedTransferCoding, HTTPStatus.NOT_IMPLEMENTED),
    (errors.ParseException, HTTPStatus.BAD_REQUEST),
)


def _write_error(client: socket.socket, status: HTTPStatus) -> None:
    """The answer to what is no HTTP request, as all our errors are; gunicorn's is HTML and repeats what was sent."""
    reason = f"{status.phrase}: HTTP requests have another form."
    body = json.dumps({"error": CODES.get(status, "error"), "reason": reason})
    headers = {**SECURITY_HEADERS, "Connection": "close", "Content-Type": "application/json"}
    lines = [f"HTTP/1.1 {status.value} {status.phrase}", *(f"{name}: {value}" for name, value in headers.items())]
    head = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""])
    util.write_nonblock(client, (head + body).encode("latin-1"))


class _Server(BaseApplication):  # type: ignore[misc]
    """Gunicorn without its own command line and configuration files."""

    def __init__(self, config: Config, options: dict[str, Any]) -> None:
        self._config = config
        self._options = options
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._options.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """The app, made in the worker: its threads do not survive a fork."""
        from api.app import create_app  # noqa: PLC0415

        return create_app(self._config)


class _Worker(GeventWorker):  # type: ignore[misc]
    """Gunicorn's gevent worker; who is silent has a time limit, and holds up neither others nor a stop."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._open = 0
        self._waiting: dict[gevent.Greenlet, object] = {}  # for their clients to send something, since longest first
        self._idle: set[tuple[gevent.Greenlet, object]] = set()  # those that did so a second ago, at a stop

    def init_signals(self) -> None:
        """A terminal's Ctrl-C and its end come here too, but only the arbiter acts on them: told to end twice, gevent
        shows it."""
        super().init_signals()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def handle(self, _listener: Any, client: Any, addr: Any) -> None:
        """Serve a connection until it ends."""
        client.settimeout(KEEP_ALIVE)
        self._open += 1
        if self._open > CROWD * self.worker_connections and self._waiting:
            longest = next(iter(self._waiting))
            del self._waiting[longest]
            longest.kill(TimeoutError, block=False)
        try:
            # The listener would be asked for its address only; at a stop it is closed before the last are served.
            super(GeventWorker, self).handle(client, _Client(client, self._waiting), addr)
        finally:
            self._open -= 1

    def handle_error(self, _request: Any, client: Any, addr: Any, error: BaseException) -> None:
        """Answer what is no request, or what failed outside the app.

        Gunicorn's own would log the error's words, which repeat what was sent: where a body is longer than its
        Content-Length that is a message's text, and in a header without its colon a key.
        """
        status = next((status for kind, status in NO_REQUEST if isinstance(error, kind)), FAILED)
        kind = type(error).__name__
        if status is FAILED:
            where = "".join(traceback.format_tb(error.__traceback__))
            log.error("a connection failed", kind=kind, address=addr[0], exception=where)
        else:
            log.warning("no HTTP request", kind=kind, address=addr[0])
        with suppress(OSError):  # the client has gone
            _write_error(client, status)

    @contextmanager
    def timeout_ctx(self) -> Iterator[None]:
        """Around the wait for a request's head, however slowly it comes."""
        with gevent.Timeout(KEEP_ALIVE, False):
            yield

    def notify(self) -> None:
        """Called once a second, at a stop too, until all connections have ended."""
        super().notify()
        if not self.alive:
            silent = self._idle & self._waiting.items()
            gevent.killall([greenlet for greenlet, _ in silent], TimeoutError, block=False)
            self._idle = set(self._waiting.items())


class _Client:
    """A client's connection, which is in `waiting` while we wait for the client to send something.

    Gunicorn writes an answer's head and its body apart, for a packet and a turn of the client each: the head is kept
    until the body comes, or there is none.
    """

    def __init__(self, connection: Any, waiting: dict[gevent.Greenlet, object]) -> None:
        self._connection = connection
        self._waiting = waiting
        self._head = b""
        self._given_up = False

    def sendall(self, data: bytes) -> None:
        """As a socket's; what ends like a head may be sent later, but before anything is waited for."""
        self._head += data
        if not data.endswith(b"\r\n\r\n"):
            self._flush()

    def close(self) -> None:
        """As a socket's."""
        try:
            self._flush()
        finally:
            self._connection.close()

    def _flush(self) -> None:
        if self._head:
            data, self._head = self._head, b""
            self._connection.sendall(data)

    def recv(self, size: int) -> bytes:
        """As a socket's. Raises TimeoutError when the silence was too long, or ended from outside; b"" ever after."""
        self._flush()
        if self._given_up:
            return b""
        current = gevent.getcurrent()
        self._waiting[current] = object()
        try:
            received: bytes = self._connection.recv(size)
        except TimeoutError:
            self._given_up = True
            raise
        finally:
            self._waiting.pop(current, None)
        return received

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


class _Log(Logger):  # type: ignore[misc]
    """Gunicorn's messages take the way of all others, so that their secrets are hidden too; no access log."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for logger in (self.error_log, self.access_log):
            logger.handlers.clear()
        self.error_log.propagate = True
        self.access_log.setLevel(logging.CRITICAL)

    def exception(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        """A client that fell silent is no error of ours."""
        if not isinstance(sys.exc_info()[1], TimeoutError):
            super().exception(msg, *args, **kwargs)


# What gunicorn is told at every start.
OPTIONS: dict[str, Any] = {
    "worker_class": _Worker,
    "backlog": BACKLOG,
    "keepalive": KEEP_ALIVE,
    "graceful_timeout": GRACEFUL,
    "control_socket_disable": True,
    "logger_class": _Log,
    "loglevel": "warning",
    "forwarded_allow_ips": "",  # MJUMBE_TRUSTED_PROXIES decides whom we believe
    "forwarder_headers": "",
    "sendfile": False,  # would pass by _Client
    "http_parser": "python",  # and no other that happens to be installed: these errors we answer (NO_REQUEST)
    "limit_request_line": 8190,
    "limit_request_fields": 100,
    "limit_request_field_size": 8190,
    # Else a worker would keep the port, and serve, for up to a second after its parent's kill -9.
    "post_fork": lambda arbiter, _worker: end_with(arbiter.pid),
}
