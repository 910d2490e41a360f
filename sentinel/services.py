"""The SMS services as the outbox sees them: which one takes a message, how much at once, and which are held."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime

import structlog

from mjumbe import gateways, states
from mjumbe.documents import ANY_ROUTE, DeliveryReport, Route, milliseconds, read_moment
from mjumbe.gateways import PHONE_GATEWAY
from mjumbe.gateways.base import Failure, Gateway, Outcome, Wiring
from mjumbe.settings import ServiceSettings, Settings
from mjumbe.states import State
from mjumbe.status import ServiceStatus

log = structlog.get_logger(__name__)

PROBE_SECONDS = 60.0  # a held service is asked once a minute whether it works again
BREAKER_FAILURES = 5  # requests that fail in a row before a service is left in peace
BREAKER_SECONDS = 5.0  # at first; doubled at each failed probe, up to PROBE_SECONDS
LEFT_ALONE_SECONDS = 5.0  # after which a held service would have been asked again, if a message waited for it
REFRESH_SECONDS = 2.0
# A service that has answered nothing for so long, though it was asked, is waited for no more when another can take the
# message: usually an answer comes within 2 s, but a hanging one would take all of `read_timeout`.
SILENT_SECONDS = 3.0

Credential = Callable[[str], str | None]


class Service:
    """One service that we call: its gateway, its limits, and its health. Safe for many threads."""

    def __init__(
        self, name: str, gateway: Gateway, limits: ServiceSettings, before: ServiceStatus | None = None
    ) -> None:
        """`before`: how the service was, as far as is known; what held it then is asked anew."""
        self.name = name
        self.gateway = gateway
        self.limits = limits
        self.status = replace(before or ServiceStatus(), held=False, reason=None, since=None)
        self._lock = threading.Lock()
        self._in_flight = 0
        self._failures = 0
        self._held_until = 0.0  # monotonic
        self._told = False  # the service itself said that it takes nothing; otherwise its failures did
        self._doubted = False  # it takes messages that it then cannot send, so that only a report shows that it works
        self._probes: set[str] = set()  # the references of what it took since
        self._tokens = self._burst = max(1.0, limits.max_per_second or 0.0)
        self._filled = self._heard = time.monotonic()

    def room(self) -> int:
        """How many requests may start now. A held service gets single probes."""
        with self._lock:
            if self.status.held:
                return 1 if time.monotonic() >= self._held_until and self._in_flight == 0 else 0
            free = self.limits.concurrency - self._in_flight
            return min(free, self._fill()) if self.limits.max_per_second else free

    @property
    def batch_size(self) -> int:
        """Messages for the next request: a probe of a held service risks a single one."""
        return 1 if self.status.held else self.limits.batch_size

    def is_over_rate(self) -> bool:
        """Whether only its rate keeps it from taking another request."""
        with self._lock:
            return bool(self.limits.max_per_second) and self._in_flight < self.limits.concurrency and self._fill() < 1

    def is_silent(self) -> bool:
        """Whether requests are under way and none has been answered for SILENT_SECONDS."""
        with self._lock:
            return self._in_flight > 0 and time.monotonic() - self._heard > SILENT_SECONDS

    def _fill(self) -> int:
        """The requests that the rate allows now: a bucket that fills with `max_per_second`."""
        now = time.monotonic()
        rate = self.limits.max_per_second or 0.0
        self._tokens = min(self._burst, self._tokens + (now - self._filled) * rate)
        self._filled = now
        return int(self._tokens)

    def started(self) -> None:
        """A request is about to be made."""
        with self._lock:
            if self._in_flight == 0:
                self._heard = time.monotonic()
            self._in_flight += 1
            self._tokens -= 1

    def finished(self) -> None:
        """A request is over, its results stored."""
        with self._lock:
            self._in_flight -= 1

    def answered(self, outcomes: list[Outcome]) -> bool:
        """Draw from a request's outcomes how the service is; answers whether it became held or free."""
        now = states.timestamp(states.now())
        with self._lock:
            self._heard = time.monotonic()
            before = self.status
            paused = before.held and time.monotonic() < self._held_until
            hold = next((o for o in outcomes if o.failure in (Failure.CONFIGURATION, Failure.QUOTA)), None)
            failed = all(o.failure in (Failure.RETRY, Failure.AMBIGUOUS) and not o.personal for o in outcomes)
            if hold is not None:
                self._told = True
                self._hold(hold.details, _seconds_until(hold.retry_at) or PROBE_SECONDS, now)
            elif paused and (failed or self._told):
                # It was under way when the pause began: only a probe's failure makes the next pause longer, and only
                # a probe's success ends one that the service itself asked for.
                status = self.status
                self.status = replace(status, last_failure=now) if failed else replace(status, last_success=now)
            elif failed:
                self._told = False
                self._failures += 1
                self.status = replace(self.status, last_failure=now)
                if self._failures >= BREAKER_FAILURES:
                    doublings = min(self._failures - BREAKER_FAILURES, 10)
                    pause = min(PROBE_SECONDS, BREAKER_SECONDS * 2**doublings)
                    # Not how often by now: a reason that stays is logged once.
                    self._hold(f"{outcomes[0].details}, {BREAKER_FAILURES} times in a row", pause, now)
            elif self._doubted:
                self._probes.update(outcome.ref for outcome in outcomes if outcome.ref)
                self._held_until = time.monotonic() + PROBE_SECONDS
                self.status = replace(self.status, last_success=now)
            else:
                self._free()
                self.status = replace(self.status, last_success=now)
        if self.status.held != before.held:
            _say_change(self.name, self.status)
        return self.status.held != before.held

    def reported(self, report: DeliveryReport) -> None:
        """Draw from what became of a message how the service is that took it: a phone that may not send SMS takes
        every message, and fails each. It is held, until a message that it took since is reported sent."""
        with self._lock:
            before = self.status
            if report.state is State.FAILED and report.failure == Failure.CONFIGURATION:
                self._doubted = self._told = True
                self._hold(report.summary, PROBE_SECONDS, states.timestamp(states.now()))
            elif report.state in (State.SENT, State.DELIVERED) and report.ref in self._probes:
                self._free()
        if self.status.held != before.held:
            _say_change(self.name, self.status)

    def is_left_alone(self) -> bool:
        """Whether its failures hold it, and no message waits that would have asked it again."""
        with self._lock:
            since = time.monotonic() - self._held_until
            return self._failed_only() and self._in_flight == 0 and since > LEFT_ALONE_SECONDS

    def recovered(self) -> None:
        """It answers again, so that its failures hold it no more. What it said itself only a message can ask anew."""
        with self._lock:
            if not self._failed_only():
                return
            self._free()
        _say_change(self.name, self.status)

    def _failed_only(self) -> bool:
        return self.status.held and not (self._told or self._doubted)

    def learn_balance(self, balance: str | None) -> None:
        """The service said what is left in the account."""
        with self._lock:
            self.status = replace(self.status, balance=balance or self.status.balance)

    def _free(self) -> None:
        self._failures = 0
        self._doubted = False
        self._probes.clear()
        self.status = replace(self.status, held=False, reason=None, since=None)

    def _hold(self, reason: str, seconds: float, now: str) -> None:
        self._held_until = time.monotonic() + seconds
        self.status = replace(self.status, held=True, reason=reason, since=self.status.since or now, last_failure=now)


def _seconds_until(moment: datetime | None) -> float | None:
    return max(1.0, (moment - states.now()).total_seconds()) if moment else None


class Services:
    """The configured services in the order in which they are tried, rebuilt when settings or credentials change."""

    def __init__(
        self,
        settings: Callable[[], Settings],
        credential: Credential,
        fence: Callable[[], None],
        address_of: Callable[[str], str | None] = lambda number: None,
        last_poll: Callable[[], str | None] = lambda: None,
        before: Mapping[str, ServiceStatus] | None = None,
    ) -> None:
        """`last_poll` tells when a phone last polled, `before` how the services were under the leader before."""
        self._address_of = address_of
        self._last_poll = last_poll
        self._settings = settings
        self._credential = credential
        self._fence = fence
        self._before = dict(before or {})
        self._services: dict[str, Service] = {}
        self._made_of: dict[str, object] = {}
        self._troubles: dict[str, str | None] = {}
        self._since: dict[str, str] = {}  # when a service's trouble began
        self._began = states.timestamp(states.now())
        self._phone = ServiceStatus()
        self._checked = 0.0
        self._said: str | None = None

    def refresh(self) -> bool:
        """Rebuild what changed, at most every REFRESH_SECONDS; answers whether anything did. Called by one thread."""
        if time.monotonic() - self._checked < REFRESH_SECONDS:
            return False
        self._checked = time.monotonic()
        settings = self._settings()
        changed = self._look_for_the_phone(settings)
        for name, definition in gateways.SERVICES.items():
            made_of = (
                definition.section(settings),
                settings.sms.reply_to,
                self._credential(definition.outgoing_credential),
            )
            trouble = self._trouble(name, settings)
            if trouble != self._troubles.get(name):
                self._since[name] = states.timestamp(states.now())
            self._troubles[name] = trouble
            if self._made_of.get(name) != made_of:
                self._made_of[name] = made_of
                known = self._services.get(name)
                self._services[name] = Service(
                    name,
                    definition.build(Wiring(settings, self._credential, self._fence, self._address_of)),
                    definition.section(settings),
                    known.status if known else self._before.get(name),
                )
                changed = True
        return changed

    def _look_for_the_phone(self, settings: Settings) -> bool:
        """See whether a phone polls, if one is to; answers whether it fell silent or was heard of again.

        A phone has `silent_after` from our start on: while we were down, it could not poll.
        """
        if PHONE_GATEWAY not in self.order():
            return False
        before, polled = self._phone, self._last_poll()
        silent = milliseconds(states.now()) - (read_moment(max(polled or "", self._began)) or 0)
        if silent < settings.sms.medic_gateway.silent_after * 1000:
            self._phone = ServiceStatus(last_success=polled)
        else:
            reason = f"no phone has polled since {polled}" if polled else "no phone has polled yet"
            self._phone = ServiceStatus(True, reason, polled or self._began, last_success=polled)
        if self._phone.held != before.held:
            _say_change(PHONE_GATEWAY, self._phone)
        return self._phone.held != before.held

    def order(self, route: Route = ANY_ROUTE) -> list[str]:
        """The services of a route: the one it is bound to, else `outgoing_service` and its fallbacks.

        Those that have just failed come last, but they come: the others may be held for much longer.
        """
        sms = self._settings().sms
        order = [route.via] if route.via else sms.order
        return sorted((name for name in order if name not in route.without), key=lambda name: name in route.last)

    def choose(self, route: Route) -> "Service | str | None":
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
        return next(iter(gateways.missing(name, settings, self._credential)), None)

    def status(self) -> Mapping[str, ServiceStatus]:
        """Every service: those in the order, with why they are held or cannot be used, and the others."""
        others = {name: service.status for name, service in list(self._services.items())}
        return others | dict(self._in_order())

    def _in_order(self) -> Iterator[tuple[str, ServiceStatus]]:
        for name in self.order():
            service = self._services.get(name)
            status = self._phone if name == PHONE_GATEWAY else service.status if service else ServiceStatus()
            trouble = self._troubles[name] if service else self._trouble(name, self._settings())
            if trouble:
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


def _say_change(service: str, status: ServiceStatus) -> None:
    if status.held:
        log.warning("a service is held", service=service, reason=status.reason)
    else:
        log.info("a service works again", service=service)
