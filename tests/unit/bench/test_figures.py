"""Percentiles, ratios to floors, and growth."""

import pytest

from bench.figures import Figure, Floor, Results, percentile


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([7.0], 50, 7.0),
        ([7.0], 99, 7.0),
        ([4.0, 1.0, 3.0, 2.0], 50, 2.0),
        ([5.0, 4.0, 1.0, 3.0, 2.0], 50, 3.0),
        (list(map(float, range(1, 101))), 99, 99.0),
        (list(map(float, range(1, 201))), 99, 198.0),
        (list(map(float, range(1, 11))), 99, 10.0),
        (list(map(float, range(1, 11))), 0, 1.0),
        (list(map(float, range(1, 11))), 100, 10.0),
    ],
)
def test_percentile_is_the_nearest_rank(values: list[float], percent: float, expected: float) -> None:
    assert percentile(values, percent) == expected


def test_no_values_have_no_percentile() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


def figure(value: float, unit: str = "ms", size: int = 0, *floors: Floor, name: str = "webhooks") -> Figure:
    return Figure("incoming", name, unit, value, size, size + 10, floors)


def test_ratios_are_to_each_floor() -> None:
    held = figure(90.0, "requests/s", 0, Floor("single PUTs", 100.0), Floor("empty route", 450.0))
    assert held.ratios == (0.9, 0.2)


@pytest.mark.parametrize(
    ("unit", "before", "after", "growth", "worse"),
    [
        ("ms", 10.0, 12.0, 20.0, 20.0),
        ("ms", 10.0, 8.0, -20.0, -20.0),
        ("requests/s", 100.0, 80.0, -20.0, 20.0),
        ("documents/s", 100.0, 80.0, -20.0, 20.0),
        ("messages/s", 100.0, 150.0, 50.0, -50.0),
        ("MB", 100.0, 100.0, 0.0, 0.0),
    ],
)
def test_worse_is_more_of_a_time_and_less_of_a_rate(
    unit: str, before: float, after: float, growth: float, worse: float
) -> None:
    base, larger = figure(before, unit), figure(after, unit, 50_000)
    assert larger.growth(base) == pytest.approx(growth)
    assert larger.worse(base) == pytest.approx(worse)


def test_the_base_is_the_same_figure_at_the_first_size() -> None:
    first, other, second = figure(10.0), figure(1.0, name="polls"), figure(12.0, "ms", 50_000)
    results = Results([first, other, second])
    assert results.base_of(second) is first
    assert results.base_of(first) is None
