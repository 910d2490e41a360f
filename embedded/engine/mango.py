"""Mango selectors, as in CouchDB's `_find`: compiled once into a function, applied to each document.

Comparisons follow the views' order of values (docs.couchdb.org, "/db/_find", selector syntax). What is not in the
tables here is refused with 501.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from embedded.engine.collation import encode
from embedded.errors import CouchError, not_implemented


class Absent:
    """The type of the value of a field that a document does not have."""


ABSENT = Absent()
# Of a field in something that has none, such as a number. As in CouchDB `$exists: false` does not mean it.
NO_PLACE = Absent()

Test = Callable[[Any], bool]
Code = Callable[[Any], bytes]
Operator = Callable[[Any, Code], Test]
Path = tuple[str, ...]

_TYPES: dict[str, Test] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}


def compile_selector(selector: Any, negate: bool = False, code: Code = encode, in_element: bool = False) -> Test:
    """A selector as a function from a document to whether it matches (`negate`: whether it does not).

    As in CouchDB a negation is carried down to the single conditions, and those want a field to be there: neither
    `{"a": 1}` nor `{"$not": {"a": 1}}` matches a document without `a`. It is not so `in_element`, below `$elemMatch`.
    `code` gives values their order.
    """
    if not isinstance(selector, dict):
        raise CouchError(
            400, "invalid_selector_json", f"Selector must be a JSON object. Found: {type(selector).__name__}"
        )
    tests = [_compile_entry(name, operand, negate, code, in_element) for name, operand in selector.items()]
    return _join(tests, every=not negate)


def _join(tests: list[Test], every: bool) -> Test:
    if len(tests) == 1:
        return tests[0]
    if every:
        return lambda value: all(test(value) for test in tests)
    return lambda value: any(test(value) for test in tests)


def _compile_entry(name: str, operand: Any, negate: bool, code: Code, in_element: bool) -> Test:
    """One member of a selector: an operator on the value itself, or a field with its own selector."""
    if not name.startswith("$"):
        path = split_field(name)
        condition = _compile_condition(operand, negate, _raw if path == ["_id"] else code, in_element)
        return lambda value: condition(field(value, path))
    if name in ("$and", "$or", "$nor"):
        if name == "$or" and operand == []:
            raise not_implemented("A $or of nothing")  # of which CouchDB's versions make different things
        if name == "$nor" and in_element:
            raise not_implemented("$nor below $elemMatch")  # an error in CouchDB, which takes it for no match
        inner = negate != (name == "$nor")
        tests = [_compile_condition(one, inner, code, in_element) for one in _list(name, operand)]
        return _join(tests, every=inner if name != "$and" else not negate)
    if name == "$not":
        if not isinstance(operand, dict):
            raise CouchError(400, "bad_arg", f"Bad argument for operator $not: {operand!r}")
        if in_element:
            test = _compile_condition(operand, False, code, in_element)
            return lambda value: not test(value)
        return _compile_condition(operand, not negate, code)
    if name == "$exists":
        wanted = _exists(operand) != negate
        return lambda value: not isinstance(value, Absent) if wanted else value is ABSENT
    if name in _OPERATORS:
        test = _OPERATORS[name](operand, code)
        return lambda value: not isinstance(value, Absent) and test(value) != negate
    if name in ("$allMatch", "$keyMapMatch", "$text", "$beginsWith"):
        raise not_implemented(f"The selector operator {name}")
    raise CouchError(400, "invalid_operator", f"Invalid operator: {name}")


def _compile_condition(operand: Any, negate: bool, code: Code, in_element: bool = False) -> Test:
    """What stands after a field or among conditions: an object is a selector for the value, anything else, and an
    object without members, must be equal to it."""
    condition = operand if isinstance(operand, dict) and operand else {"$eq": operand}
    return compile_selector(condition, negate, code, in_element)


def _raw(value: Any) -> bytes:
    """The order of ids: byte by byte, unlike that of other strings."""
    return b"\x05" + value.encode(errors="replace") if isinstance(value, str) else encode(value)


def _compare(accept: Callable[[bytes, bytes], bool]) -> Operator:
    def compile_comparison(operand: Any, code: Code) -> Test:
        wanted = code(operand)
        return lambda value: accept(code(value), wanted)

    return compile_comparison


def _in(operand: Any, code: Code) -> Test:
    codes = {code(one) for one in _list("$in", operand)}
    return lambda value: any(code(member) in codes for member in (value if isinstance(value, list) else [value]))


def _not_in(operand: Any, code: Code) -> Test:
    test = _in(operand, code)
    return lambda value: not test(value)


def _all(operand: Any, _code: Code) -> Test:
    """Equal here is what is written alike, as in CouchDB; elsewhere 1 is 1.0, too."""
    wanted = [json.dumps(one) for one in _list("$all", operand)]

    def test(value: Any) -> bool:
        if not isinstance(value, list):
            return False
        members = {json.dumps(member) for member in value}
        return bool(wanted) and (all(one in members for one in wanted) or wanted == [json.dumps(value)])

    return test


def _element_match(operand: Any, code: Code) -> Test:
    if not isinstance(operand, dict):
        raise CouchError(400, "bad_arg", f"Bad argument for operator $elemMatch: {operand!r}")
    test = _compile_condition(operand, False, code, in_element=True)
    return lambda value: isinstance(value, list) and any(test(member) for member in value)


def _exists(operand: Any) -> bool:
    if not isinstance(operand, bool):
        raise CouchError(400, "bad_arg", f"Bad argument for operator $exists: {operand!r}")
    return operand


def _type(operand: Any, _code: Code) -> Test:
    if not isinstance(operand, str):
        raise CouchError(400, "bad_arg", f"Bad argument for operator $type: {operand!r}")
    return _TYPES.get(operand, lambda value: False)  # nothing is of a type that is none


def _regex(operand: Any, _code: Code) -> Test:
    """Applied to bytes, as in CouchDB: a dot is one byte of a letter with an accent."""
    if not isinstance(operand, str):
        raise CouchError(400, "bad_arg", f"Bad argument for operator $regex: {operand!r}")
    if re.search(r"\[:\^?[a-z]+:\]", operand):
        raise not_implemented("A named class of characters in $regex")  # Python would read it as other characters
    try:
        pattern = re.compile(operand.encode())
    except re.error as error:
        raise CouchError(400, "bad_arg", f"Bad argument for operator $regex: {operand!r}") from error
    return lambda value: isinstance(value, str) and pattern.search(value.encode()) is not None


def _size(operand: Any, _code: Code) -> Test:
    if not isinstance(operand, int):
        raise CouchError(400, "bad_arg", f"Bad argument for operator $size: {operand!r}")
    return lambda value: isinstance(value, list) and len(value) == operand


def _mod(operand: Any, _code: Code) -> Test:
    match operand:
        case [int(divisor), int(remainder)] if divisor:
            # Erlang's remainder has the sign of the dividend; Python's the sign of the divisor.
            return lambda value: (
                isinstance(value, int)
                and _TYPES["number"](value)
                and abs(value) % abs(divisor) == (remainder if value >= 0 else -remainder)
            )
    raise CouchError(400, "bad_arg", f"Bad argument for operator $mod: {operand!r}")


def _list(operator: str, operand: Any) -> list[Any]:
    if not isinstance(operand, list):
        raise CouchError(400, "bad_arg", f"Bad argument for operator {operator}: {operand!r}")
    return operand


_OPERATORS: dict[str, Operator] = {
    "$eq": _compare(lambda value, operand: value == operand),
    "$ne": _compare(lambda value, operand: value != operand),
    "$gt": _compare(lambda value, operand: value > operand),
    "$gte": _compare(lambda value, operand: value >= operand),
    "$lt": _compare(lambda value, operand: value < operand),
    "$lte": _compare(lambda value, operand: value <= operand),
    "$in": _in,
    "$nin": _not_in,
    "$all": _all,
    "$elemMatch": _element_match,
    "$type": _type,
    "$regex": _regex,
    "$size": _size,
    "$mod": _mod,
}


def split_field(name: str) -> list[str]:
    """`a.b` as its steps; a backslash makes a dot part of the name."""
    return [step.replace("\\.", ".") for step in re.split(r"(?<!\\)\.", name)]


def field(value: Any, path: list[str]) -> Any:
    """The value at a path, ABSENT if it is not there, NO_PLACE if it cannot be. A number steps into an array."""
    for step in path:
        if isinstance(value, Absent):
            return value
        if isinstance(value, dict):
            value = value.get(step, ABSENT)
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            return NO_PLACE
    return value


def required_fields(selector: dict[str, Any], path: Path = (), negate: bool = False) -> set[Path]:
    """The fields that every document has which matches a valid selector of what is at `path`."""
    found = [_required_by(name, operand, path, negate) for name, operand in selector.items()]
    return set.intersection(*found) if negate else set.union(*found, set())


def _required_by(name: str, operand: Any, path: Path, negate: bool) -> set[Path]:
    """What one member of a selector requires."""
    if not name.startswith("$"):
        return _required_by("$and", [operand], (*path, *split_field(name)), negate)
    if name == "$not":
        return _required_by("$and", [operand], path, not negate)
    if name == "$exists":
        return {path} if operand != negate else set()
    if name not in ("$and", "$or", "$nor"):
        return {path}
    inner = negate != (name == "$nor")
    found = [required_fields(one, path, inner) if isinstance(one, dict) and one else {path} for one in operand]
    every = inner if name != "$and" else not negate
    return set.union(*found, set()) if every or not found else set.intersection(*found)


def project(document: dict[str, Any], fields: list[list[str]]) -> dict[str, Any]:
    """Only these fields of a document, nested as they were."""
    result: dict[str, Any] = {}
    for path in fields:
        value = field(document, path)
        if isinstance(value, Absent):
            continue
        place: Any = result
        for step in path[:-1]:
            place = place.setdefault(step, {}) if isinstance(place, dict) else place[int(step)]
        if isinstance(place, dict):  # a list was taken as a whole before
            place[path[-1]] = value
    return result
