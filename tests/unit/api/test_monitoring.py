"""Figures of /api/v2/monitoring that a running CouchDB does not show at will; test_health.py asks a real one."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, NoReturn, cast

import pytest

from api import monitoring
from api.monitoring import UNKNOWN, _Known
from mjumbe.couch import CouchError, UnavailableError


@pytest.mark.parametrize(
    ("info", "fragmentation"),
    [
        ({"sizes": {"active": 300, "file": 1_000}}, 3.33),
        ({"sizes": {"active": 0, "file": 1_000}}, UNKNOWN),
        ({"sizes": {"active": None, "file": None}}, UNKNOWN),
        ({"sizes": None}, UNKNOWN),
        ({}, UNKNOWN),
    ],
)
def test_fragmentation_is_the_files_size_by_what_is_used_of_it(info: Mapping[str, Any], fragmentation: float) -> None:
    database = cast(Any, SimpleNamespace(name="medic", info=lambda: info))
    assert monitoring._database(database, _Known(True))["fragmentation"] == fragmentation


@pytest.mark.parametrize(("error", "asked"), [(UnavailableError("away"), 1), (CouchError(500, "of this view"), 3)])
def test_a_couchdb_that_is_away_is_not_asked_for_each_figure_anew(error: Exception, asked: int) -> None:
    """Each would wait for it."""
    known, questions = _Known(True), list[int]()

    def figure() -> NoReturn:
        questions.append(1)
        raise error

    assert [known.or_(UNKNOWN, figure) for _ in range(3)] == [UNKNOWN] * 3
    assert len(questions) == asked
