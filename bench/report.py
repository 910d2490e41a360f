"""What a run found: as tables for people, as JSON for programs."""

from typing import Any

from rich.table import Table

from bench.figures import Figure, Results, Usage

PERCENTILES = (", p50", ", p99")
TOO_MUCH_WORSE = 20.0  # percent


def figures_table(results: Results, sizes: list[int]) -> Table:
    """A row a figure; for each size its value, its ratio to its floors, and its change against the smallest size."""
    table = Table(title="Figures, by messages stored before", title_justify="left")
    table.add_column("figure")
    table.add_column("unit")
    for size in sizes:
        table.add_column(f"{size:,}", justify="right", no_wrap=True)
        table.add_column("× floor", justify="right", no_wrap=True)
        if size != sizes[0]:
            table.add_column("change", justify="right", no_wrap=True)
    group = ""
    for key in dict.fromkeys(figure.key for figure in results.figures):
        if key[0] != group:
            group = key[0]
            table.add_section()
            table.add_row(f"[bold]{group}")
        cells = [cell for size in sizes for cell in _cells(results, key, size, first=size == sizes[0])]
        table.add_row(key[1], key[2], *cells)
    return table


def _cells(results: Results, key: tuple[str, str, str], size: int, *, first: bool) -> list[str]:
    figure = next((figure for figure in results.figures if figure.key == key and figure.size == size), None)
    if figure is None:
        return ["", ""] if first else ["", "", ""]
    cells = [number(figure.value), " ".join(f"{ratio:.2f}" for ratio in figure.ratios)]
    return cells if first else [*cells, _change(results, figure)]


def _change(results: Results, figure: Figure) -> str:
    base = results.base_of(figure)
    if base is None:
        return ""
    words = f"{figure.growth(base):+.0f} %"
    return f"[red]{words}[/red]" if figure.worse(base) > TOO_MUCH_WORSE else words


def floors_table(results: Results) -> Table:
    """Which floors the figures are held against, in the order of their ratios."""
    table = Table(title="Floors", title_justify="left")
    table.add_column("figure")
    table.add_column("is held against")
    seen = {figure.key: figure for figure in results.figures if figure.floors}
    for (group, name, _), figure in seen.items():
        if name.endswith(PERCENTILES) and any(key[:2] == (group, name[: -len(PERCENTILES[0])]) for key in seen):
            continue  # held against the same, of the same load
        table.add_row(f"{group}: {name}", "; ".join(floor.name for floor in figure.floors))
    return table


def usage_table(usages: list[Usage]) -> Table:
    """What each process used during each measurement."""
    names = list(dict.fromkeys(name for usage in usages for name in usage.cpu))
    table = Table(title="Processor time in % of one core (most memory in MB)", title_justify="left")
    table.add_column("measurement")
    table.add_column("stored", justify="right", no_wrap=True)
    table.add_column("s", justify="right")
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for usage in usages:
        cells = [_used(usage, name) for name in names]
        table.add_row(f"{usage.group}: {usage.name}", f"{usage.stored:,}", f"{usage.seconds:.1f}", *cells)
    return table


def _used(usage: Usage, name: str) -> str:
    if name not in usage.cpu:
        return ""
    return f"{usage.cpu[name]:.0f}" + (f" ({usage.peak_mb[name]:.0f})" if name in usage.peak_mb else "")


def number(value: float) -> str:
    """Three digits, or all that stand before the point."""
    for least, form in ((100, ",.0f"), (10, ".1f"), (0, ".2f")):
        if abs(value) >= least:
            return f"{value:{form}}"
    return str(value)


def as_json(results: Results, facts: dict[str, Any]) -> dict[str, Any]:
    """Everything, with `facts` of the run first."""
    return {
        **facts,
        "problems": results.problems,
        "figures": [_figure(results, figure) for figure in results.figures],
        "usage": [_usage(usage) for usage in results.usages],
    }


def _figure(results: Results, figure: Figure) -> dict[str, Any]:
    base = results.base_of(figure)
    return {
        "group": figure.group,
        "name": figure.name,
        "unit": figure.unit,
        "size": figure.size,
        "stored": figure.stored,
        "value": round(figure.value, 3),
        "floors": [
            {"name": floor.name, "value": round(floor.value, 3), "ratio": round(ratio, 3)}
            for floor, ratio in zip(figure.floors, figure.ratios, strict=True)
        ],
        "change_percent": round(figure.growth(base), 1) if base else None,
        "worse_percent": round(figure.worse(base), 1) if base else None,
    }


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "group": usage.group,
        "name": usage.name,
        "size": usage.size,
        "stored": usage.stored,
        "seconds": round(usage.seconds, 2),
        "cpu_percent": {name: round(value, 1) for name, value in usage.cpu.items()},
        "peak_mb": {name: round(value, 1) for name, value in usage.peak_mb.items()},
    }
