"""A clock for those who ask for it."""

from collections.abc import Iterator

import pytest

from sentinel import services
from tests.unit.sentinel.asking import Time


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Iterator[Time]:
    clock = Time()
    monkeypatch.setattr(services.time, "monotonic", clock.monotonic)
    monkeypatch.setattr(services.states, "now", clock.now)
    yield clock
    monkeypatch.undo()
