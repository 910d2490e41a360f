"""Which settings there are: the table of all of them, and whose name a misspelt one looks like."""

import difflib
import json
from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_origin

from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from mjumbe.settings import DURATION_UNITS, Section, Settings, describe, duration, peeled

ALIKE = 0.85  # from which likeness on, by difflib, one name is taken for another misspelt


def reference() -> str:
    """Every setting as a Markdown table, made from the models; docs/settings.md ends with it."""
    lines = ["| key | takes | default | meaning |", "| --- | --- | --- | --- |"]
    for path, takes, default, meaning in _rows(Settings, ""):
        lines.append(f"| `{path}` | {takes} | {default} | {meaning} |")
    return "\n".join(lines) + "\n"


def reads(path: str) -> bool:
    """Whether a setting, a part of one or a group of them stands at `path` (`sms.reply_to`)."""
    return any(f"{key}.".startswith(f"{path}.") or path.startswith(f"{key}.") for key in _keys())


def takes_text(path: str) -> bool:
    """Whether the setting at `path` is a text."""
    return any(path == key and takes.startswith("a text") for key, takes, *_ in _rows(Settings, ""))


def meant(path: str) -> str | None:
    """The setting, or the group of them, that a path where nothing is read looks like; None when it looks like none."""
    names = [*_keys(), *_groups()]
    return next(iter(difflib.get_close_matches(path, names, n=1, cutoff=ALIKE)), None)


def misspelt(sms: Mapping[str, Any], path: str = "sms") -> dict[str, str]:
    """The settings of `sms` that nothing reads though they look like one that is read, and that one for each."""
    found: dict[str, str] = {}
    for name, value in sms.items():
        key = f"{path}.{name}"
        if not reads(key):
            found |= {key: like} if (like := meant(key)) else {}
        elif isinstance(value, Mapping):
            found |= misspelt(value, key)
    return found


def _keys() -> list[str]:
    return [key for key, *_ in _rows(Settings, "") if "[]" not in key]


def _groups() -> set[str]:
    return {key[:dot] for key in _keys() for dot, character in enumerate(key) if character == "."}


def _rows(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str, str]]:
    for name, field in model.model_fields.items():
        kind, _ = peeled(field.annotation)
        item = get_args(kind)[0] if get_origin(kind) is list else kind
        if isinstance(item, type) and issubclass(item, Section):
            inner = _rows(item, f"{prefix}{name}{'[]' if item is not kind else ''}.")
        else:
            inner = iter(())
        if field.description:
            yield f"{prefix}{name}", describe(field.annotation, field.metadata), _default(field), field.description
        yield from inner


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default_factory is not None or field.default in (None, "", [], {}):
        return "not set"
    if any(isinstance(entry, BeforeValidator) and entry.func is duration for entry in field.metadata):
        return f"`{_compact(field.default)}`"
    return f"`{json.dumps(field.default)}`"


def _compact(seconds: float) -> str:
    unit = next(unit for unit in ("d", "h", "m", "s") if seconds % DURATION_UNITS[unit] == 0)
    return f"{seconds / DURATION_UNITS[unit]:g}{unit}"
