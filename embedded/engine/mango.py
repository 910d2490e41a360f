"""Mango selectors, as in CouchDB's `_find`: compiled once into a function, applied to each document.

Comparisons follow the views' order of values (docs.couchdb.org, "/db/_find", selector syntax). What is not in the
tables here is refused with 501.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from embedded.engine.collation import encode
from embedded.errors import CouchError, not_implemented


class Absent:
    """The type of `ABSENT`, the value of a field that a document does not have."""


ABSENT = Absent()

Test = Callable[[Any], bool]

_TYPES: dict[str, Test] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}


def invalid(reason: str) -> CouchError:
    """400 for a selector that makes no sense."""
    return CouchError(400, "invalid_operator", reason)


def compile_selector(selector: Any) -> Test:
    """A selector as a function from a document to whether it matches."""
    if not isinstance(selector, dict):
        raise CouchError(
            400, "invalid_selector_json", f"Selector must be a JSON object. Found: {type(selector).__name__}"
        )
    tests = [_compile_entry(name, operand) for name, operand in selector.items()]
    return _every(tests)


def _every(tests: list[Test]) -> Test:
    return lambda value: all(test(value) for test in tests)


def _compile_entry(name: str, operand: Any) -> Test:
    """One member of a selector: an operator on the value itself, or a field with its own selector."""
    if not name.startswith("$"):
        path = split_field(name)
        test = _compile_operand(operand)
        return lambda value: test(field(value, path))
    if name in _COMBINATIONS:
        if not isinstance(operand, list):
            raise CouchError(400, "bad_arg", f"Bad argument for operator {name}: {operand!r}")
        return _COMBINATIONS[name]([compile_selector(one) for one in operand])
    if name == "$not":
        inner = _compile_operand(operand)
        return lambda value: not inner(value)
    if name in _OPERATORS:
        return _OPERATORS[name](operand)
    if name in ("$allMatch", "$keyMapMatch", "$text", "$beginsWith"):
        raise not_implemented(f"The selector operator {name}")
    raise invalid(f"Invalid operator: {name}")


def _compile_operand(operand: Any) -> Test:
    """What stands after a field: an object is a selector for the field's value, anything else must be equal to it."""
    return compile_selector(operand) if isinstance(operand, dict) and operand else _equal(operand)


_COMBINATIONS: dict[str, Callable[[list[Test]], Test]] = {
    "$and": _every,
    "$or": lambda tests: lambda value: any(test(value) for test in tests),
    "$nor": lambda tests: lambda value: not any(test(value) for test in tests),
}


def _compare(accept: Callable[[bytes, bytes], bool]) -> Callable[[Any], Test]:
    def compile_comparison(operand: Any) -> Test:
        code = encode(operand)
        return lambda value: value is not ABSENT and accept(encode(value), code)

    return compile_comparison


_equal = _compare(lambda value, operand: value == operand)


def _in(operand: Any) -> Test:
    codes = {encode(one) for one in _list("$in", operand)}

    def test(value: Any) -> bool:
        if value is ABSENT:
            return False
        members = [value, *value] if isinstance(value, list) else [value]
        return any(encode(member) in codes for member in members)

    return test


def _not_in(operand: Any) -> Test:
    test = _in(operand)
    return lambda value: value is not ABSENT and not test(value)


def _all(operand: Any) -> Test:
    wanted = [encode(one) for one in _list("$all", operand)]

    def test(value: Any) -> bool:
        if not isinstance(value, list):
            return False
        codes = {encode(member) for member in value}
        return bool(wanted) and (all(code in codes for code in wanted) or wanted == [encode(value)])

    return test


def _element_match(operand: Any) -> Test:
    test = compile_selector(operand)
    return lambda value: isinstance(value, list) and any(test(member) for member in value)


def _exists(operand: Any) -> Test:
    if not isinstance(operand, bool):
        raise CouchError(400, "bad_arg", f"Bad argument for operator $exists: {operand!r}")
    return lambda value: (value is not ABSENT) == operand


def _type(operand: Any) -> Test:
    if operand not in _TYPES:
        raise CouchError(400, "bad_arg", f"Bad argument for operator $type: {operand!r}")
    return _TYPES[operand]


def _regex(operand: Any) -> Test:
    try:
        pattern = re.compile(operand)
    except (re.error, TypeError) as error:
        raise CouchError(400, "bad_arg", f"Bad argument for operator $regex: {operand!r}") from error
    return lambda value: isinstance(value, str) and pattern.search(value) is not None


def _size(operand: Any) -> Test:
    if not isinstance(operand, int):
        raise CouchError(400, "bad_arg", f"Bad argument for operator $size: {operand!r}")
    return lambda value: isinstance(value, list) and len(value) == operand


def _mod(operand: Any) -> Test:
    match operand:
        case [int(divisor), int(remainder)] if divisor:
            return lambda value: isinstance(value, int) and _TYPES["number"](value) and value % divisor == remainder
    raise CouchError(400, "bad_arg", f"Bad argument for operator $mod: {operand!r}")


def _list(operator: str, operand: Any) -> list[Any]:
    if not isinstance(operand, list):
        raise CouchError(400, "bad_arg", f"Bad argument for operator {operator}: {operand!r}")
    return operand


_OPERATORS: dict[str, Callable[[Any], Test]] = {
    "$eq": _equal,
    "$ne": _compare(lambda value, operand: value != operand),
    "$gt": _compare(lambda value, operand: value > operand),
    "$gte": _compare(lambda value, operand: value >= operand),
    "$lt": _compare(lambda value, operand: value < operand),
    "$lte": _compare(lambda value, operand: value <= operand),
    "$in": _in,
    "$nin": _not_in,
    "$all": _all,
    "$elemMatch": _element_match,
    "$exists": _exists,
    "$type": _type,
    "$regex": _regex,
    "$size": _size,
    "$mod": _mod,
}


def split_field(name: str) -> list[str]:
    """`a.b` as its steps; a backslash makes a dot part of the name."""
    return [step.replace("\\.", ".") for step in re.split(r"(?<!\\)\.", name)]


def field(value: Any, path: list[str]) -> Any:
    """The value at a path, ABSENT if it is not there. A number steps into an array."""
    for step in path:
        if isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            return ABSENT
    return value


def project(document: dict[str, Any], fields: list[list[str]]) -> dict[str, Any]:
    """Only these fields of a document, nested as they were."""
    result: dict[str, Any] = {}
    for path in fields:
        value = field(document, path)
        if value is ABSENT:
            continue
        place = result
        for step in path[:-1]:
            place = place.setdefault(step, {})
        place[path[-1]] = value
    return result
