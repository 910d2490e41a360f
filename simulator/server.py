"""The simulator's server: one process that listens until it is told to stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from simulator.africas_talking import AfricasTalking
from simulator.config import SimulatorConfig
from simulator.desk import Desk, errors_in_json
from simulator.exchange import Exchange
from simulator.page import Page
from simulator.rapidpro import RapidPro
from simulator.textbee import TextBee
from simulator.viber import Viber

_LARGEST_BODY = 8 * 1024 * 1024
_STOP_WITHIN_S = 2.0


@dataclass(frozen=True)
class Simulator:
    """A running simulator."""

    url: str  # e.g. http://127.0.0.1:8080/
    exchange: Exchange


@asynccontextmanager
async def running(config: SimulatorConfig) -> AsyncIterator[Simulator]:
    """A simulator in this event loop, for as long as the block runs. Raises OSError when the port is taken."""
    exchange = Exchange(config)
    service = AfricasTalking(exchange)
    twins = (TextBee(exchange), Viber(exchange), RapidPro(exchange))
    desk = Desk(exchange, service, twins)
    app = web.Application(middlewares=[errors_in_json], client_max_size=_LARGEST_BODY)
    app.add_routes([route for twin in (service, *twins) for route in twin.routes()])
    app.add_routes([*desk.routes(), *Page(exchange, service, desk).routes()])
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=_STOP_WITHIN_S)
    await runner.setup()
    try:
        await exchange.callbacks.start()
        await web.TCPSite(runner, config.host, config.port, backlog=1024).start()
        port: int = runner.addresses[0][1]
        host = f"[{config.host}]" if ":" in config.host else config.host
        yield Simulator(f"http://{host}:{port}/", exchange)
    finally:
        exchange.stopping.set()
        exchange.bell.ring()
        await runner.cleanup()
        await exchange.callbacks.stop()


def serve(config: SimulatorConfig) -> None:
    """Serve until SIGTERM or SIGINT, then stop within a few seconds and return. Must run in the main thread.

    Prints the address once it listens. Raises OSError when the port is taken.
    """
    asyncio.run(_serve(config))


async def _serve(config: SimulatorConfig) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with running(config) as simulator:
        print(f"simulator listening on {simulator.url}", flush=True)  # noqa: T201
        await stop.wait()
