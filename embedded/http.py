"""Requests and answers in CouchDB's manner: parameters, JSON bodies, JSON answers, long answers in pieces."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar
from urllib.parse import parse_qsl

from aiohttp import web

from embedded.auth import Authenticator, User
from embedded.engine.database import Database
from embedded.engine.store import Store
from embedded.errors import CouchError, bad_request, not_implemented, query_parse_error

T = TypeVar("T")

VERSION = "3.4.2"
SERVER = f"CouchDB/{VERSION} (mjumbe embedded store)"
MAX_DOCUMENT = 8_000_000  # CouchDB's default `max_document_size`
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # half a pair, escaped
COUNT = re.compile(r"-?[0-9]{1,1000}")
MOST_COUNT = 2**62 - 1  # SQLite knows the sum of two, of skip and limit

# Every query parameter that means something somewhere in CouchDB. One of these where we do not know it is refused,
# because ignoring it would give another answer than the one asked for; any other word is ignored, as CouchDB does.
COUCHDB_PARAMETERS = frozenset(
    (
        *("att_encoding_info", "attachments", "atts_since", "bookmark", "conflicts", "deleted_conflicts"),
        *("descending", "doc_ids", "drop", "end_key", "end_key_doc_id", "feed", "filter"),
        *("group", "group_level", "heartbeat", "include_docs", "inclusive_end", "key", "keys", "last-event-id"),
        *("latest", "limit", "local_seq", "meta", "new_edits", "open_revs", "partition", "partitioned", "reduce"),
        *("rev", "revs", "revs_info", "seq_interval", "since", "skip", "sorted", "stable", "stale", "start_key"),
        *("start_key_doc_id", "style", "timeout", "update", "update_seq", "view"),
    )
)
# Other names of parameters, and those that they stand for.
_ALIASES = {
    "startkey": "start_key",
    "endkey": "end_key",
    "startkey_docid": "start_key_doc_id",
    "endkey_docid": "end_key_doc_id",
}

compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@dataclass(slots=True)
class Service:
    """What every request needs of the server."""

    store: Store
    auth: Authenticator


@dataclass(slots=True)
class Call:
    """One request on its way: who asks, for which path, with which parameters."""

    request: web.Request
    service: Service
    user: User
    path: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)

    @property
    def database(self) -> Database:
        """The database that the path names. Raises 404."""
        return self.service.store.database(self.path["db"])

    def understand(self, *names: str) -> None:
        """Raise 501 for a parameter of CouchDB's that is not among `names`."""
        for name in self.query:
            if name in COUCHDB_PARAMETERS and name not in names:
                raise not_implemented(f"The parameter {name!r} of {self.request.method} {self.request.path}")

    def flag(self, name: str) -> bool:
        """A parameter that is true or false; false when it is not given."""
        return name in self.query and parse_flag(name, self.query[name])

    def json_parameter(self, name: str) -> Any:
        """A parameter whose value is JSON; None if it is not given."""
        return parse_json(self.query[name]) if name in self.query else None

    async def json(self) -> Any:
        """The body as JSON. Raises 400."""
        return parse_json(await self.body())

    async def body(self) -> bytes:
        """The body as bytes, unzipped."""
        try:
            return await self.request.read()
        except web.HTTPRequestEntityTooLarge:
            raise CouchError(413, "too_large", "the request entity is too large") from None

    async def json_object(self) -> dict[str, Any]:
        """The body as a JSON object, which must say that it is JSON. Raises 400, 415."""
        if self.request.method == "POST" and self.request.content_type != "application/json":
            raise CouchError(415, "bad_content_type", "Content-Type must be application/json")
        value = await self.json()
        if not isinstance(value, dict):
            raise bad_request("Request body must be a JSON object")
        return value


def parse_json(text: str | bytes) -> Any:
    """JSON as CouchDB reads it: strictly, in UTF-8, which cannot spell half a surrogate pair. Raises 400."""
    try:
        written = text if isinstance(text, str) else text.decode()
        value = json.loads(written, parse_constant=_no_constant, parse_float=_double)
        if SURROGATE.search(written):
            compact(value).encode()
        return value
    except (ValueError, RecursionError):
        raise bad_request("invalid UTF-8 JSON") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _double(written: str) -> float:
    """Python reads 1e999 as infinity, and would write that as no JSON."""
    number = float(written)
    if math.isinf(number):
        raise ValueError(f"{written} is larger than a double")
    return number


def parse_query(text: str) -> dict[str, str]:
    """The parameters of a URL, by the names in COUCHDB_PARAMETERS."""
    return by_one_name(dict(parse_qsl(text, keep_blank_values=True)))


def by_one_name(given: Mapping[str, T]) -> dict[str, T]:
    """Parameters, each by the first of its names."""
    return {_ALIASES.get(name, name): value for name, value in given.items()}


def parse_flag(name: str, value: object) -> bool:
    """true or false, as text from a URL or as JSON from a body."""
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return value == "true"
    raise query_parse_error(f"Invalid boolean parameter: {value!r} for {name}")


def parse_count(name: str, value: object) -> int:
    """A whole number from 0 up, as text or as JSON; MOST_COUNT in place of a larger one."""
    if isinstance(value, str) and COUNT.fullmatch(value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise query_parse_error(f"Invalid value for integer: {value!r} for {name}")
    if value < 0:
        raise query_parse_error(f"Invalid value for positive integer: {value} for {name}")
    return min(value, MOST_COUNT)


def answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """A JSON answer."""
    return answer_text(compact(value), status, headers)


def answer_text(text: str, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """An answer that is JSON text already. Half a surrogate pair, which UTF-8 cannot spell, becomes `?`."""
    return web.Response(
        body=f"{text}\n".encode(errors="replace"),
        status=status,
        headers={"Cache-Control": "must-revalidate", **(headers or {})},
        content_type="application/json",
    )


async def answer_pieces(call: Call, make: Callable[[], Iterator[str]]) -> web.StreamResponse:
    """An answer of unknown length. `make` and its iterator run in threads, a piece at a time, so that a long answer
    neither fills the memory nor stops the server. An error before the second piece is answered as an error.

    When the client goes away the iterator is dropped, which ends it and gives back what it has borrowed.
    """
    loop, executor = asyncio.get_running_loop(), call.service.store.readers
    pieces, first, second = await loop.run_in_executor(executor, _begin, make)
    if second is None:
        return answer_text(first)
    response = await start_pieces(call)
    await response.write(first.encode(errors="replace"))
    piece: str | None = second
    while piece is not None:
        await response.write(piece.encode(errors="replace"))
        piece = await loop.run_in_executor(executor, next, pieces, None)
    await response.write_eof(b"\n")
    return response


def _begin(make: Callable[[], Iterator[str]]) -> tuple[Iterator[str], str, str | None]:
    """The first two pieces, in one visit to the thread: most answers have only one."""
    pieces = make()
    return pieces, next(pieces), next(pieces, None)


class _Pieces(web.StreamResponse):
    """An answer that comes in chunks. What is written to a HEAD, aiohttp would send: the client takes it for the next
    answer."""

    def __init__(self, method: str) -> None:
        super().__init__(
            headers={"Cache-Control": "must-revalidate", "Content-Type": "application/json", "Server": SERVER}
        )
        self._has_body = method != "HEAD"

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._has_body:
            await super().write(data)

    async def write_eof(self, data: bytes = b"") -> None:
        await super().write_eof(data if self._has_body else b"")


async def start_pieces(call: Call) -> web.StreamResponse:
    """The head of an answer that comes in chunks."""
    response = _Pieces(call.request.method)
    response.enable_chunked_encoding()
    await response.prepare(call.request)
    return response


PIECE_ROWS = 500


def rows_in_pieces(head: str, rows: Iterable[str], tail: Callable[[], str]) -> Iterator[str]:
    """`head`, the rows with commas between them, and what `tail` says after the last one; some hundred rows a piece."""
    piece = [head]
    separator = ""
    for row in rows:
        piece.append(f"{separator}\n{row}")
        separator = ","
        if len(piece) > PIECE_ROWS:
            yield "".join(piece)
            piece = []
    piece.append(tail())
    yield "".join(piece)


def results_in_pieces(answers: Iterable[Iterator[str]]) -> Iterator[str]:
    """The answers to several queries, in pieces, as one."""
    yield '{"results":['
    for place, answer_to_one in enumerate(answers):
        if place:
            yield ","
        yield from answer_to_one
    yield "]}"
