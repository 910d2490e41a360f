"""Views: `_design/x/_view/y`, their `queries`, `_info`, and `_view_cleanup`."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

from aiohttp import web

from embedded.bulk import ROWS_PARAMETERS, parameters, queries
from embedded.documents import DESIGN
from embedded.engine import revisions
from embedded.engine.database import Database
from embedded.engine.index import Index, ViewFunctions
from embedded.engine.query import EXACT, ViewQuery, ViewRow, map_rows, offset, reduced_rows
from embedded.errors import CouchError, not_found, query_parse_error
from embedded.http import (
    Call,
    answer,
    answer_pieces,
    compact,
    parse_count,
    parse_flag,
    results_in_pieces,
    rows_in_pieces,
)

_STALE = {"ok": "false", "update_after": "lazy"}
_FLAGS = ("inclusive_end", "descending", "reduce", "include_docs", "conflicts", "update_seq", "sorted")


def view_query(given: dict[str, Any], reducer: str | None) -> ViewQuery:
    """Decoded parameters as a query of a view, with or without a reduce function. Raises 400 where CouchDB does."""
    known: dict[str, Any] = {}
    for name, value in given.items():
        if name in _FLAGS:
            known[name] = parse_flag(name, value)
        elif name in ("limit", "skip"):
            known[name] = parse_count(name, value)
        elif name in ("key", "keys", "start_key", "end_key", "start_key_doc_id", "end_key_doc_id"):
            known[name] = value
        elif name == "group":
            known["group_level"] = EXACT if parse_flag(name, value) else 0
        elif name == "group_level":
            known["group_level"] = parse_count(name, value)
        elif name in ("update", "stale"):
            known["update"] = _update_mode(name, value)
    known["reduce"] = known.get("reduce", reducer is not None)
    if known.get("keys") is None:
        known.pop("keys", None)
    query = ViewQuery(**known)
    _check(query, reducer, known)
    return query


def _update_mode(name: str, value: object) -> str:
    mode = _STALE.get(str(value)) if name == "stale" else str(value).lower()
    if mode not in ("true", "false", "lazy"):
        raise query_parse_error(f"Invalid value for {name}: {value!r}")
    return mode


def _check(query: ViewQuery, reducer: str | None, given: dict[str, Any]) -> None:
    """Combinations that make no sense (CouchDB: couch_mrview_util:validate_args)."""
    if query.keys is not None:
        if not isinstance(query.keys, list):
            raise query_parse_error("`keys` must be an array of strings.")
        if "key" in given or "start_key" in given or "end_key" in given:
            raise query_parse_error("`keys` is incompatible with `key`, `start_key` and `end_key`")
        if query.reduce and query.group_level == 0 and len(query.keys) > 1:
            raise query_parse_error("Multi-key fetches for reduce views must use `group=true`")
        if query.reduce and query.group_level > 0:
            raise query_parse_error("Multi-key fetches for reduce views must use `group=true`")
    if query.reduce and reducer is None:
        raise query_parse_error("Reduce is invalid for map-only views.")
    if query.group_level != 0 and not query.reduce:
        raise query_parse_error("Invalid use of grouping on a map view.")
    if query.include_docs and query.reduce:
        raise query_parse_error("`include_docs` is invalid for reduce")


def _design_document(call: Call) -> dict[str, Any]:
    """The design document that the path names. Raises 404."""
    document = revisions.read(call.database.near(), DESIGN + call.path["ddoc"])
    if document is None:
        raise not_found()
    if document.deleted:
        raise not_found("deleted")
    fields: dict[str, Any] = json.loads(document.body)
    return fields


class _View:
    """A view, found: its index, its number in it, and its reduce function."""

    def __init__(self, call: Call) -> None:
        design_document = _design_document(call)
        name = call.path["view"]
        views = design_document.get("views", {})
        if name not in views or name == "lib":
            raise not_found("missing_named_view")
        functions = ViewFunctions.of(design_document)
        self.database: Database = call.database
        self.index: Index = call.database.index(functions)
        self.number = functions.number(name)
        self.reducer: str | None = views[name].get("reduce")

    async def refresh(self, query: ViewQuery) -> None:
        """Bring the index up to date; `update=lazy` does not wait for it, `update=false` does not ask for it."""
        if query.update == "true":
            await self.index.refresh()
        elif query.update == "lazy" and self.index.behind():
            # Whoever waits for the update hears of its failure; here nobody does.
            self.index.start_update().add_done_callback(lambda update: update.cancelled() or update.exception())

    def text(self, query: ViewQuery) -> Iterator[str]:
        """The answer to a query, in pieces."""
        with ExitStack() as stack:
            connection = stack.enter_context(self.index.borrow())
            linked = None
            if query.include_docs:
                documents = stack.enter_context(self.database.borrow())
                linked = partial(_linked, documents, revisions.conflicts(documents, query.conflicts))
            if query.reduce and self.reducer is not None:
                rows = (
                    f'{{"key":{key},"value":{value}}}'
                    for key, value in reduced_rows(connection, self.number, self.reducer.strip(), query)
                )
                head: dict[str, Any] = {}
            else:
                total = self.index.total(connection, self.number)
                head = {"total_rows": total, "offset": offset(connection, self.number, query, total)}
                rows = (_row_text(row, linked) for row in map_rows(connection, self.number, query))
            if query.update_seq:
                head["update_seq"] = self.database.seq_text(self.index.seq)
            start = f"{compact(head)[:-1]}," if head else "{"
            yield from rows_in_pieces(f'{start}"rows":[', rows, lambda: "\n]}")


def _row_text(row: ViewRow, linked: Callable[[ViewRow], str] | None) -> str:
    text = f'{{"id":{compact(row.id)},"key":{row.key},"value":{row.value}'
    return f"{text}}}" if linked is None else f'{text},"doc":{linked(row)}}}'


def _linked(documents: sqlite3.Connection, conflicts: revisions.Conflicts, row: ViewRow) -> str:
    """The document of a row: the one that emitted it, or the one that an `_id` in its value names."""
    doc_id, rev = row.id, None
    if '"_id"' in row.value or '"_rev"' in row.value:
        value = json.loads(row.value)
        if isinstance(value, dict):
            doc_id, rev = value.get("_id", doc_id), value.get("_rev")
    if not isinstance(doc_id, str):
        return "null"
    document = revisions.read_rev(documents, doc_id, rev) if rev else revisions.read(documents, doc_id)
    return "null" if document is None or (document.deleted and not rev) else document.json(conflicts(doc_id))


async def view(call: Call) -> web.StreamResponse:
    """GET and POST /db/_design/x/_view/y."""
    call.understand(*ROWS_PARAMETERS, "group", "group_level", "stale")
    found = _View(call)
    query = view_query(await parameters(call), found.reducer)
    await found.refresh(query)
    return await answer_pieces(call, lambda: found.text(query))


async def view_queries(call: Call) -> web.StreamResponse:
    """POST /db/_design/x/_view/y/queries: several queries, one answer each."""
    found = _View(call)
    wanted = [view_query(one, found.reducer) for one in await queries(call)]
    for query in wanted:
        await found.refresh(query)
    return await answer_pieces(call, lambda: results_in_pieces(found.text(query) for query in wanted))


async def info(call: Call) -> web.Response:
    """GET /db/_design/x/_info: the state of the index."""
    index = call.database.index(ViewFunctions.of(_design_document(call)))
    size = index.size()
    pending = call.database.counters.update_seq - index.seq
    return answer(
        {
            "name": call.path["ddoc"],
            "view_index": {
                "signature": index.functions.signature,
                "language": "javascript",
                "sizes": {"file": size, "external": size, "active": size},
                "updater_running": index.updating,
                "compact_running": False,
                "waiting_commit": False,
                "waiting_clients": 0,
                "update_seq": index.seq,
                "purge_seq": call.database.counters.purge_seq,
                "updates_pending": dict.fromkeys(("minimum", "preferred", "total"), pending),
            },
        }
    )


async def cleanup(call: Call) -> web.Response:
    """POST /db/_view_cleanup: remove the indexes that no design document needs any more."""
    bodies = await call.database.read(
        lambda connection: connection.execute(
            f"SELECT body FROM documents JOIN bodies USING (number) WHERE {revisions.IS_DESIGN} AND NOT deleted"  # noqa: S608
        ).fetchall()
    )
    wanted = set()
    for (body,) in bodies:
        try:
            wanted.add(ViewFunctions.of(json.loads(body)).signature)
        except CouchError:
            continue  # a language that is not spoken has no index
    await asyncio.to_thread(call.database.clean_views, wanted)
    return answer({"ok": True}, 202)
