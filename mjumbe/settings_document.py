"""The document `settings` as it is stored, and the one way to change what is in it."""

from collections.abc import Mapping, Sequence
from typing import Any

from mjumbe import settings
from mjumbe.couch import Database, UnavailableError
from mjumbe.documents import Document
from mjumbe.edits import apply_edits
from mjumbe.settings import Problem, SettingsError

DOCUMENT_ID = "settings"


def values(doc: Document | None) -> dict[str, Any]:
    """The settings in the document; none when there is no document, or it holds none."""
    found = doc.get("settings") if doc else None
    return found if isinstance(found, dict) else {}


def change(database: Database, given: Mapping[str, Any], *, overwrite: bool = False, replace: bool = False) -> bool:
    """Merge `given` into the stored settings, as `settings.merge` does; answers whether they differ from before.

    Raises SettingsError with what this change makes wrong, and nothing is stored: what was wrong before and is not
    touched may stay. Raises UnavailableError.
    """

    def edit(doc: Document) -> bool:
        before = values(doc)
        merged = settings.merge(before, given, overwrite=overwrite, replace=replace)
        problems = _problems(merged)
        old = {problem.path for problem in _problems(before)} if problems and not overwrite else set()
        new = [each for each in problems if each.path not in old or _touches(given, each.names, shallow=replace)]
        if new:
            raise SettingsError(new)
        doc["settings"] = merged
        return merged != before

    update = apply_edits(database, {DOCUMENT_ID: edit})[DOCUMENT_ID]
    if update.doc is None or update.error:
        raise UnavailableError(f"the document {DOCUMENT_ID} is not there yet, or does not take the change")
    return update.written


def _problems(stored: Mapping[str, Any]) -> list[Problem]:
    try:
        settings.parse(stored)
    except SettingsError as error:
        return error.problems
    return []


def _touches(given: Mapping[str, Any], names: Sequence[str], *, shallow: bool) -> bool:
    """Whether `given` says anything about the setting that `names` lead to."""
    inner: Any = given
    for step in names:
        if not isinstance(inner, Mapping):
            return True
        if step not in inner:
            return False
        if shallow:
            return True
        inner = inner[step]
    return True
