"""Worlds: one for a module of tests that do not disturb each other, or one for a single test."""

import uuid
from collections.abc import Iterator

import pytest

from tests.integration.sentinel.world import World


@pytest.fixture(scope="module")
def world(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world with a sentinel that leads and an API, for all tests of a module."""
    made = World(f"{server_url}/test-{uuid.uuid4().hex}", tmp_path_factory.mktemp("world"))
    assert made.api.url
    made.start_sentinel()
    yield made
    made.close()


@pytest.fixture
def own_world(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world for one test alone, in which nothing of ours runs yet."""
    made = World(f"{server_url}/test-{uuid.uuid4().hex}", tmp_path_factory.mktemp("world"))
    yield made
    made.close()
