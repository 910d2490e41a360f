"""What was measured, as records: figures with their floors, what the processes used, and what was doubtful."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

PER_SECOND = ("requests/s", "documents/s", "messages/s")  # units of which more is better


@dataclass(frozen=True, slots=True)
class Floor:
    """What the same machine did in the same run without mjumbe, in the unit of the figure that it belongs to."""

    name: str
    value: float


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value; `size` is the run's number of stored messages, `stored` how many there really were."""

    group: str
    name: str
    unit: str
    value: float
    size: int
    stored: int
    floors: tuple[Floor, ...] = ()

    @property
    def key(self) -> tuple[str, str, str]:
        """What the figure is the same as at other sizes."""
        return (self.group, self.name, self.unit)

    @property
    def ratios(self) -> tuple[float, ...]:
        """The value divided by each floor's."""
        return tuple(self.value / floor.value for floor in self.floors)

    def growth(self, base: "Figure") -> float:
        """The change of the value against `base`, in percent."""
        return (self.value / base.value - 1) * 100

    def worse(self, base: "Figure") -> float:
        """How much worse than `base` this is, in percent; below 0 when it is better."""
        return -self.growth(base) if self.unit in PER_SECOND else self.growth(base)


@dataclass(frozen=True, slots=True)
class Usage:
    """What processes used during one measurement: processor time in percent of one core, peak memory in MB."""

    group: str
    name: str
    size: int
    stored: int
    seconds: float
    cpu: dict[str, float]
    peak_mb: dict[str, float]


@dataclass(slots=True)
class Results:
    """All that one run has measured so far. `problems` are sentences: figures that they name are not to be trusted."""

    figures: list[Figure] = field(default_factory=list)
    usages: list[Usage] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def base_of(self, figure: Figure) -> Figure | None:
        """The same figure at the smallest size, None when that is this one."""
        first = next(other for other in self.figures if other.key == figure.key)
        return first if first.size != figure.size else None


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of `values` that `percent` of them do not exceed (nearest rank). Raises ValueError for none."""
    if not values:
        raise ValueError("a percentile of no values")
    rank = math.ceil(len(values) * percent / 100)
    return sorted(values)[max(rank, 1) - 1]
