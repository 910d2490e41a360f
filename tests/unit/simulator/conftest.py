"""A simulator, a client, and a receiver of callbacks, all real and in one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from simulator.config import SimulatorConfig
from simulator.server import Simulator, running

KEY = {"apiKey": "right-key"}
WAIT_MS = 20_000  # far more than any machine needs


@dataclass
class Receiver:
    """What the customer's server got, and what it answers: `answers` first, then 200."""

    url: str = ""
    posts: list[tuple[str, str, bytes]] = field(default_factory=list)  # path with query, content type, body
    headers: list[dict[str, str]] = field(default_factory=list)  # of each of them
    answers: list[int] = field(default_factory=list)
    before_answer: Callable[[], None] = lambda: None

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.posts.append((request.path_qs, request.headers["Content-Type"], body))
        self.headers.append(dict(request.headers))
        self.before_answer()
        return web.json_response({"saved": 1}, status=self.answers.pop(0) if self.answers else 200)


@dataclass
class Lab:
    """A running simulator and what is needed to try it."""

    simulator: Simulator
    http: aiohttp.ClientSession
    receiver: Receiver

    async def ask(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, **what: Any
    ) -> tuple[int, str, bytes]:
        """Status, content type and exact body of an answer."""
        url = self.simulator.url.rstrip("/") + path
        async with self.http.request(method, url, headers=headers, **what) as response:
            return response.status, response.headers["Content-Type"], await response.read()

    async def json(self, method: str, path: str, value: Any = None) -> Any:
        """The JSON of one of the simulator's own endpoints."""
        async with self.http.request(method, self.simulator.url.rstrip("/") + path, json=value) as response:
            return await response.json()

    async def send(self, to: str, message: str = "Habari", **fields: str) -> tuple[int, str, bytes]:
        """POST /version1/messaging with the right key, for a JSON answer."""
        data = {"username": "sandbox", "to": to, "message": message, **fields}
        return await self.ask("POST", "/version1/messaging", headers=KEY | {"Accept": "application/json"}, data=data)

    async def callbacks(self, count: int) -> list[dict[str, Any]]:
        """The callbacks posted so far, once there are `count`."""
        listed = await self.json("GET", f"/callbacks?wait_for={count}&timeout_ms={WAIT_MS}")
        assert listed["reached"], f"{listed['total']} callbacks came, not {count}"
        entries: list[dict[str, Any]] = listed["callbacks"]
        return entries


@asynccontextmanager
async def laboratory(settings: dict[str, Any]) -> AsyncIterator[Lab]:
    """A lab whose simulator posts every callback to the receiver, with a key, and reports at once."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/{kind}", receiver.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        urls = {
            f"{kind}_url": f"{receiver.url}/{kind}?key=s3cret"
            for kind in ("incoming", "reports", "opt_out", "subscription", "textbee", "viber", "rapidpro")
        }
        defaults = {"port": 0, "report_delay_ms": 0, "callback_retries_ms": (0, 0)}
        config = SimulatorConfig(**{**defaults, **urls, **settings})
        async with running(config) as simulator, aiohttp.ClientSession() as http:
            yield Lab(simulator, http, receiver)
    finally:
        await runner.cleanup()


Scenario = Callable[[Lab], Awaitable[None]]
Play = Callable[..., None]


@pytest.fixture
def play() -> Play:
    """Run a scenario in a lab: `play(scenario, **settings)`, settings being SimulatorConfig's."""

    def run(scenario: Scenario, **settings: Any) -> None:
        async def main() -> None:
            async with asyncio.timeout(60), laboratory(settings) as lab:
                await scenario(lab)

        asyncio.run(main())

    return run
