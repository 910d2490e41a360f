"""Map functions in V8.

One `MapFunctions` holds the compiled maps of one design document in its own V8 isolate. Documents go in and rows come
out as JSON, many documents a call, because crossing into V8 costs about 0.2 ms and a map about 0.01 ms.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from py_mini_racer import JSEvalException, JSOOMException, JSTimeoutException, MiniRacer

from embedded.errors import CouchError, not_implemented

# CouchDB gives a map function 5 s for one document (`os_process_timeout`); here a whole batch has as long.
MAP_TIMEOUT = 5.0
# Enough for a batch of documents of the largest allowed size, and a bound on what a map function can hoard.
MEMORY_LIMIT = 512 * 1024 * 1024

Row = tuple[Any, str]

_UNSUPPORTED = "a map function called require()"

# What a map function sees as globals in CouchDB (share/server), and the loop that applies the maps to a batch. A map
# that throws gives no rows for that document; one that needs a module we do not have must fail loudly instead, because
# skipping its documents would be a wrong answer. With several maps the document is frozen, as CouchDB does, so that no
# map sees what another one wrote into it. Rows become text when the map has ended: a key that it changed after emitting
# it is the changed one.
_PRELUDE = r"""
var __rows = null, __maps = [];
class __Unsupported extends Error {}
function emit(key, value) { __rows.push([key, value]); }
function __text([key, value]) {
  const text = JSON.stringify(value);
  return JSON.stringify([key, text === undefined ? "null" : text]);
}
function log() {}
function isArray(value) { return Array.isArray(value); }
function toJSON(value) { return JSON.stringify(value); }
function sum(values) { let total = 0; for (const value of values) total += value; return total; }
function require() { throw new __Unsupported("a map function called require()"); }
function __compile(source) {
  const compiled = (0, eval)("(" + source.replace(/[\s;]+$/, "") + "\n)");
  if (typeof compiled !== "function") throw new Error("Expression does not eval to a function.");
  return compiled;
}
function __freeze(value) {
  if (value !== null && typeof value === "object" && !Object.isFrozen(value)) {
    Object.freeze(value);
    for (const name in value) __freeze(value[name]);
  }
  return value;
}
function __apply(map, doc) {
  __rows = [];
  try {
    map(doc);
    return "[" + __rows.map(__text).join(",") + "]";
  } catch (error) {
    if (error instanceof __Unsupported) throw error;
    return "[]";
  }
}
function __batch(text) {
  const docs = JSON.parse(text), out = [];
  for (const doc of docs) {
    if (__maps.length > 1) __freeze(doc);
    out.push("[" + __maps.map(map => __apply(map, doc)).join(",") + "]");
  }
  return "[" + out.join(",") + "]";
}
"""


class MapFunctions:
    """The map functions of one design document, compiled, in a fixed order."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        """`sources` maps view names to JavaScript. Raises CouchError 400 `compilation_error` for one that is none."""
        self._sources = dict(sources)
        self._context = self._compile()

    def _compile(self) -> MiniRacer:
        context = MiniRacer()
        context.set_hard_memory_limit(MEMORY_LIMIT)
        context.eval(_PRELUDE)
        for name, source in self._sources.items():
            try:
                context.eval(f"__maps.push(__compile({json.dumps(source)})), 0", timeout_sec=MAP_TIMEOUT)
            except (JSEvalException, JSTimeoutException) as error:
                context.close()
                reason = str(error).strip().splitlines()
                raise CouchError(
                    400,
                    "compilation_error",
                    f"Compilation of the map function in the '{name}' view failed: {reason[0] if reason else error}",
                ) from error
        return context

    def run(self, documents: Sequence[str]) -> list[list[list[Row]]]:
        """Apply every map to every document (JSON texts): rows[document][map] is a list of (key, value as JSON).

        Raises CouchError 500 when a map runs too long and 501 when one needs `require`.
        """
        argument = json.dumps("[" + ",".join(documents) + "]")
        try:
            answer = self._context.eval(f"__batch({argument})", timeout_sec=MAP_TIMEOUT)
        except JSTimeoutException as error:
            raise CouchError(500, "os_process_error", "A map function ran for more than 5 seconds.") from error
        except JSOOMException as error:
            self.close()
            self._context = self._compile()
            raise CouchError(500, "os_process_error", "A map function used more than its share of memory.") from error
        except JSEvalException as error:
            if _UNSUPPORTED in str(error):
                raise not_implemented("require() in a map function") from error
            raise CouchError(500, "os_process_error", "The map functions could not be run.") from error
        rows: list[list[list[Row]]] = json.loads(str(answer))
        return rows

    def close(self) -> None:
        """Free the isolate."""
        self._context.close()
