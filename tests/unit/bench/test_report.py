"""The tables and the JSON of a run."""

import json
from io import StringIO

import pytest
from rich.console import Console, RenderableType

from bench import report
from bench.figures import Figure, Floor, Results, Usage

PUT = "single PUTs, 8 connections"


def results() -> Results:
    return Results(
        figures=[
            Figure("floors", PUT, "requests/s", 1000.0, 0, 0),
            Figure("incoming", "webhooks, 8 connections", "requests/s", 800.0, 0, 0, (Floor(PUT, 1000.0),)),
            Figure("incoming", "webhooks, 8 connections, p50", "ms", 9.5, 0, 0, (Floor(f"{PUT}, p50", 5.0),)),
            Figure("floors", PUT, "requests/s", 1000.0, 5_000, 5_000),
            Figure("incoming", "webhooks, 8 connections", "requests/s", 600.0, 5_000, 5_012, (Floor(PUT, 1000.0),)),
        ],
        usages=[
            Usage("incoming", "webhooks, 8 connections", 0, 0, 2.04, {"api": 71.2, "others": 3.0}, {"api": 76.6}),
            Usage("floors", "empty route", 0, 0, 1.0, {"empty": 90.0, "others": 0.0}, {"empty": 59.0}),
        ],
        problems=["incoming, webhooks, 8 connections, 0 stored: 1 of 800 not stored: 503"],
    )


def rows(table: RenderableType) -> list[list[str]]:
    """The cells of a printed table, row by row."""
    printed = StringIO()
    Console(width=200, file=printed, force_terminal=False).print(table)
    lines = printed.getvalue().replace("┃", "│").splitlines()
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if "│" in line]


def test_a_figure_is_a_row_with_each_sizes_value_ratio_and_change() -> None:
    table = rows(report.figures_table(results(), [0, 5_000]))
    assert table[0] == ["figure", "unit", "0", "× floor", "5,000", "× floor", "change"]
    assert [PUT, "requests/s", "1,000", "", "1,000", "", "+0 %"] in table
    assert ["webhooks, 8 connections", "requests/s", "800", "0.80", "600", "0.60", "-25 %"] in table
    assert ["webhooks, 8 connections, p50", "ms", "9.50", "1.90", "", "", ""] in table


def test_floors_are_named_once_a_load() -> None:
    assert rows(report.floors_table(results())) == [
        ["figure", "is held against"],
        ["incoming: webhooks, 8 connections", PUT],
    ]


def test_usage_shows_processor_and_memory_of_the_processes_that_there_were() -> None:
    assert rows(report.usage_table(results().usages)) == [
        ["measurement", "stored", "s", "api", "others", "empty"],
        ["incoming: webhooks, 8 connections", "0", "2.0", "71 (77)", "3", ""],
        ["floors: empty route", "0", "1.0", "", "0", "90 (59)"],
    ]


@pytest.mark.parametrize(
    ("value", "shown"), [(0.0, "0.00"), (9.994, "9.99"), (10.0, "10.0"), (99.9, "99.9"), (12345.6, "12,346")]
)
def test_numbers_are_shown_with_three_digits(value: float, shown: str) -> None:
    assert report.number(value) == shown


def test_json_has_each_figure_with_its_floors_and_its_change() -> None:
    written = json.loads(json.dumps(report.as_json(results(), {"commit": "abc", "complete": True})))
    assert list(written) == ["commit", "complete", "problems", "figures", "usage"]
    assert written["problems"] == results().problems
    assert written["figures"][4] == {
        "group": "incoming",
        "name": "webhooks, 8 connections",
        "unit": "requests/s",
        "size": 5_000,
        "stored": 5_012,
        "value": 600.0,
        "floors": [{"name": PUT, "value": 1000.0, "ratio": 0.6}],
        "change_percent": -25.0,
        "worse_percent": 25.0,
    }
    assert written["figures"][0]["change_percent"] is None
    assert written["usage"][0] == {
        "group": "incoming",
        "name": "webhooks, 8 connections",
        "size": 0,
        "stored": 0,
        "seconds": 2.04,
        "cpu_percent": {"api": 71.2, "others": 3.0},
        "peak_mb": {"api": 76.6},
    }
