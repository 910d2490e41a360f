"""/api/v2/monitoring: the counters that CHT's dashboards and alerts read. -1 stands for what cannot be had."""

import platform
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from flask import Blueprint
from flask.typing import ResponseReturnValue
from pydantic import BaseModel, ConfigDict, Field

from api.context import Context, context
from api.health import couch_version
from api.openapi import describe, package_version
from mjumbe import documents, states
from mjumbe.couch import CouchError, Database, UnavailableError, sequence_number
from mjumbe.states import State
from mjumbe.status import CHECKPOINT_ID

UNKNOWN = -1
WEEK_MS = 7 * 86_400_000
LAST = 100
STARTED = time.monotonic()

# CHT's names, and the states that each counts.
COUNTERS: Mapping[str, tuple[State, ...]] = {
    "due": (State.PENDING, State.FORWARDED_TO_GATEWAY, State.RECEIVED_BY_GATEWAY, State.FORWARDED_BY_GATEWAY),
    "scheduled": (State.SCHEDULED,),
    "muted": (State.MUTED, State.DENIED, State.CLEARED, State.DUPLICATE),
    "failed": (State.FAILED,),
    "delivered": (State.SENT, State.DELIVERED),
}
# The groups of medic-sms/messages_by_last_updated_state, and the states in them.
GROUPS: Mapping[str, tuple[State, ...]] = {
    "pending": COUNTERS["due"],
    "final": (State.SENT, State.DELIVERED, State.FAILED),
    "muted": COUNTERS["muted"],
}

blueprint = Blueprint("monitoring", __name__)


class MessageCounts(BaseModel):
    """Outgoing messages."""

    due: int = Field(description="Waiting to be sent, or on their way.")
    scheduled: int
    muted: int = Field(description="Never sent: refused, cleared, muted or duplicate.")
    failed: int
    delivered: int = Field(description="On the network or on the handset.")


class Outgoing(BaseModel):
    """Outgoing messages, counted four ways."""

    state: MessageCounts = Field(description="All of them.")
    total: MessageCounts = Field(description="The same, under its newer name.")
    seven_days: MessageCounts = Field(description="Those that were due within the last seven days.")
    last_hundred: dict[str, dict[str, int]] = Field(description="Of each group, the last hundred, by state.")


class Messaging(BaseModel):
    """Messages."""

    outgoing: Outgoing


class Monitoring(BaseModel):
    """As in CHT 4; -1 stands for what cannot be had."""

    model_config = ConfigDict(extra="allow")
    version: dict[str, Any]
    couchdb: dict[str, dict[str, Any]]
    date: dict[str, Any]
    sentinel: dict[str, int] = Field(description="`backlog`: changes that the sentinel has not looked at yet.")
    messaging: Messaging


@blueprint.get("/api/v2/monitoring")
@blueprint.get("/api/v1/monitoring")
@describe("Counters for monitoring", "In CHT's shape.", tag="health", answers={200: Monitoring})
def show() -> ResponseReturnValue:
    """Answers while CouchDB is away, too."""
    here = context()
    with here.inspection():
        couchdb = couch_version(here)
        known = _Known(couchdb is not None)
        return {
            "version": {"app": package_version(), "python": platform.python_version(), "couchdb": couchdb},
            "couchdb": {role: _database(database, known) for role, database in _databases(here).items()},
            "date": {"current": documents.milliseconds(states.now()), "uptime": round(time.monotonic() - STARTED, 3)},
            "sentinel": {"backlog": known.or_(UNKNOWN, lambda: _backlog(here))},
            "messaging": {"outgoing": _outgoing(here.couch.main, known)},
        }


class _Known:
    """Figures that CouchDB is asked for, as long as it answers: each would wait for it anew."""

    def __init__(self, there: bool) -> None:
        self._there = there

    def or_(self, otherwise: Any, figure: Callable[[], Any]) -> Any:
        """The figure; `otherwise` when it cannot be had."""
        if not self._there:
            return otherwise
        try:
            return figure()
        except UnavailableError:
            self._there = False
        except CouchError:
            pass
        return otherwise


def _databases(here: Context) -> Mapping[str, Database]:
    couch = here.couch
    return {"medic": couch.main, "sentinel": couch.sentinel, "callbacks": couch.callbacks, "vault": couch.vault}


def _database(database: Database, known: _Known) -> dict[str, Any]:
    info = known.or_({}, database.info)
    sizes = info.get("sizes") or {}
    active, file = sizes.get("active") or 0, sizes.get("file") or 0
    return {
        "name": database.name,
        "update_sequence": sequence_number(info.get("update_seq"), UNKNOWN),
        "doc_count": info.get("doc_count", UNKNOWN),
        "doc_del_count": info.get("doc_del_count", UNKNOWN),
        "fragmentation": round(file / active, 2) if active else UNKNOWN,
    }


def _backlog(here: Context) -> int:
    """Changes behind the sentinel's checkpoint."""
    checkpoint = here.couch.sentinel.get(CHECKPOINT_ID)
    if checkpoint is None:
        return UNKNOWN
    changes = here.couch.main.changes(str(checkpoint["seq"]), limit=1, docs=False)
    return len(changes.changes) + changes.pending


def _outgoing(database: Database, known: _Known) -> dict[str, Any]:
    unknown = dict.fromkeys(COUNTERS, UNKNOWN)
    total = known.or_(unknown, lambda: _counts(_by_state(database)))
    return {
        "state": total,
        "total": total,
        "seven_days": known.or_(unknown, lambda: _counts(_by_state_of_week(database))),
        "last_hundred": {
            group: known.or_(dict.fromkeys(names, UNKNOWN), partial(_last_hundred, database, group))
            for group, names in GROUPS.items()
        },
    }


def _counts(by_state: Mapping[str, int]) -> dict[str, int]:
    return {name: sum(by_state.get(state, 0) for state in counted) for name, counted in COUNTERS.items()}


def _by_state(database: Database) -> dict[str, int]:
    rows = database.view("mjumbe", "messages", start_key=["state"], end_key=["state", {}], group_level=2)
    return {str(row.key[1]): int(row.value) for row in rows}


def _by_state_of_week(database: Database) -> dict[str, int]:
    now = documents.milliseconds(states.now())
    counts = {}
    for state in (state for counted in COUNTERS.values() for state in counted):
        rows = database.view(
            "mjumbe", "messages", start_key=["state", state, now - WEEK_MS], end_key=["state", state, now]
        )
        counts[str(state)] = int(rows[0].value) if rows else 0
    return counts


def _last_hundred(database: Database, group: str) -> dict[str, int]:
    rows = database.view(
        "medic-sms",
        "messages_by_last_updated_state",
        start_key=[group, {}],
        end_key=[group],
        descending=True,
        reduce=False,
        limit=LAST,
    )
    found = [row.key[2] for row in rows]
    return {str(state): found.count(state) for state in GROUPS[group]}
