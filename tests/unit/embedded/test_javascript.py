"""Map functions that misbehave: each costs its own documents or its own query, never the process."""

from __future__ import annotations

import pytest

from embedded.engine import javascript
from embedded.engine.javascript import MapFunctions
from embedded.errors import CouchError

DOCUMENTS = ['{"_id": "a", "bad": true}', '{"_id": "b"}']


@pytest.mark.parametrize(
    ("source", "rows"),
    [
        ("function (doc) { emit(doc._id, 1); }", [[["a", "1"]], [["b", "1"]]]),
        ("function (doc) { emit(doc._id); if (doc.bad) throw 'no'; }", [[], [["b", "null"]]]),
        ("function (doc) { emit(doc._id); if (doc.bad) undefined.x; }", [[], [["b", "null"]]]),
        ("function (doc) { function f() { f(); } if (doc.bad) f(); emit(doc._id); }", [[], [["b", "null"]]]),
        ("function (doc) { var self = {}; self.self = self; if (doc.bad) emit(self); emit(1); }", [[], [[1, "null"]]]),
        ("function (doc) { emit(NaN, Infinity); }", [[[None, "null"]], [[None, "null"]]]),
        ("function (doc) { emit(undefined, function () {}); }", [[[None, "null"]], [[None, "null"]]]),
        ("function (doc) { emit(1); };\n", [[[1, "null"]], [[1, "null"]]]),
        ("function (doc) { emit(1); } // the end", [[[1, "null"]], [[1, "null"]]]),
        ("doc => emit(doc._id)", [[["a", "null"]], [["b", "null"]]]),
    ],
)
def test_rows(source, rows):
    functions = MapFunctions({"v": source})
    assert [views[0] for views in functions.run(DOCUMENTS)] == rows
    functions.close()


@pytest.mark.parametrize(
    ("body", "seconds", "status", "words"),
    [
        ("while (true);", 0.1, 500, "5 seconds"),
        ("var hoard = []; while (true) hoard.push(new Array(1000000).fill(1.5));", 60, 500, "memory"),
        ("require('lib');", 60, 501, "require"),
    ],
)
def test_what_ends_the_query_leaves_the_functions_usable(monkeypatch, body, seconds, status, words):
    """However busy the machine is: what is to meet its end by the clock has none, and what is not has time."""
    functions = MapFunctions({"v": f"function (doc) {{ if (doc.bad) {{ {body} }} emit(1); }}"})
    monkeypatch.setattr(javascript, "MAP_TIMEOUT", seconds)
    with pytest.raises(CouchError) as caught:
        functions.run(DOCUMENTS)
    monkeypatch.setattr(javascript, "MAP_TIMEOUT", 60)
    assert caught.value.status == status
    assert words in caught.value.reason
    assert functions.run(DOCUMENTS[1:]) == [[[[1, "null"]]]]
    functions.close()
