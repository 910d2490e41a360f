"""One trouble of many requests is a line a minute in the log."""

import structlog
from structlog.testing import capture_logs

from mjumbe.seldom import AGAIN_SECONDS, REMEMBERED, Seldom
from tests.unit.clock import Clock


def test_the_same_is_said_once_a_minute_with_how_often_it_was_so() -> None:
    log, clock = structlog.get_logger(), Clock()
    say = Seldom(clock)
    with capture_logs() as lines:
        for _ in range(1000):
            say(log.warning, "CouchDB is away", "refused")
        say(log.warning, "CouchDB is away", "timed out")
        clock.now += AGAIN_SECONDS
        say(log.warning, "CouchDB is away", "refused")
        clock.now += AGAIN_SECONDS
        say(log.warning, "CouchDB is away", "refused")
    assert [(line["reason"], line.get("times")) for line in lines] == [
        ("refused", None),
        ("timed out", None),
        ("refused", 1000),
        ("refused", None),
    ]


def test_of_many_troubles_the_last_are_remembered() -> None:
    log, say = structlog.get_logger(), Seldom(Clock())
    with capture_logs() as lines:
        for _ in range(2):
            for number in range(REMEMBERED):
                say(log.warning, "refused", str(number))
        assert len(lines) == REMEMBERED
        for number in range(REMEMBERED, 3 * REMEMBERED):
            say(log.warning, "refused", str(number))
        assert len(say._said) == REMEMBERED
        say(log.warning, "refused", str(3 * REMEMBERED - 1))
    assert len(lines) == 3 * REMEMBERED


def test_what_was_said_again_is_no_older_than_what_was_said_since() -> None:
    log, clock = structlog.get_logger(), Clock()
    say = Seldom(clock)
    with capture_logs() as lines:
        for number in range(REMEMBERED):
            say(log.warning, "refused", str(number))
        clock.now += AGAIN_SECONDS
        say(log.warning, "refused", "0")
        say(log.warning, "refused", "another")  # in the place of the oldest, which is 1 now
        said = len(lines)
        say(log.warning, "refused", "0")
    assert len(lines) == said
