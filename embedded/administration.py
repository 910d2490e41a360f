"""The server as a whole: its welcome, sessions, configuration, and the cluster that it is not."""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qs

from aiohttp import web

from embedded.auth import Authenticator
from embedded.errors import CouchError, bad_request, not_found, not_implemented, unauthorized
from embedded.http import VERSION, Call, answer, parse_count, parse_json
from embedded.uuids import next_uuid

NODE = "nonode@nohost"


async def welcome(call: Call) -> web.Response:
    """GET /."""
    return answer(
        {
            "couchdb": "Welcome",
            "version": VERSION,
            "git_sha": "embedded",
            "uuid": call.service.store.config.get("couchdb", "uuid"),
            "features": ["pluggable-storage-engines", "scheduler"],
            "vendor": {"name": "mjumbe embedded store"},
        }
    )


async def up(_call: Call) -> web.Response:
    """GET /_up."""
    return answer({"status": "ok", "seeds": {}})


async def uuids(call: Call) -> web.Response:
    """GET /_uuids."""
    count = parse_count("count", call.query.get("count", "1"))
    if count > 1000:
        raise bad_request("count parameter too large")
    headers = {"Cache-Control": "no-cache", "Pragma": "no-cache"}
    return answer({"uuids": [next_uuid() for _ in range(count)]}, headers=headers)


async def membership(_call: Call) -> web.Response:
    """GET /_membership: one node."""
    return answer({"all_nodes": [NODE], "cluster_nodes": [NODE]})


async def get_session(call: Call) -> web.Response:
    """GET /_session: who I am."""
    if call.user.name is None and call.query.get("basic") == "true":
        raise unauthorized("Please login.")
    info: dict[str, object] = {"authentication_handlers": ["cookie", "default"]}
    if call.user.handler is not None:
        info["authenticated"] = call.user.handler
    context = {"name": call.user.name, "roles": list(call.user.roles)}
    return answer({"ok": True, "userCtx": context, "info": info})


async def post_session(call: Call) -> web.Response:
    """POST /_session: a cookie for a name and a password, given as JSON or as a form."""
    body = await call.body()
    if call.request.content_type == "application/json":
        given = parse_json(body)
        if not isinstance(given, dict):
            raise bad_request("Request body must be a JSON object")
    elif call.request.content_type == "application/x-www-form-urlencoded":
        given = {name: values[0] for name, values in parse_qs(body.decode(errors="replace")).items()}
    else:
        given = {}
    name = given.get("name", given.get("username"))
    if not isinstance(name, str):
        raise bad_request("request body must contain a username")
    auth = call.service.auth
    try:
        user = await auth.log_in(name, str(given.get("password", "")), "cookie")
    except CouchError as error:
        error.headers["Set-Cookie"] = Authenticator.no_cookie_header()
        raise
    return answer(
        {"ok": True, "name": user.name, "roles": list(user.roles)}, headers={"Set-Cookie": auth.cookie_header(name)}
    )


async def delete_session(_call: Call) -> web.Response:
    """DELETE /_session: the cookie is taken back."""
    return answer({"ok": True}, headers={"Set-Cookie": Authenticator.no_cookie_header()})


async def node(_call: Call) -> web.Response:
    """GET /_node/_local."""
    return answer({"name": NODE})


async def all_config(call: Call) -> web.Response:
    """GET /_node/x/_config."""
    sections = {name: dict(section) for name, section in call.service.store.config.all().items()}
    return answer(sections | {"admins": call.service.auth.admins()})


async def config_section(call: Call) -> web.Response:
    """GET /_node/x/_config/section; an unknown one is empty."""
    name = call.path["section"]
    return answer(call.service.auth.admins() if name == "admins" else dict(call.service.store.config.section(name)))


async def get_config(call: Call) -> web.Response:
    """GET /_node/x/_config/section/key."""
    section, key = call.path["section"], call.path["key"]
    value = call.service.auth.admins().get(key) if section == "admins" else call.service.store.config.get(section, key)
    if value is None:
        raise not_found("unknown_config_value")
    return answer(value)


async def put_config(call: Call) -> web.Response:
    """PUT /_node/x/_config/section/key: answers the old value, or an empty text."""
    value = await call.json()
    if not isinstance(value, str):
        raise bad_request("The value of a configuration key must be a JSON string")
    section, key = call.path["section"], call.path["key"]
    value = value.strip()
    if section == "admins":
        if key == call.service.auth.own_admin:
            raise not_implemented("Another password for the admin that --admin names")
        if not value.startswith("-pbkdf2"):
            value = await asyncio.to_thread(Authenticator.hash_admin, value)
    return answer(call.service.store.config.put(section, key, value))


async def delete_config(call: Call) -> web.Response:
    """DELETE /_node/x/_config/section/key: answers the old value."""
    old = call.service.store.config.delete(call.path["section"], call.path["key"])
    if old is None:
        raise not_found("unknown_config_value")
    return answer(old)
