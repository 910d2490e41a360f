"""How the SMS services stand, for people: what the API's `gateways` and the command show."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mjumbe import gateways, states
from mjumbe.couch import Couch
from mjumbe.gateways import NAMES, PHONE_GATEWAY, SERVICES, is_enabled
from mjumbe.gateways.base import KEY_IN_QUERY, Check, Wiring
from mjumbe.polling_phones import PollingPhones
from mjumbe.settings import Settings
from mjumbe.status import LEADER_ID, ServiceStatus, read_status

KEY_PLACEHOLDER = "?key=YOUR-KEY"
POLL_PATH = "/api/sms"
TEST_TEXT = "mjumbe: a test message."


@dataclass(frozen=True, slots=True)
class GatewayOverview:
    """One service. Times are ISO 8601 in UTC; `today` counts messages whose state last changed today, by state."""

    name: str
    place: int | None  # 1 is tried first; None when the settings do not use it
    enabled: bool
    configured: bool
    missing: list[str]  # sentences that say what to do
    status: ServiceStatus
    today: dict[str, int]
    callback_urls: dict[str, str]  # by what is posted there, for the service's dashboard

    @property
    def held(self) -> bool:
        """Whether it takes no messages for now although it is configured."""
        return self.configured and self.status.held


def overview(couch: Couch, settings: Settings, credential: Callable[[str], str | None]) -> list[GatewayOverview]:
    """All services, those in use first and in their order. Raises UnavailableError."""
    order = settings.sms.order
    statuses = read_status(couch.sentinel.get(LEADER_ID) or {}).services
    counts = _today(couch)
    names = sorted(NAMES, key=lambda name: order.index(name) if name in order else len(order))
    return [_one(name, order, settings, credential, statuses, counts) for name in names]


def check(name: str, phones: PollingPhones, settings: Settings, credential: Callable[[str], str | None]) -> Check:
    """Whether a service takes our credentials, by its cheapest call; of the phone gateway, whether a phone polls."""
    if name == PHONE_GATEWAY:
        return phones.check(settings)
    return SERVICES[name].build(Wiring(settings, credential)).check()


def _one(
    name: str,
    order: Sequence[str],
    settings: Settings,
    credential: Callable[[str], str | None],
    statuses: Mapping[str, ServiceStatus],
    counts: Mapping[str, dict[str, int]],
) -> GatewayOverview:
    missing = gateways.missing(name, settings, credential)
    return GatewayOverview(
        name=name,
        place=order.index(name) + 1 if name in order else None,
        enabled=is_enabled(name, settings),
        configured=not missing,
        missing=missing,
        status=statuses.get(name, ServiceStatus()),
        today=counts.get(name, {}),
        callback_urls=_callback_urls(name, settings.public_url or "https://YOUR-SERVER"),
    )


def _today(couch: Couch) -> dict[str, dict[str, int]]:
    """By service and state: the messages whose state last changed today (UTC)."""
    day = states.timestamp(states.now())[:10]
    counts: dict[str, dict[str, int]] = {}
    for name in NAMES:
        rows = couch.main.view(
            "mjumbe-figures", "by_service", start_key=[name, day], end_key=[name, day, {}], group_level=3
        )
        counts[name] = {str(row.key[2]): int(row.value) for row in rows}
    return counts


def _callback_urls(name: str, public_url: str) -> dict[str, str]:
    if name == PHONE_GATEWAY:
        return {"poll": public_url + POLL_PATH}
    callbacks = SERVICES[name].callbacks
    if callbacks is None:
        return {}
    key = KEY_PLACEHOLDER if callbacks.proof == KEY_IN_QUERY else ""
    # A path of CHT's, where there is one, is the one that its users know: the first alias.
    paths = [*callbacks.paths().items(), *reversed([*callbacks.aliases.items()])]
    return {route: f"{public_url}{path}{key}" for path, route in paths}
