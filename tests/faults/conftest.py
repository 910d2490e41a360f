"""Faults in real processes. The store and the worlds are those of the integration tests."""

import os
import uuid
from collections.abc import Iterator

import pytest

from tests.faults.rig import House
from tests.integration.conftest import StartStore, server_url, start_store
from tests.integration.processes import ADMIN
from tests.integration.sentinel.conftest import own_world, world
from tests.integration.sentinel.world import World

__all__ = ["own_world", "server_url", "start_store", "world"]


@pytest.fixture
def house(
    request: pytest.FixtureRequest, start_store: StartStore, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    """A world (of the class that the test is parametrized with) with a store of its own, which can be stopped."""
    if os.environ.get("COUCH_URL"):
        pytest.skip("stops the store, which only the embedded one allows")
    data = tmp_path_factory.mktemp("data")
    store = start_store(data)
    url = f"{store.url.replace('://', '://' + ':'.join(ADMIN) + '@')}/test-{uuid.uuid4().hex}"
    world_class: type[World] = getattr(request, "param", World)
    made = House(world_class(url, tmp_path_factory.mktemp("world")), store, lambda port: start_store(data, port))
    yield made
    made.world.close()
