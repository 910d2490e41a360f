"""Databases as a whole: making, describing, deleting them, and their settings."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from embedded.engine import revisions
from embedded.engine.store import SYSTEM_DATABASES
from embedded.errors import bad_request, forbidden, not_found, not_implemented
from embedded.http import Call, answer, parse_count


async def all_dbs(call: Call) -> web.Response:
    """GET /_all_dbs."""
    descending = call.flag("descending")
    names = sorted(call.service.store.names(), reverse=descending)
    start, end = call.json_parameter("start_key"), call.json_parameter("end_key")
    low, high = (end, start) if descending else (start, end)
    names = [name for name in names if (low is None or name >= low) and (high is None or name <= high)]
    skip = parse_count("skip", call.query.get("skip", 0))
    limit = parse_count("limit", call.query.get("limit", len(names)))
    return answer(names[skip : skip + limit])


async def create(call: Call) -> web.Response:
    """PUT /db. 412 when it is there."""
    if call.query.get("partitioned", "false") != "false":
        raise not_implemented("A partitioned database")
    call.service.store.create(call.path["db"])
    location = f"{call.request.scheme}://{call.request.host}{call.request.rel_url.raw_path}"
    return answer({"ok": True}, 201, {"Location": location})


async def delete(call: Call) -> web.Response:
    """DELETE /db."""
    if "rev" in call.query:
        raise bad_request(
            "You tried to DELETE a database with a ?rev= parameter. Did you mean to DELETE a document instead?"
        )
    if call.path["db"] in SYSTEM_DATABASES[:1]:
        raise not_implemented("DELETE of _users")
    await call.service.store.delete(call.path["db"])
    return answer({"ok": True})


async def info(call: Call) -> web.Response:
    """GET /db: what the database knows of itself without counting."""
    database = call.database
    counters, size = database.counters, database.size()
    return answer(
        {
            "instance_start_time": "0",
            "db_name": database.name,
            "purge_seq": f"{counters.purge_seq}-{database.token}",
            "update_seq": database.seq_text(counters.update_seq),
            "sizes": {"file": size, "external": size, "active": size},
            "props": {},
            "doc_del_count": counters.deleted_count,
            "doc_count": counters.doc_count,
            "disk_format_version": 8,
            "compact_running": False,
            "cluster": {"q": 1, "n": 1, "w": 1, "r": 1},
        }
    )


async def get_security(call: Call) -> web.Response:
    """GET /db/_security."""
    return answer(call.database.security)


async def put_security(call: Call) -> web.Response:
    """PUT /db/_security: who are members and who are admins."""
    if call.database.name == "_users":
        raise forbidden("You can't edit the security object of the user database.")
    security = await call.json()
    if not isinstance(security, dict):
        raise bad_request("Request body must be a JSON object")
    _check_security(security)
    await call.database.set_security(security)
    return answer({"ok": True})


def _check_security(security: dict[str, Any]) -> None:
    for part in ("members", "admins"):
        entry = security.get(part, {})
        if not isinstance(entry, dict):
            raise bad_request(f"`{part}` must be an object")
        for kind in ("names", "roles"):
            listed = entry.get(kind, [])
            if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
                raise bad_request(f"{kind} must be a JSON list of strings")


async def get_revs_limit(call: Call) -> web.Response:
    """GET /db/_revs_limit."""
    return answer(call.database.revs_limit)


async def put_revs_limit(call: Call) -> web.Response:
    """PUT /db/_revs_limit."""
    await call.database.set_revs_limit(await _positive(call, "revs_limit"))
    return answer({"ok": True})


async def get_purged_infos_limit(call: Call) -> web.Response:
    """GET /db/_purged_infos_limit."""
    return answer(call.database.purged_infos_limit)


async def put_purged_infos_limit(call: Call) -> web.Response:
    """PUT /db/_purged_infos_limit."""
    await call.database.set_purged_infos_limit(await _positive(call, "purge_infos_limit"))
    return answer({"ok": True})


async def _positive(call: Call, name: str) -> int:
    limit = await call.json()
    if not isinstance(limit, int) or isinstance(limit, bool) or limit <= 0:
        raise bad_request(f"`{name}` must be positive integer")
    return limit


async def compact_database(call: Call) -> web.Response:
    """POST /db/_compact: the bodies of former revisions are forgotten. SQLite uses the room again by itself."""
    await call.database.compact()
    return answer({"ok": True}, 202)


async def compact_views(call: Call) -> web.Response:
    """POST /db/_compact/ddoc: an index holds nothing that could be forgotten."""
    if revisions.read(call.database.near(), f"_design/{call.path['ddoc']}") is None:
        raise not_found()
    return answer({"ok": True}, 202)


async def ensure_full_commit(_call: Call) -> web.Response:
    """POST /db/_ensure_full_commit: every answered write is on disk already."""
    return answer({"ok": True, "instance_start_time": "0"}, 201)
