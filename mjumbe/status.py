"""What the leading sentinel says of itself, in `<db>-sentinel`, for the API's health checks and for standbys."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

LEADER_ID = "sentinel"
CHECKPOINT_ID = "_local/mjumbe-checkpoint"


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """One service as the outbox sees it. Times are ISO 8601 in UTC."""

    held: bool = False
    reason: str | None = None  # why it is held, in words
    since: str | None = None
    last_success: str | None = None
    last_failure: str | None = None
    balance: str | None = None  # as the service writes it, when it was last asked


@dataclass(frozen=True, slots=True)
class SentinelStatus:
    """The leader's document: who leads, when it last said so (ISO 8601, UTC), and how its services are."""

    owner: Mapping[str, Any]
    heartbeat: str
    released: bool = False
    services: Mapping[str, ServiceStatus] = field(default_factory=dict)


def read_status(doc: Mapping[str, Any]) -> SentinelStatus:
    """The record of the leader's document."""
    services = {
        str(name): ServiceStatus(**{key: value for key, value in facts.items() if key in ServiceStatus.__slots__})
        for name, facts in (doc.get("services") or {}).items()
    }
    return SentinelStatus(
        dict(doc.get("owner") or {}), str(doc.get("heartbeat") or ""), bool(doc.get("released")), services
    )
