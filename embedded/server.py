"""The HTTP server: takes requests to their routes, and starts and stops the whole."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import resource
import signal
import socket
import sys
from pathlib import Path

from aiohttp import web
from aiohttp.http_exceptions import ContentEncodingError, HttpProcessingError
from py_mini_racer import MiniRacer

from embedded import auth
from embedded.auth import Authenticator
from embedded.engine.store import Store
from embedded.errors import CouchError, bad_request, damage, disk_trouble
from embedded.http import SERVER, Call, Service, answer, parse_query
from embedded.routes import Access, Route, find_route

log = logging.getLogger("embedded")

MAX_REQUEST = 64 * 1024 * 1024
ADDRESSES = 512 * 1024**3  # bytes that V8 reserves, and aborts the process where it may not; it uses few of them


class _WithoutWhatWasSent(logging.Filter):
    """aiohttp's error for what is no HTTP request shows the line, which may be a password's: the log has its kind."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):
            record.msg += f" ({type(error).__name__})"
            record.exc_info = None
        return True


class CannotListen(Exception):
    """The address is taken, or none of this machine's."""


def _authorize(call: Call, route: Route) -> None:
    """Raise 401 or 403 unless the user may call the route; 404 comes first for a database that is not there."""
    match route.access:
        case Access.SERVER_ADMIN:
            auth.require_server_admin(call.user)
        case Access.MEMBER:
            doc_id = call.path.get("prefix", "") + call.path.get("doc", "")
            if not auth.is_own_document(call.user, call.path["db"], doc_id):
                auth.require_member(call.user, call.database.security)
        case Access.DB_ADMIN:
            auth.require_db_admin(call.user, call.database.security)


async def handle(service: Service, request: web.Request) -> web.StreamResponse:
    """Answer one request, whatever happens."""
    call = Call(request, service, auth.User())
    try:
        raw_path, _, raw_query = request.raw_path.partition("?")
        call.query = parse_query(raw_query)
        call.user = await service.auth.identify(request)
        route, call.path = find_route(request.method, raw_path)
        _authorize(call, route)
        response = await route.handler(call)
    except CouchError as error:
        response = answer(error.body(), error.status, error.headers)
    except (ContentEncodingError, web.RequestPayloadError):
        response = answer(bad_request("The body is not what its Content-Encoding says").body(), 400)
    except ConnectionResetError:
        raise asyncio.CancelledError from None  # the client has gone: aiohttp would log it as a failure of ours
    except Exception as error:
        trouble = disk_trouble(error) or damage(error, call.path.get("db"))
        if trouble:
            log.error("%s", trouble)  # no traceback: wherever it was, the disk did it
        else:
            log.exception("%s %s failed", request.method, request.path)
        reason = trouble or "See the log of the embedded store."
        response = answer({"error": "internal_server_error", "reason": reason}, 500)
    if not response.prepared:
        response.headers["Server"] = SERVER
        renewal = service.auth.renewal(request, call.user)
        if renewal is not None and "Set-Cookie" not in response.headers:
            response.headers["Set-Cookie"] = renewal
    return response


async def _run(host: str, port: int, data: Path, admin: str) -> None:
    store = Store(data)
    service = Service(store, Authenticator(store, admin))
    app = web.Application(client_max_size=MAX_REQUEST)

    async def handler(request: web.Request) -> web.StreamResponse:
        return await handle(service, request)

    app.router.add_route("*", r"/{path:(?s:.*)}", handler)
    log.addFilter(_WithoutWhatWasSent())
    runner = web.AppRunner(app, logger=log, access_log=None, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as error:
            raise CannotListen(_refused(host, port, error)) from None
        port = runner.addresses[0][1]
        shown = f"[{host}]" if ":" in host else host
        with contextlib.suppress(OSError):  # where the output goes is full, or gone
            print(f"embedded store listening on http://{shown}:{port}/", flush=True)  # noqa: T201 - whoever started us waits for it
        await _stop_signal()
    finally:
        await runner.cleanup()
        await store.close()


def _refused(host: str, port: int, error: OSError) -> str:
    # From Python 3.13 on, asyncio's error has no number where the address is none of this machine.
    number = error.errno or errno.EADDRNOTAVAIL
    wrong_host = isinstance(error, socket.gaierror) or number == errno.EADDRNOTAVAIL
    reason = error.strerror if isinstance(error, socket.gaierror) else os.strerror(number)
    return f"it cannot listen at {host}, port {port} ({reason}); choose another {'--host' if wrong_host else '--port'}"


async def _stop_signal() -> None:
    """Wait for SIGTERM or SIGINT; for SIGINT alone if whoever started us had SIGTERM ignored."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, stop.set)
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN:
        loop.add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()


def _check_addresses() -> None:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < ADDRESSES:
        raise ValueError(
            f"its addresses are limited to {limit // 1024**2} MB (`ulimit -v`, LimitAS), and its JavaScript engine "
            f"reserves {ADDRESSES // 1024**3} GB, few of which it uses; lift that limit: MemoryMax limits what is used"
        )


def serve(host: str, port: int, data: Path, admin: str) -> None:
    """Serve until SIGTERM or SIGINT, in the main thread; until SIGINT where SIGTERM is ignored already.

    `port` 0 picks a free one; the address is printed once requests are accepted. `data` is the directory of the
    databases, made if it is not there. `admin` is `name:password` of a server admin. Raises `engine.store.DataInUse`
    when another server has the directory, CannotListen when the port is taken, ValueError for an admin without a
    password and for too few addresses, OSError and sqlite3.Error for what the disk does.
    """
    # Python lets a busy thread run this long before another gets its turn; an index update must not hold up requests.
    sys.setswitchinterval(0.0005)
    _check_addresses()
    # V8 sets itself up at the first context, and aborts the process when two threads make the first one at once.
    MiniRacer().eval("1")
    asyncio.run(_run(host, port, data, admin))
