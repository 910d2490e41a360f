"""Single documents: GET, HEAD, PUT, DELETE, POST to the database, and `_local` documents."""

from __future__ import annotations

import asyncio
import json
from itertools import chain
from typing import Any
from urllib.parse import quote

from aiohttp import web

from embedded import auth
from embedded.engine import edits, revisions
from embedded.engine.edits import Edit
from embedded.engine.index import ViewFunctions
from embedded.engine.javascript import MapFunctions
from embedded.engine.revisions import Document
from embedded.errors import CouchError, bad_request, not_found, not_implemented
from embedded.http import MAX_DOCUMENT, Call, answer, answer_text, compact, parse_json
from embedded.uuids import next_uuid

DESIGN = "_design/"
LOCAL = "_local/"

# Underscore fields that CouchDB takes in a document; those that only describe a stored one are dropped.
_SPECIAL = frozenset(
    (
        "_id",
        "_rev",
        "_deleted",
        "_revisions",
        "_revs_info",
        "_conflicts",
        "_deleted_conflicts",
        "_local_seq",
        "_attachments",
    )
)
# Functions of a design document that would have to be run at every write or that have URLs of their own. The latter
# answer 501 when they are called; one that guards writes must not be stored, because it would not guard them.
_GUARD = "validate_doc_update"


def check_id(doc_id: object) -> str:
    """A document's id as CouchDB takes it. Raises 400."""
    if not isinstance(doc_id, str):
        raise CouchError(400, "illegal_docid", "Document id must be a string")
    if not doc_id:
        raise CouchError(400, "illegal_docid", "Document id must not be empty")
    if doc_id in (DESIGN, LOCAL):
        raise CouchError(400, "illegal_docid", f"Illegal document id `{doc_id}`")
    if doc_id.startswith("_") and not doc_id.startswith((DESIGN, LOCAL)):
        raise CouchError(400, "illegal_docid", "Only reserved document ids may start with underscore.")
    return doc_id


def parse_document(document: object, doc_id: str | None = None) -> tuple[Edit, dict[str, Any]]:
    """A document from a client as an edit, and its fields without the special ones.

    `doc_id` is the id from the URL, which rules; without one the document's own, or a new one. Raises 400 for what is
    no document, 413 for one that is too large, 501 for attachments.
    """
    if not isinstance(document, dict):
        raise bad_request("Document must be a JSON object")
    fields: dict[str, Any] = {}
    for name, value in document.items():
        if not name.startswith("_"):
            fields[name] = value
        elif name not in _SPECIAL:
            raise CouchError(400, "doc_validation", f"Bad special document member: {name}")
    if not isinstance(document.get("_deleted", False), bool):
        raise CouchError(400, "doc_validation", "Bad special document member: _deleted")
    if document.get("_attachments"):
        raise not_implemented("Attachments")
    if doc_id is None:
        doc_id = document["_id"] if "_id" in document else next_uuid()
    doc_id = check_id(doc_id)
    rev = document.get("_rev")
    edit = Edit(
        doc_id,
        None if rev is None else revisions.parse_rev(rev),
        document.get("_deleted", False),
        body_text(doc_id, fields),
    )
    return edit, fields


def made_elsewhere(edit: Edit, document: dict[str, Any]) -> Document:
    """A document that says itself which revision it is, and with `_revisions` which came before. Raises 400, and 501
    for revision ids that are not of letters and digits: answers and the history are put together of them."""
    if edit.parent is None:
        raise bad_request(f"The document {edit.id!r} needs a `_rev` when new_edits is false")
    generation, _, digest = edit.parent.partition("-")
    line = document.get("_revisions", {"start": int(generation), "ids": [digest]})
    ids = line.get("ids") if isinstance(line, dict) else None
    if not isinstance(ids, list) or not all(isinstance(one, str) and one for one in ids):
        raise CouchError(400, "doc_validation", "RevId isn't a string")
    if (line.get("start"), ids[:1]) != (int(generation), [digest]):
        raise bad_request(f"The `_rev` of the document {edit.id!r} is not the first of its `_revisions`")
    if not all(one.isascii() and one.isalnum() for one in ids):
        raise not_implemented("A revision id with other characters than letters and digits")
    return Document(edit.id, edit.parent, edit.deleted, edit.body, history=",".join(ids[1:]))


def body_text(doc_id: str, fields: dict[str, Any]) -> str:
    """The fields as they are stored. Raises 413."""
    text = compact(fields)
    if (len(text) if text.isascii() else len(text.encode())) > MAX_DOCUMENT:
        raise CouchError(413, "document_too_large", doc_id)
    return text


async def guard(call: Call, edit: Edit, fields: dict[str, Any]) -> Edit:
    """What has to be checked or changed before a write: design documents, users' passwords, replications."""
    if edit.id.startswith(DESIGN):
        auth.require_db_admin(call.user, call.database.security)
        if not edit.deleted:
            await asyncio.to_thread(check_design_document, fields)
    elif call.database.name == "_users":
        if not edit.deleted:
            auth.check_user_document(edit.id, fields)
            _keep_roles(call, edit.id, fields)
        if fields.get("password") is not None:
            iterations = call.service.store.config.number("chttpd_auth", "iterations", auth.ITERATIONS)
            hashed = await asyncio.to_thread(auth.hash_password, fields, iterations)
            return Edit(edit.id, edit.parent, edit.deleted, body_text(edit.id, hashed))
    elif call.database.name == "_replicator" and not edit.deleted:
        raise not_implemented("The replication that a document in _replicator asks for")
    return edit


def _keep_roles(call: Call, doc_id: str, fields: dict[str, Any]) -> None:
    """Only admins give roles. Raises 403."""
    if call.user.is_server_admin:
        return
    found = revisions.read(call.database.near(), doc_id)
    current = json.loads(found.body).get("roles", []) if found and not found.deleted else []
    if sorted(fields["roles"]) != sorted(current):
        raise CouchError(403, "forbidden", "Only _admin may edit roles")


def check_design_document(fields: dict[str, Any]) -> None:
    """Refuse a design document that CouchDB refuses (400), and one that would be stored but not obeyed (501)."""
    if _GUARD in fields:
        raise not_implemented("A design document with validate_doc_update")
    for field, kind in (("language", str), ("options", dict), ("views", dict)):
        if not isinstance(fields.get(field, kind()), kind):
            named = "a string" if kind is str else "an object"
            raise CouchError(400, "invalid_design_doc", f"`{field}` field must be {named}")
    views = fields.get("views", {})
    of_mango = fields.get("language") == "query"
    for name, view in views.items():
        if name == "lib":
            continue
        if not isinstance(view, dict) or not isinstance(view.get("map"), dict if of_mango else str):
            kind_of_map = "an object" if of_mango else "a string"
            raise CouchError(400, "invalid_design_doc", f"`map` in {name} must be {kind_of_map}")
        if not isinstance(view.get("reduce", ""), str):
            raise CouchError(400, "invalid_design_doc", f"`reduce` in {name} must be a string")
    if views and fields.get("language", "javascript") == "javascript":
        MapFunctions(ViewFunctions.of(fields).maps).close()


def _given_rev(call: Call, in_body: str | None) -> str | None:
    """The revision a write was made from: in the body, the URL or If-Match, which have to agree. Raises 400."""
    rev = in_body
    if "rev" in call.query:
        in_url = revisions.parse_rev(call.query["rev"])
        if rev not in (None, in_url):
            raise bad_request("Document rev from request body and query string have different values")
        rev = in_url
    header = call.request.headers.get("If-Match")
    if header:
        in_header = revisions.parse_rev(header.strip('"'))
        if rev not in (None, in_header):
            raise bad_request("Document rev and etag have different values.")
        rev = in_header
    return rev


def _doc_id(call: Call) -> str:
    """The document that the path names."""
    return check_id(call.path.get("prefix", "") + call.path["doc"])


def _location(call: Call, doc_id: str) -> str:
    return f"{call.request.scheme}://{call.request.host}/{quote(call.path['db'], safe='')}/{quote(doc_id, safe='')}"


def _written(call: Call, doc_id: str, rev: str, status: int) -> web.Response:
    headers = {"ETag": f'"{rev}"', "Location": _location(call, doc_id)}
    if call.query.get("batch") == "ok" and status == 201:
        return answer({"ok": True, "id": doc_id}, 202, headers)
    return answer({"ok": True, "id": doc_id, "rev": rev}, status, headers)


async def put(call: Call) -> web.Response:
    """PUT /db/doc: a new document, or a new revision of one. A body with `_deleted` deletes."""
    call.understand("rev", "new_edits")
    if call.request.content_type.startswith("multipart/"):
        raise not_implemented("A document in parts, which are its attachments")
    doc_id = _doc_id(call)
    document = await call.json()
    edit, fields = parse_document(document, doc_id)
    if doc_id.startswith(LOCAL):
        return await _put_local(call, edit)
    edit = Edit(doc_id, _given_rev(call, edit.parent), edit.deleted, edit.body)
    edit = await guard(call, edit, fields)
    if "new_edits" in call.query and not call.flag("new_edits"):
        copied = made_elsewhere(edit, document)
        rev = await call.database.write(lambda tx: edits.graft(tx, copied))
    else:
        rev = await call.database.write(lambda tx: edits.write(tx, edit))
    return _written(call, doc_id, rev, 200 if edit.deleted else 201)


async def post(call: Call) -> web.Response:
    """POST /db: a document whose id is in the body, or made up."""
    call.understand()
    edit, fields = parse_document(await call.json_object())
    if edit.id.startswith(LOCAL):
        return await _put_local(call, edit)
    edit = await guard(call, edit, fields)
    rev = await call.database.write(lambda tx: edits.write(tx, edit))
    return _written(call, edit.id, rev, 201)


async def delete(call: Call) -> web.Response:
    """DELETE /db/doc: a deleted revision without fields. 404 if there is nothing to delete, 409 without revision."""
    call.understand("rev")
    doc_id = _doc_id(call)
    if doc_id.startswith(LOCAL):
        return await _delete_local(call, doc_id)
    _existing(call, doc_id)
    edit = await guard(call, Edit(doc_id, _given_rev(call, None), True, "{}"), {})
    rev = await call.database.write(lambda tx: edits.write(tx, edit))
    return _written(call, doc_id, rev, 200)


def _existing(call: Call, doc_id: str) -> Document:
    """The current revision of a document. Raises 404, `missing` or `deleted`."""
    document = revisions.read(call.database.near(), doc_id)
    if document is None:
        raise not_found()
    if document.deleted:
        raise not_found("deleted")
    return document


async def get(call: Call) -> web.StreamResponse:
    """GET /db/doc, the current revision or the one asked for."""
    call.understand(
        *("rev", "revs", "revs_info", "conflicts", "deleted_conflicts", "local_seq", "meta", "latest", "open_revs"),
        *("attachments", "att_encoding_info", "atts_since"),  # there are no attachments
    )
    doc_id = _doc_id(call)
    if doc_id.startswith(LOCAL):
        return _get_local(call, doc_id)
    if "open_revs" in call.query:
        return _open_revs(call, doc_id)
    if "rev" in call.query:
        _, named = named_revs(call, doc_id, [revisions.parse_rev(call.query["rev"])])[0]
        if named is None:
            raise not_found()
        document = named
    else:
        document = _existing(call, doc_id)
    extra = extra_fields(call, document)
    if extra.keys() - {"_revisions"}:
        return answer_text(document.json(extra))  # these change without a new revision: no ETag
    etag = f'"{document.rev}"'
    if call.request.headers.get("If-None-Match") == etag:
        return web.Response(status=304, headers={"ETag": etag})
    return answer_text(document.json(extra), headers={"ETag": etag})


def extra_fields(call: Call, document: Document) -> dict[str, object]:
    """The underscore fields that were asked for."""
    extra: dict[str, object] = {}
    meta = call.flag("meta")
    for name, deleted in (("conflicts", False), ("deleted_conflicts", True)):
        if call.flag(name) or meta:
            others = [leaf.rev for leaf in _others(call, document) if leaf.deleted == deleted]
            extra |= {f"_{name}": others} if others else {}
    if call.flag("revs"):
        generation = int(document.rev.partition("-")[0])
        hashes = [rev.partition("-")[2] for rev in document.revisions()]
        extra["_revisions"] = {"start": generation, "ids": hashes}
    if call.flag("revs_info") or meta:
        available = revisions.available_revs(call.database.near(), document.id)
        extra["_revs_info"] = [{"rev": rev, "status": available.get(rev, "missing")} for rev in document.revisions()]
    if call.flag("local_seq"):
        extra["_local_seq"] = document.seq
    return extra


def _others(call: Call, document: Document) -> list[Document]:
    """The conflicts of a document, best first; none for what is not its current revision."""
    current, *others = revisions.leaves(call.database.near(), document.id)
    return others if current.rev == document.rev else []


def named_revs(call: Call, doc_id: str, revs: list[str] | None) -> list[tuple[str, Document | None]]:
    """These revisions of a document, or with None all of its leaves; with `latest`, the leaves that come of them."""
    connection = call.database.near()
    leaves = revisions.leaves(connection, doc_id)
    if revs is None:
        return [(leaf.rev, leaf) for leaf in leaves]
    if call.flag("latest"):
        after = [[leaf.rev for leaf in leaves if rev in leaf.revisions()] or [rev] for rev in revs]
        revs = list(dict.fromkeys(chain.from_iterable(after)))
    return [(rev, revisions.read_rev(connection, doc_id, rev)) for rev in revs]


def _open_revs(call: Call, doc_id: str) -> web.Response:
    """The revisions named by `open_revs`, or all leaves for `all`."""
    if call.query["open_revs"] == "all":
        found = named_revs(call, doc_id, None)
        if not found:
            raise not_found()
    else:
        wanted = parse_json(call.query["open_revs"])
        if not isinstance(wanted, list):
            raise bad_request("`open_revs` must be an array of revisions, or all")
        found = named_revs(call, doc_id, [revisions.parse_rev(rev) for rev in wanted])
    rows = [
        f'{{"ok":{document.json(extra_fields(call, document))}}}' if document else compact({"missing": rev})
        for rev, document in found
    ]
    return answer_text(f"[{','.join(rows)}]")


async def copy(_call: Call) -> web.Response:
    """COPY /db/doc is not spoken."""
    raise not_implemented("COPY")


def _get_local(call: Call, doc_id: str) -> web.Response:
    document = revisions.read_local(call.database.near(), doc_id)
    if document is None:
        raise not_found()
    return answer_text(document.json(), headers={"ETag": f'"{document.rev}"'})


async def _put_local(call: Call, edit: Edit) -> web.Response:
    """CouchDB does not look for conflicts here: the revision counts on from the one that was given. Raises 400."""
    if edit.deleted:
        return await _delete_local(call, edit.id)
    generation, _, count = (_given_rev(call, edit.parent) or "0-0").partition("-")
    if generation != "0" or not (count.isascii() and count.isdecimal()):
        raise bad_request("Invalid rev format")
    rev = f"0-{int(count) + 1}"
    await call.database.write(lambda tx: edits.write_local(tx, edit.id, rev, edit.body))
    return _written(call, edit.id, rev, 201)


async def _delete_local(call: Call, doc_id: str) -> web.Response:
    if not await call.database.write(lambda tx: edits.delete_local(tx, doc_id)):
        raise not_found()
    return _written(call, doc_id, "0-0", 200)
