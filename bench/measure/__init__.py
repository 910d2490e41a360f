"""The measurements, one module a group; each has `measure(bench, floors)`."""

from collections.abc import Callable, Mapping

from bench.bench import Bench, Floors
from bench.measure import incoming, outgoing, polls, replies, reports

GROUPS: Mapping[str, Callable[[Bench, Floors], None]] = {
    "incoming": incoming.measure,
    "reports": reports.measure,
    "outgoing": outgoing.measure,
    "replies": replies.measure,
    "polls": polls.measure,
}
