"""How much is measured: the full run, and the quick one."""

from dataclasses import dataclass

LATENCIES_MS = (0, 50, 500)
CONCURRENCY = 32  # requests at once to the service; a setting, as an operator would raise it for a broadcast


@dataclass(frozen=True, slots=True)
class Plan:
    """Every count and limit of a run. A load ends at its count or its time, whichever comes first."""

    sizes: tuple[int, ...]  # messages stored before
    requests: dict[int, int]  # connections → requests at most
    seconds: float  # of one load at most
    floor_seconds: float  # of one floor, which ends by its time alone
    applied: int  # delivery reports that are followed until they are applied
    different: int  # messages of different texts
    equal: int  # messages of one text
    reported: int  # messages that are followed until their delivery reports are applied
    idle_replies: int
    broadcast: int  # messages that replies must overtake
    polls: int


FULL = Plan(
    sizes=(0, 50_000, 500_000),
    requests={1: 1_000, 8: 5_000, 32: 5_000, 128: 5_000},
    seconds=15.0,
    floor_seconds=5.0,
    applied=10_000,
    different=10_000,
    equal=50_000,
    reported=10_000,
    idle_replies=300,
    broadcast=50_000,
    polls=50,
)

QUICK = Plan(
    sizes=(0, 5_000),
    requests={1: 300, 8: 800, 32: 1_200, 128: 1_200},
    seconds=2.0,
    floor_seconds=1.0,
    applied=1_000,
    different=320,
    equal=2_500,
    reported=320,
    idle_replies=15,
    broadcast=2_500,
    polls=8,
)
