"""The `_changes` feed: normal, longpoll and continuous."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from embedded.engine import mango, revisions
from embedded.engine.database import Database
from embedded.errors import CouchError, bad_request, not_implemented
from embedded.http import (
    Call,
    answer_pieces,
    answer_text,
    compact,
    parse_count,
    parse_json,
    rows_in_pieces,
    start_pieces,
)

# CouchDB's `changes_timeout`: how long a waiting feed without heartbeat stays open.
DEFAULT_TIMEOUT = 60.0
# What `limit` is where none is asked for (#changes_args in couch_db.hrl).
_NO_LIMIT = 10**15
# Changes read in one go by a feed that waits.
_PAGE = 500
_PARAMETERS = (
    *("feed", "since", "limit", "descending", "include_docs", "heartbeat", "timeout", "filter", "style", "doc_ids"),
    *("conflicts", "attachments", "att_encoding_info", "seq_interval"),
)


@dataclass(frozen=True, slots=True)
class Change:
    """One row of the feed; `body` only when documents or a selector are asked for."""

    seq: int
    id: str
    rev: str
    deleted: bool
    body: str | None
    conflicts: dict[str, object] | None = None  # the field for them, if it is asked for
    others: tuple[str, ...] = ()  # the other leaves, if they are asked for

    def document(self) -> str:
        """The document as JSON."""
        return revisions.Document(self.id, self.rev, self.deleted, self.body or "{}").json(self.conflicts)


@dataclass(frozen=True, slots=True)
class Feed:
    """What a feed gives."""

    database: Database
    since: int
    limit: int | None = None
    descending: bool = False
    include_docs: bool = False
    conflicts: bool = False
    all_leaves: bool = False
    seq_interval: int = 1
    doc_ids: tuple[str, ...] | None = None
    design_only: bool = False
    selector: mango.Test | None = None

    def rows(self, connection: sqlite3.Connection, since: int, most: int) -> list[Change]:
        """Changes after `since`, at most `most`, before any filter but `_doc_ids` and `_design`."""
        body = "body" if self.include_docs or self.selector else "NULL"
        filtered = self.design_only or self.doc_ids is not None
        source = "documents" if filtered else "documents INDEXED BY changes"
        if self.include_docs or self.selector:
            source += " JOIN bodies USING (number)"
        condition = "seq > ?"
        arguments: list[object] = [since]
        if self.doc_ids is not None:
            condition += " AND id IN (SELECT value FROM json_each(?))"
            arguments.append(json.dumps(self.doc_ids))
        if self.design_only:
            condition += f" AND {revisions.IS_DESIGN}"
        found = connection.execute(
            f"SELECT seq, id, rev, deleted, {body} FROM {source} WHERE {condition} "  # noqa: S608
            f"ORDER BY seq {'DESC' if self.descending else 'ASC'} LIMIT ?",
            [*arguments, most],
        )
        if not (self.conflicts and self.include_docs) and not self.all_leaves:
            return [Change(seq, doc_id, rev, bool(deleted), body) for seq, doc_id, rev, deleted, body in found]
        conflicts = revisions.conflicts(connection, self.conflicts and self.include_docs)
        others = revisions.other_leaves(connection, self.all_leaves)
        return [
            Change(seq, doc_id, rev, bool(deleted), body, conflicts(doc_id), tuple(leaf.rev for leaf in others(doc_id)))
            for seq, doc_id, rev, deleted, body in found
        ]

    def matches(self, change: Change) -> bool:
        """Whether a selector lets the change through."""
        return self.selector is None or self.selector(json.loads(change.document()))

    def text(self, change: Change, place: int) -> str:
        """A row as JSON, after `place` others; with a sequence every `seq_interval` rows (fabric_view_changes.erl)."""
        named = ((self.limit or _NO_LIMIT) - place) % self.seq_interval == 0
        seq = f'"{self.database.seq_text(change.seq)}"' if named else "null"
        deleted = ',"deleted":true' if change.deleted else ""
        document = f',"doc":{change.document()}' if self.include_docs else ""
        others = "".join(f',{{"rev":"{rev}"}}' for rev in change.others) if change.others else ""
        return (
            f'{{"seq":{seq},"id":{compact(change.id)},"changes":[{{"rev":"{change.rev}"}}{others}]{deleted}{document}}}'
        )

    def end(self, connection: sqlite3.Connection, last: int, reached_end: bool) -> dict[str, Any]:
        """`last_seq` and `pending`: where to go on, and how many changes there are after it."""
        pending = 0
        if not reached_end and not self.descending:
            (pending,) = connection.execute(
                "SELECT count(*) FROM documents INDEXED BY changes WHERE seq > ?", (last,)
            ).fetchone()
        return {"last_seq": self.database.seq_text(last), "pending": pending}


async def changes(call: Call) -> web.StreamResponse:
    """GET and POST /db/_changes."""
    call.understand(*_PARAMETERS)
    if "last-event-id" in {name.lower() for name in call.request.headers}:
        raise not_implemented("Last-Event-ID")
    feed = await _feed(call)
    match call.query.get("feed", "normal"):
        case "normal":
            return await _normal(call, feed)
        case "longpoll":
            return await _longpoll(call, feed)
        case "continuous":
            return await _continuous(call, feed)
        case "eventsource":
            raise not_implemented("feed=eventsource")
        case other:
            raise bad_request(f"Unknown feed type: {other}")


async def _feed(call: Call) -> Feed:
    """The parameters of the request as a feed. Raises 400 and 501."""
    database = call.database
    text = call.query.get("since", "0").strip('"')
    since = database.counters.update_seq if text == "now" else database.parse_seq(text)
    if since is None:
        raise bad_request("Malformed sequence supplied in 'since' parameter.")
    descending = call.flag("descending")
    body = await call.json_object() if call.request.method == "POST" and await call.body() else {}
    filters = await _filters(call, body)
    return Feed(
        database,
        0 if descending else since,
        # CouchDB gives one change for limit=0, too.
        max(parse_count("limit", call.query["limit"]), 1) if "limit" in call.query else None,
        descending,
        call.flag("include_docs"),
        call.flag("conflicts"),
        _style(call) == "all_docs",
        _seq_interval(call),
        **filters,
    )


def _seq_interval(call: Call) -> int:
    """After how many rows the next sequence comes. Raises 400."""
    text = call.query.get("seq_interval", "1")
    if not re.fullmatch(r"\d{1,15}", text, re.ASCII) or int(text) == 0:
        raise bad_request("invalid_seq_interval")
    return int(text)


def _style(call: Call) -> str:
    """`main_only` or `all_docs`. Raises 400."""
    style = call.query.get("style", "main_only")
    if style not in ("main_only", "all_docs"):
        raise bad_request(f"Unknown style of _changes: {style}")
    return style


async def _filters(call: Call, body: dict[str, Any]) -> dict[str, Any]:
    name = call.query.get("filter")
    match name:
        case None:
            return {}
        case "_doc_ids":
            ids = body.get("doc_ids")
            if ids is None and "doc_ids" in call.query:
                ids = parse_json(call.query["doc_ids"])
            if not isinstance(ids, list) or not all(isinstance(one, str) for one in ids):
                raise bad_request("`doc_ids` filter parameter is not a list of doc ids.")
            return {"doc_ids": tuple(ids)}
        case "_design":
            return {"design_only": True}
        case "_selector":
            if "selector" not in body:
                raise bad_request("Selector must be specified in POST payload")
            return {"selector": mango.compile_selector(body["selector"])}
    raise not_implemented(f"The filter {name!r} of _changes")


async def _normal(call: Call, feed: Feed) -> web.StreamResponse:
    """Everything up to now."""

    def text() -> Iterator[str]:
        with feed.database.borrow() as connection:
            last, left, reached_end, places = feed.since, feed.limit, False, itertools.count()

            def rows() -> Iterator[str]:
                nonlocal last, left, reached_end
                if feed.descending:
                    # One page: going backwards there is no place to go on from.
                    most = -1 if left is None or feed.selector else left
                    for change in feed.rows(connection, 0, most):
                        if left != 0 and feed.matches(change):
                            left = None if left is None else left - 1
                            last = change.seq
                            yield feed.text(change, next(places))
                    return
                while left != 0:
                    page = feed.rows(connection, last, _PAGE if left is None or feed.selector else min(left, _PAGE))
                    for change in page:
                        last = change.seq
                        if feed.matches(change):
                            yield feed.text(change, next(places))
                            left = None if left is None else left - 1
                            if left == 0:
                                return
                    if not page:
                        reached_end = True
                        (newest,) = connection.execute("SELECT update_seq FROM counters").fetchone()
                        last = max(last, newest)
                        return

            yield from rows_in_pieces('{"results":[', rows(), lambda: _tail(feed.end(connection, last, reached_end)))

    return await answer_pieces(call, text)


def _tail(end: dict[str, Any]) -> str:
    return f"\n],\n{compact(end)[1:]}"


async def _next_changes(feed: Feed, since: int, most: int) -> tuple[list[Change], int, bool]:
    """The next matching changes, where they end, and whether that is the end of the feed for now."""

    def read(connection: sqlite3.Connection) -> tuple[list[Change], int, bool]:
        (newest,) = connection.execute("SELECT update_seq FROM counters").fetchone()
        page = feed.rows(connection, since, most if feed.selector is None else _PAGE)
        full = len(page) == (most if feed.selector is None else _PAGE)
        found = [change for change in page if feed.matches(change)]
        if len(found) >= most:
            return found[:most], found[most - 1].seq, False
        return found, page[-1].seq if full else newest, not full

    return await feed.database.read(read)


@dataclass(slots=True)
class _Patience:
    """How long a feed waits, and what it says meanwhile."""

    heartbeat: float | None
    deadline: float

    @classmethod
    def of(cls, call: Call) -> _Patience:
        """From `heartbeat` and `timeout`; the first rules out the second."""
        beat = call.query.get("heartbeat")
        if beat is not None and beat != "false":
            seconds = DEFAULT_TIMEOUT if beat == "true" else parse_count("heartbeat", beat) / 1000
            if seconds == 0:
                raise bad_request("The heartbeat value should be a positive integer (in milliseconds).")
            return cls(seconds, float("inf"))
        timeout = DEFAULT_TIMEOUT
        if "timeout" in call.query:
            timeout = min(parse_count("timeout", call.query["timeout"]) / 1000, DEFAULT_TIMEOUT)
        return cls(None, time.monotonic() + timeout)

    async def wait(self, database: Database, seq: int, beat: Callable[[], Any]) -> bool:
        """Wait for a change after `seq`. False when time is up or the database is gone."""
        while True:
            left = self.deadline - time.monotonic()
            if left <= 0:
                return False
            if await database.changed_after(seq, min(left, self.heartbeat or left)):
                return True
            if database.closed:
                return False
            if self.heartbeat is not None:
                await beat()


async def _longpoll(call: Call, feed: Feed) -> web.StreamResponse:
    """Everything up to now, or the first changes after now."""
    patience = _Patience.of(call)
    response: web.StreamResponse | None = None

    async def beat() -> None:
        """A new line; the first one needs the head of the answer before it."""
        nonlocal response
        if response is None:
            response = await start_pieces(call)
            await response.write(b'{"results":[\n')
        else:
            await response.write(b"\n")

    everything = feed.selector is None and feed.doc_ids is None and not feed.design_only
    if feed.descending or (everything and feed.database.counters.update_seq > feed.since):
        return await _normal(call, feed)  # there is something already, and there may be much
    since, found, at_end = feed.since, list[Change](), False
    while not found:
        found, since, at_end = await _next_changes(feed, since, feed.limit or 1_000_000)
        if not found and at_end and not await patience.wait(feed.database, since, beat):
            break
    rows = ",\n".join(map(feed.text, found, itertools.count()))
    end = await _end(feed, since, at_end)
    if response is None:
        return answer_text(f'{{"results":[\n{rows}{_tail(end)}')
    await response.write(f"{rows}{_tail(end)}\n".encode(errors="replace"))
    await response.write_eof()
    return response


async def _end(feed: Feed, since: int, at_end: bool) -> dict[str, Any]:
    """The end of a feed that waited; its database may have been deleted meanwhile."""
    if feed.database.closed:
        return {"last_seq": feed.database.seq_text(since), "pending": 0}
    return await feed.database.read(lambda connection: feed.end(connection, since, at_end))


async def _continuous(call: Call, feed: Feed) -> web.StreamResponse:
    """A line for every change, until the limit, the timeout, or the client's going."""
    patience = _Patience.of(call)
    response = await start_pieces(call)

    async def beat() -> None:
        await response.write(b"\n")

    since, left, places = feed.since, feed.limit, itertools.count()
    with contextlib.suppress(ConnectionResetError, CouchError):
        while left != 0:
            found, since, at_end = await _next_changes(feed, since, min(left or _PAGE, _PAGE))
            if found:
                lines = "".join(f"{feed.text(change, next(places))}\n" for change in found)
                await response.write(lines.encode(errors="replace"))
                left = None if left is None else left - len(found)
                patience = _Patience.of(call)
            elif at_end and not await patience.wait(feed.database, since, beat):
                break
        await response.write(f"{compact(await _end(feed, since, False))}\n".encode())
        await response.write_eof()
    return response
