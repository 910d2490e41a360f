"""Questions to a view index: which rows, in which order, and what built-in reduce functions make of them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from embedded.engine.collation import AFTER, encode, group_prefix
from embedded.errors import CouchError, empty_range, not_implemented

# The group level of `group=true`: keys that are equal as a whole.
EXACT: Final = -1
# Rows before the first one answered are counted for `offset` up to this many. CouchDB's format allows null, and
# counting half of a large view would cost more than the query.
OFFSET_COUNTED = 20_000
REDUCES = ("_count", "_sum", "_stats")


class Missing:
    """The type of `MISSING`, which stands for a parameter that was not given, since null is a key."""


MISSING: Final = Missing()


@dataclass(frozen=True, slots=True)
class ViewQuery:
    """The parameters of a query; names and defaults are CouchDB's."""

    key: Any = MISSING
    keys: list[Any] | None = None
    start_key: Any = MISSING
    end_key: Any = MISSING
    start_key_doc_id: str | None = None
    end_key_doc_id: str | None = None
    inclusive_end: bool = True
    descending: bool = False
    limit: int | None = None
    skip: int = 0
    reduce: bool | None = None
    group_level: int = 0
    include_docs: bool = False
    conflicts: bool = False
    update_seq: bool = False
    update: str = "true"
    sorted: bool = True

    def ranges(self) -> list[Range]:
        """The ranges of rows that are asked for, in the order of the answer."""
        if self.keys is not None:
            keys = list(reversed(self.keys)) if self.descending else self.keys
            return [Range.of_key(key) for key in keys]
        one = self.key
        start = _bound(self.start_key if isinstance(one, Missing) else one, self.start_key_doc_id)
        end = _bound(self.end_key if isinstance(one, Missing) else one, self.end_key_doc_id)
        low, high = (end, start) if self.descending else (start, end)
        include_low = self.inclusive_end or not self.descending
        include_high = self.inclusive_end or self.descending
        if start and end and low and high and low[0] > high[0]:
            raise empty_range(self.descending)
        return [Range(low, high, include_low, include_high)]


def _bound(key: Any, doc_id: str | None) -> tuple[bytes, str | None] | None:
    return None if isinstance(key, Missing) else (encode(key), doc_id)


@dataclass(frozen=True, slots=True)
class Range:
    """Rows from `low` to `high`, each a key and perhaps a document id; None is open."""

    low: tuple[bytes, str | None] | None
    high: tuple[bytes, str | None] | None
    include_low: bool = True
    include_high: bool = True

    @classmethod
    def of_key(cls, key: Any) -> Range:
        """The rows of one key."""
        code = encode(key), None
        return cls(code, code)

    def condition(self, view: int) -> tuple[str, list[Any]]:
        """SQL for WHERE, and its arguments."""
        parts: list[str] = ["view = ?"]
        arguments: list[Any] = [view]
        for bound, operator in (
            (self.low, ">=" if self.include_low else ">"),
            (self.high, "<=" if self.include_high else "<"),
        ):
            if bound is not None:
                key, doc_id = bound
                parts.append(f"key {operator} ?" if doc_id is None else f"(key, id) {operator} (?, ?)")
                arguments += [key] if doc_id is None else [key, doc_id]
        return " AND ".join(parts), arguments

    def outside(self, descending: bool) -> Range | None:
        """The rows that come before this range."""
        if descending:
            return Range(self.high, None, include_low=not self.include_high) if self.high else None
        return Range(None, self.low, include_high=not self.include_low) if self.low else None


@dataclass(frozen=True, slots=True)
class ViewRow:
    """One row of a map view; key and value are JSON texts."""

    id: str
    key: str
    value: str


def map_rows(connection: sqlite3.Connection, view: int, query: ViewQuery) -> Iterator[ViewRow]:
    """The rows of a view, in order, after skip and up to limit."""
    direction = "DESC" if query.descending else "ASC"
    skip, left = query.skip, query.limit
    for part in query.ranges():
        condition, arguments = part.condition(view)
        cursor = connection.execute(
            f"SELECT id, key_json, value FROM rows WHERE {condition} "  # noqa: S608 - only built from constants
            f"ORDER BY key {direction}, id {direction}, place {direction} LIMIT ?",
            [*arguments, -1 if left is None else left + skip],
        )
        for found in cursor:
            if skip:
                skip -= 1
                continue
            if left is not None:
                if left == 0:
                    return
                left -= 1
            yield ViewRow(*found)


def offset(connection: sqlite3.Connection, view: int, query: ViewQuery, total: int) -> int | None:
    """How many rows come before the first one answered; None when they are too many to count, or keys were given."""
    if query.keys is not None or not query.sorted:
        return None
    (part,) = query.ranges()
    before = part.outside(query.descending)
    counted = 0
    if before is not None:
        condition, arguments = before.condition(view)
        (counted,) = connection.execute(
            f"SELECT count(*) FROM (SELECT 1 FROM rows WHERE {condition} LIMIT ?)",  # noqa: S608
            [*arguments, OFFSET_COUNTED + 1],
        ).fetchone()
    return None if counted > OFFSET_COUNTED else min(counted + query.skip, total)


# What SQL is asked for a group of rows. It adds whole numbers up in 64 bits, so the sums are made here.
_AGGREGATES = "count(*), count(number), min(number), max(number)"


def reduced_rows(
    connection: sqlite3.Connection, view: int, reducer: str, query: ViewQuery
) -> Iterator[tuple[str, str]]:
    """(key, value) of every group, as JSON texts, after skip and up to limit. A query without rows has no groups."""
    if reducer not in REDUCES:
        raise not_implemented(f"The reduce function {reducer.strip()[:40]!r} (only _count, _sum and _stats)")
    groups: Callable[..., Iterator[tuple[str, Range]]]
    if query.group_level == 0:
        groups = _one_group
    elif query.group_level == EXACT:
        groups = _exact_groups
    else:
        groups = _level_groups
    place = 0
    for part in query.ranges():
        for key, group in groups(connection, view, part, query):
            place += 1
            if place <= query.skip:
                continue
            if query.limit is not None and place > query.skip + query.limit:
                return
            value = _reduce(connection, view, reducer, group)
            if value is not None:
                yield key, value


def _one_group(_connection: Any, _view: int, part: Range, _query: ViewQuery) -> Iterator[tuple[str, Range]]:
    yield "null", part


def _exact_groups(
    connection: sqlite3.Connection, view: int, part: Range, query: ViewQuery
) -> Iterator[tuple[str, Range]]:
    """Every key once, with its rows (document ids in the bounds matter only at the ends)."""
    while (first := _first(connection, view, part, query.descending)) is not None:
        key, key_json = first
        yield key_json, _narrow(part, key, key)
        part = _rest(part, key, key, query.descending)


def _level_groups(
    connection: sqlite3.Connection, view: int, part: Range, query: ViewQuery
) -> Iterator[tuple[str, Range]]:
    """Every beginning of the keys, of `group_level` members, with its rows."""
    while (first := _first(connection, view, part, query.descending)) is not None:
        key_bytes, key_json = first
        key = json.loads(key_json)
        if isinstance(key, list) and len(key) > query.group_level:
            key_json = json.dumps(key[: query.group_level], separators=(",", ":"))
        if isinstance(key, list) and len(key) >= query.group_level:
            low = group_prefix(key, query.group_level)
            high = low + AFTER
        else:
            low = high = key_bytes
        yield key_json, _narrow(part, low, high)
        part = _rest(part, low, high, query.descending)


def _first(connection: sqlite3.Connection, view: int, part: Range, descending: bool) -> tuple[bytes, str] | None:
    condition, arguments = part.condition(view)
    direction = "DESC" if descending else "ASC"
    found: tuple[bytes, str] | None = connection.execute(
        f"SELECT key, key_json FROM rows WHERE {condition} ORDER BY key {direction}, id {direction} LIMIT 1",  # noqa: S608
        arguments,
    ).fetchone()
    return found


def _narrow(part: Range, low: bytes, high: bytes) -> Range:
    """The rows of `part` with keys from `low` to `high`."""
    keep_low = part.low is not None and part.low[0] >= low
    keep_high = part.high is not None and part.high[0] <= high
    return Range(
        part.low if keep_low else (low, None),
        part.high if keep_high else (high, None),
        part.include_low or not keep_low,
        part.include_high or not keep_high,
    )


def _rest(part: Range, low: bytes, high: bytes, descending: bool) -> Range:
    """What of `part` comes after the group that reaches from `low` to `high`."""
    if descending:
        return Range(part.low, (low, None), part.include_low, include_high=False)
    return Range((high, None), part.high, include_low=False, include_high=part.include_high)


def _reduce(connection: sqlite3.Connection, view: int, reducer: str, group: Range) -> str | None:
    """The value of one group as JSON; None if it has no rows."""
    condition, arguments = group.condition(view)
    aggregates = "count(*)" if reducer == "_count" else _AGGREGATES
    found = connection.execute(
        f"SELECT {aggregates} FROM rows WHERE {condition}",  # noqa: S608
        arguments,
    ).fetchone()
    rows = found[0]
    if rows == 0:
        return None
    if reducer == "_count":
        return str(rows)
    count, least, greatest = found[1:]
    if count == rows:
        total, squares = _sums(connection.execute(f"SELECT number FROM rows WHERE {condition}", arguments))  # noqa: S608
        if reducer == "_sum":
            return json.dumps(total)
        return json.dumps({"sum": total, "count": rows, "min": least, "max": greatest, "sumsqr": squares})
    if reducer == "_stats":
        raise _unreducible(reducer, "numbers")
    values = connection.execute(f"SELECT value FROM rows WHERE {condition}", arguments)  # noqa: S608
    result: Any = 0
    for (value,) in values:
        result = _add(result, json.loads(value))
    return json.dumps(result, ensure_ascii=False, separators=(",", ":"))


def _sums(rows: Iterable[tuple[float]]) -> tuple[float, float]:
    """The sum of the rows' numbers, and that of their squares; of whole numbers it is exact, however large."""
    total: float = 0
    squares: float = 0
    for (number,) in rows:
        total += number
        squares += number * number
    return total, squares


def _unreducible(reducer: str, wanted: str) -> CouchError:
    return CouchError(500, "builtin_reduce_error", f"The `{reducer}` function requires that map values be {wanted}.")


def _add(left: Any, right: Any) -> Any:
    """CouchDB's `_sum`: numbers add up, arrays and objects add up member by member."""
    if _is_number(left) and _is_number(right):
        return left + right
    if isinstance(left, dict) and isinstance(right, dict):
        return left | {name: _add(left.get(name, 0), value) for name, value in right.items()}
    if isinstance(left, dict) or isinstance(right, dict):
        if left == 0 or right == 0:
            return left or right
        raise _unreducible("_sum", "numbers, arrays of numbers, or objects; objects cannot be mixed with the others")
    if all(isinstance(value, list) or _is_number(value) for value in (left, right)):
        one = left if isinstance(left, list) else [left]
        other = right if isinstance(right, list) else [right]
        length = max(len(one), len(other))
        padded = [items + [0] * (length - len(items)) for items in (one, other)]
        return [_add(first, second) for first, second in zip(*padded, strict=True)]
    raise _unreducible("_sum", "numbers, arrays of numbers, or objects")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
