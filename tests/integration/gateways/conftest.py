"""Towns: one for a module whose tests do not disturb each other, or one for a single test."""

import uuid
from collections.abc import Iterator

import pytest

from tests.integration.gateways.town import Town


@pytest.fixture(scope="module")
def town(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """A town with a sentinel that leads and an API, for all tests of a module."""
    made = Town(f"{server_url}/test-{uuid.uuid4().hex}", tmp_path_factory.mktemp("town"))
    assert made.api.url
    made.start_sentinel()
    yield made
    made.close()


@pytest.fixture
def own_town(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """A town for one test alone, in which nothing of ours runs yet."""
    made = Town(f"{server_url}/test-{uuid.uuid4().hex}", tmp_path_factory.mktemp("town"))
    yield made
    made.close()
