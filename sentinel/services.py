"""The SMS services as the outbox sees them: which one takes a message, and which are held."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace

import structlog

from mjumbe import gateways, states
from mjumbe.credentials import CredentialError
from mjumbe.documents import ANY_ROUTE, DeliveryReport, Route, milliseconds, read_moment
from mjumbe.gateways import PHONE_GATEWAY
from mjumbe.gateways.base import Failure, Outcome, Wiring
from mjumbe.settings import Settings
from mjumbe.status import ServiceStatus
from sentinel.service import Service, say_change

log = structlog.get_logger(__name__)

REFRESH_SECONDS = 2.0

Credential = Callable[[str], str | None]


class Services:
    """The configured services in the order in which they are tried, rebuilt when settings or credentials change.

    None are there before the first `refresh`.
    """

    def __init__(
        self,
        settings: Callable[[], Settings],
        credential: Credential,
        fence: Callable[[], None],
        address_of: Callable[[str], str | None] = lambda number: None,
        last_poll: Callable[[], str | None] = lambda: None,
        before: Mapping[str, ServiceStatus] | None = None,
    ) -> None:
        """`credential` raises CredentialError for one that cannot be read.

        `last_poll` tells when a phone last polled, `before` how the services were under the leader before.
        """
        self._address_of = address_of
        self._last_poll = last_poll
        self._settings = settings
        self._credential = credential
        self._fence = fence
        self._before = dict(before or {})
        self._services: dict[str, Service] = {}
        self._made_of: dict[str, object] = {}
        self._troubles: dict[str, str | None] = {}  # why a service cannot be used as it is configured
        self._since: dict[str, str] = {}  # when a service's trouble began
        self._began = states.timestamp(states.now())
        self._phone = ServiceStatus()
        self._polled: str | None = None  # when a phone last polled, as far as we looked
        self._heard = time.monotonic()  # the same by a clock that nobody sets, and not before our start
        self._checked = -math.inf  # monotonic
        self._said: str | None = None

    def refresh(self) -> None:
        """Renew what changed, at most every REFRESH_SECONDS. Called by one thread."""
        if time.monotonic() - self._checked < REFRESH_SECONDS:
            return
        self._checked = time.monotonic()
        settings = self._settings()
        self._look_for_the_phone(settings)
        for name, definition in gateways.SERVICES.items():
            limits = definition.section(settings)
            made_of = (limits, settings.sms.reply_to, self._key(definition.outgoing_credential))
            trouble = self._trouble(name, settings)
            if trouble != self._troubles.get(name):
                self._since[name] = states.timestamp(states.now())
            self._troubles[name] = trouble
            if self._made_of.get(name) != made_of:
                self._made_of[name] = made_of
                gateway = definition.build(Wiring(settings, self._key, self._fence, self._address_of))
                if name in self._services:
                    self._services[name].change(gateway, limits)
                else:
                    self._services[name] = Service(name, gateway, limits, self._before.get(name))

    def _look_for_the_phone(self, settings: Settings) -> None:
        """See whether a phone polls, if one is to.

        A phone has `silent_after` from our start on: while we were down, it could not poll.
        """
        if PHONE_GATEWAY not in self.order():
            return
        before, polled = self._phone, self._last_poll()
        if polled and polled != self._polled:
            ago = milliseconds(states.now()) - (read_moment(polled) or 0)
            self._polled, self._heard = polled, max(self._heard, time.monotonic() - max(ago, 0) / 1000)
        if time.monotonic() - self._heard < settings.sms.medic_gateway.silent_after:
            self._phone = ServiceStatus(last_success=polled)
        else:
            reason = f"no phone has polled since {polled}" if polled else "no phone has polled yet"
            self._phone = ServiceStatus(True, reason, polled or self._began, last_success=polled)
        if self._phone.held != before.held:
            say_change(PHONE_GATEWAY, self._phone)

    def order(self, route: Route = ANY_ROUTE) -> list[str]:
        """The services of a route: the one it is bound to, else `outgoing_service` and its fallbacks.

        Those that have just failed come last, but they come: the others may be held for much longer. None when there is
        no service of the name that a route is bound to.
        """
        order = [name for name in gateways.NAMES if name == route.via] if route.via else self._settings().sms.order
        return sorted((name for name in order if name not in route.without), key=lambda name: name in route.last)

    def choose(self, route: Route) -> Service | str | None:
        """The first service that takes messages now: a Service, the name of the polling phone gateway, or None.

        Passed over is what is not configured, held, or over its rate; what is only busy is waited for. One that has
        fallen silent is the last resort: a phone that does not poll now finds at its next poll what was left to it.
        """
        resort: Service | str | None = None
        for name in self.order(route):
            service = self._services.get(name)
            if name == PHONE_GATEWAY:
                if not self._phone.held:
                    return name
                resort = resort or name
            # Judged by the settings that it was made of: newer ones may complete what it still lacks.
            elif service is not None and not self._troubles[name]:
                room = service.room()
                if service.is_silent() and not service.status.held:
                    resort = resort or (service if room else None)
                elif room:
                    return service
                elif not (service.status.held or service.is_over_rate()):
                    return None
        return resort

    def reported(self, report: DeliveryReport) -> None:
        """A report was new: what it says of the service. For any thread."""
        service = self._services.get(report.gateway)
        if service is not None:
            service.reported(report)

    def is_stuck(self, route: Route) -> bool:
        """Whether none of a route's services takes messages: all of them are held, or not configured."""
        return not any(self._is_usable(name) for name in self.order(route))

    def usable(self) -> list[Service]:
        """The services that we call and that are configured, in use or not."""
        return [service for name, service in list(self._services.items()) if not self._troubles[name]]

    def goes_elsewhere(self, route: Route, service: str, outcome: Outcome) -> bool:
        """Whether a message that `service` surely did not take goes to another service at once."""
        if outcome.failure is not Failure.RETRY or outcome.personal:
            return False
        return any(self._is_usable(name) for name in self.order(route) if name not in route.last | {service})

    def _is_usable(self, name: str) -> bool:
        if name == PHONE_GATEWAY:
            return not self._phone.held
        service = self._services.get(name)
        return service is not None and not self._troubles[name] and not service.status.held

    def _trouble(self, name: str, settings: Settings) -> str | None:
        """Why a service cannot be used as it is configured, as a sentence."""
        try:
            return next(iter(gateways.missing(name, settings, self._credential)), None)
        except CredentialError as error:
            return f"for the sentinel, {error}"

    def _key(self, credential_id: str) -> str | None:
        """A credential; None also for one that cannot be read, of which `_trouble` tells."""
        with suppress(CredentialError):
            return self._credential(credential_id)
        return None

    def status(self) -> Mapping[str, ServiceStatus]:
        """Every service: those in the order, with why they are held or cannot be used, and the others."""
        others = {name: service.status for name, service in list(self._services.items())}
        return others | dict(self._in_order())

    def _in_order(self) -> Iterator[tuple[str, ServiceStatus]]:
        for name in self.order():
            status = self._phone if name == PHONE_GATEWAY else self._services[name].status
            if trouble := self._troubles.get(name):
                status = replace(status, held=True, reason=trouble, since=self._since.get(name))
            yield name, status

    def say_if_none(self) -> None:
        """Log once, not once a message, that no service takes messages and why for each."""
        statuses = dict(self._in_order())
        said = None
        if all(status.held for status in statuses.values()):
            said = "; ".join(f"{name}: {status.reason}" for name, status in statuses.items())
        if said != self._said and said is not None:
            log.error("No active SMS service", reasons=said)
        self._said = said
