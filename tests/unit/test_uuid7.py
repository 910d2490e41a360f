"""Ids of new documents and messages."""

import time
import uuid

import pytest

from mjumbe import uuid7


def test_a_uuid_begins_with_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time and the fixed bits are those of the example in RFC 9562, appendix A.6."""
    monkeypatch.setattr(time, "time_ns", lambda: 1_645_557_742_000_999_999)
    made = uuid7.new_uuid()
    assert made.startswith("017f22e2-79b0-7")
    read = uuid.UUID(made)
    assert (str(read), read.version, read.variant) == (made, 7, uuid.RFC_4122)


def test_uuids_of_one_moment_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_645_557_742_000_000_000)
    made = {uuid7.new_uuid() for _ in range(10_000)}
    assert len(made) == 10_000
    assert {one[19] for one in made} == set("89ab"), "the variant leaves two bits to chance"


def test_later_uuids_come_later(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter(range(1_645_557_742_000_000_000, 1_645_557_743_000_000_000, 1_000_000))
    monkeypatch.setattr(time, "time_ns", lambda: next(moments))
    made = [uuid7.new_uuid() for _ in range(1_000)]
    assert made == sorted(made)
