"""What a CouchDB needs before mjumbe works on it: the databases, the design documents, the settings."""

import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import structlog

from mjumbe import settings, states
from mjumbe.couch import ABSENT, ConflictError, Couch, CouchError, Database, NotFoundError, UnavailableError
from mjumbe.documents import INCOMING, milliseconds
from mjumbe.status import CHECKPOINT_ID

DDOCS_PATH = Path(__file__).resolve().parent.parent / "ddocs"
DDOCS_ROLE = "medic"  # the folder of the main database's design documents
OWN = "mjumbe"  # design documents whose names begin so are ours alone
STAGED = ":staged:"
# Leases and heartbeats are rewritten every few seconds: their history is of no use.
SENTINEL_REVS_LIMIT = 5
MANY_PENDING = 1_000
FUNCTION_BEGINS = re.compile(r"^function\b", re.MULTILINE)
PAUSE_SECONDS = 1.0  # between two looks at an index that is being built

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Design:
    """A design document as its folder holds it: view name → {"map": …, "reduce": …}."""

    name: str
    views: Mapping[str, Mapping[str, str]]

    @property
    def first_view(self) -> str:
        return next(iter(self.views))


def read_designs(root: Path = DDOCS_PATH / DDOCS_ROLE) -> list[Design]:
    """The design documents in `ddocs/<db>/<ddoc>/views/<view>/map.js` (and `reduce.js`)."""
    return [
        Design(folder.name, {view.name: _read_view(view) for view in sorted((folder / "views").iterdir())})
        for folder in sorted(root.iterdir())
        if folder.is_dir()
    ]


def _read_view(folder: Path) -> dict[str, str]:
    source = (folder / "map.js").read_text().strip()
    begins = FUNCTION_BEGINS.search(source)
    if begins is None:
        raise ValueError(f"{folder / 'map.js'} has no line that begins with `function`")
    # CouchDB's JavaScript takes a text that begins with `function` as it is, and anything else through a slow parser.
    view = {"map": source[begins.start() :]}
    reduce = folder / "reduce.js"
    if reduce.exists():
        view["reduce"] = reduce.read_text().strip()
    return view


def prepare(couch: Couch) -> list[str]:
    """Make what is missing, and return the names of the databases that were.

    Safe to run by several processes at once and at every start. Raises UnavailableError.
    """
    _make_users(couch)
    made = [database.name for database in couch.databases if database.create()]
    if couch.sentinel.name in made:  # CHT has one of this name, with its own documents
        couch.request("PUT", f"/{quote(couch.sentinel.name, safe='')}/_revs_limit", body=SENTINEL_REVS_LIMIT)
    _store_first(couch.main, "settings", lambda: {"settings": settings.load_defaults()})
    _store_first(
        couch.sentinel, CHECKPOINT_ID, lambda: {"seq": _first_seq(couch), "adopted": milliseconds(states.now())}
    )
    for design in read_designs():
        _install(couch.main, design)
    return made


def _first_seq(couch: Couch) -> str:
    """Where a sentinel without a checkpoint begins to read.

    What is in a database that mjumbe comes to was dealt with by whatever ran there before: it begins behind that. Where
    messages came in to mjumbe, some may be unread: an API's spool was quicker than this, or the checkpoint was lost (a
    backup without `<db>-sentinel`, CouchDB's replication, which copies no `_local` document). What was done is marked
    in the documents, so reading all of them does nothing twice.
    """
    seq = str(couch.main.info()["update_seq"])  # read first: what comes in from here on is behind it
    if not couch.main.beginning_with(INCOMING, limit=1):
        return seq
    log.warning("messages came in and there is no checkpoint, so all changes are read", database=couch.main.name)
    return "0"


def _make_users(couch: Couch) -> None:
    """CouchDB's own database of users is missing where its installation was never finished (`docker run couchdb`)."""
    try:
        couch.request("PUT", "/_users")
    except CouchError as error:
        if error.status != 412:
            raise


def _store_first(database: Database, doc_id: str, content: Callable[[], Mapping[str, Any]]) -> None:
    """Write a document that is not there yet; another process may be first, with the same."""
    if database.get(doc_id) is None:
        with suppress(ConflictError):
            database.put({"_id": doc_id, **content()})


def _install(database: Database, design: Design) -> None:
    """Bring one design document up to date, its new index built before the old one goes out of use.

    CHT's own design documents are left as they are in a database that CHT made: adding a view would rebuild all.
    """
    doc_id = f"_design/{design.name}"
    present = database.get(doc_id)
    wanted: dict[str, Any] = {"language": "javascript", "views": {k: dict(v) for k, v in design.views.items()}}
    if not design.name.startswith(OWN):
        # CHT's views, which only others ask: CouchDB need not keep them up to date meanwhile (ken_server.erl).
        wanted["autoupdate"] = False
    if present is None:
        _store_first(database, doc_id, lambda: {OWN: True, **wanted})
    elif present.get("views") != wanted["views"] and (design.name.startswith(OWN) or present.get(OWN)):
        # CouchDB shares an index between design documents with the same views: build it under another name first.
        staged = f"{STAGED}{design.name}"
        _write(database, f"_design/{staged}", wanted)
        _build(database, staged, design.first_view)
        _write(database, doc_id, {OWN: True, **wanted})
        # CouchDB closes an index that no design document is known to have, and forgets what it built of it last
        # (couch_index_server:handle_db_event); a query makes the new name known.
        _build(database, design.name, design.first_view)
        _write(database, f"_design/{staged}", {"_deleted": True})


def _write(database: Database, doc_id: str, content: Mapping[str, Any]) -> None:
    """Write over whatever revision is there; another process of the same version writes the same."""
    present = database.get(doc_id)
    with suppress(ConflictError):
        database.put({"_id": doc_id, **({"_rev": present["_rev"]} if present else {}), **content})


def _build(database: Database, design: str, view: str) -> None:
    while not is_built(database, design, view):
        time.sleep(PAUSE_SECONDS)  # the request itself waits too; CouchDB goes on building when it times out


def is_built(database: Database, design: str, view: str) -> bool:
    """Whether the index that a view is in was built by now; waits for it as long as `database` waits for an answer.

    Raises UnavailableError when CouchDB is away.
    """
    try:
        database.view(design, view, limit=0, reduce=False)
    except UnavailableError:
        database.info()  # raises when CouchDB is away rather than busy building
        return False
    except NotFoundError as error:
        if error.reason == "not_found: missing_named_view":  # ddoc_cache has the design document from before
            return False
        if error.reason not in ABSENT:
            raise
        # Another process saw first that it is built, swapped it in, and removed it.
    return True


class Indexes:
    """The indexes of our design documents, for the health check."""

    def __init__(self, couch: Couch) -> None:
        self._database = couch.main
        self._built: set[str] = set()  # by CouchDB's signature of their views

    def unbuilt(self) -> list[str]:
        """The names of our design documents that are missing or whose index is being built."""
        return [design.name for design in read_designs() if not self._is_built(design)]

    def _is_built(self, design: Design) -> bool:
        path = f"/{quote(self._database.name, safe='')}/_design/{design.name}/_info"
        try:
            index = self._database.couch.request("GET", path).get("view_index", {})
        except NotFoundError as error:
            if error.reason not in ABSENT:  # the database is missing, not the design document
                raise
            return False
        signature = str(index.get("signature"))
        pending = int(index.get("updates_pending", {}).get("total") or 0)
        # An index that nobody asks, the embedded store leaves alone. CouchDB works on each, and is behind for moments
        # when much is written: that says nothing of one that was built.
        if signature not in self._built and pending >= MANY_PENDING and index.get("updater_running"):
            return False
        self._built.add(signature)
        return True
