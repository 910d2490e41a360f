"""Worlds: one for a module of tests that do not disturb each other, or one for a single test."""

import uuid
from collections.abc import Callable, Iterator

import pytest

from tests.integration.processes import start
from tests.integration.sentinel.world import OUTGOING_KEY, Simulator, World

MakeWorld = Callable[[], World]
AT_FIRST = {
    **{"latency_ms": 0, "error_rate": 0.0, "error_status": 500, "report_delay_ms": 0, "report_steps": ["Success"]},
    **dict.fromkeys(("down", "unauthorized", "no_balance", "never_answer", "drop_after_accept"), False),
    **{"answer_body": None, "reports": True, "number_faults": True},
}


@pytest.fixture(scope="session")
def simulator_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    """The simulated service that all worlds use, one after the other."""
    output = tmp_path_factory.mktemp("simulator") / "output"
    process = start(["simulator", "--port", "0", "--key", OUTGOING_KEY, "--late-report-ms", "2000"], output)
    yield Simulator(process)
    process.stop()


@pytest.fixture(scope="module")
def make_world(
    server_url: str, simulator_process: Simulator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MakeWorld]:
    """Makes worlds. Their databases and processes are gone when the module is done."""
    made: list[World] = []

    def make() -> World:
        simulator_process.control(**AT_FIRST)
        simulator_process.forget()
        url = f"{server_url}/test-{uuid.uuid4().hex}"
        made.append(World(url, simulator_process, tmp_path_factory.mktemp("world")))
        return made[-1]

    yield make
    for world in made:
        world.close()


@pytest.fixture(scope="module")
def world(make_world: MakeWorld) -> World:
    """A world with a sentinel that leads and an API, for all tests of a module."""
    made = make_world()
    assert made.api.url
    made.start_sentinel()
    return made


@pytest.fixture
def own_world(
    server_url: str, simulator_process: Simulator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """A world for one test alone, in which nothing runs yet."""
    simulator_process.control(**AT_FIRST)
    simulator_process.forget()
    made = World(f"{server_url}/test-{uuid.uuid4().hex}", simulator_process, tmp_path_factory.mktemp("world"))
    yield made
    made.close()
    simulator_process.control(**AT_FIRST)
