"""What all SMS services have in common: the records that go in and out, HTTP, and the kinds of failure.

A gateway module opens with its tables, then has `send`, then the parsers of what the service posts to us. It knows
neither Flask nor CouchDB. docs/adding-a-gateway.md tells what a new one needs.
"""

import codecs
import hashlib
import hmac
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any, ClassVar, Protocol
from urllib.parse import urlsplit

import requests
from requests.utils import get_environ_proxies
from urllib3.exceptions import NewConnectionError, ProxyError

from mjumbe.documents import AS_SET, MOST_WORDS, DeliveryReport, IncomingMessage, Notice, Premium
from mjumbe.gateways.connections import FencedAdapter
from mjumbe.http_sessions import plain_session, why
from mjumbe.log import HIDDEN
from mjumbe.settings import ServiceSettings, Settings
from mjumbe.states import State
from mjumbe.text import each_text, safe_text, shortened

MOST_SAID = 400  # characters of a sentence of ours that quotes a service
LONGEST_REF = 200  # characters; the longest that is known of has 50
SHORTEST_SECRET = 6  # characters; shorter ones are parts of common words
MOST_TROUBLES = 3  # in a row, of questions about one message each


class Failure(StrEnum):
    """Why a message was not taken; what follows is decided by this alone."""

    PERMANENT = "permanent"  # this message will never go: the outcome's state is final
    RETRY = "retry"  # passing trouble: again later, a bounded number of times
    CONFIGURATION = "configuration"  # the account or the settings are wrong: hold the service, spend no attempt
    QUOTA = "quota"  # the service takes no more for now: hold it until then, spend no attempt
    AMBIGUOUS = "ambiguous"  # written, but the answer never came: it may have been sent


PASSING = frozenset({Failure.RETRY, Failure.AMBIGUOUS})  # says nothing yet of the next request


@dataclass(frozen=True, slots=True)
class Batch:
    """One request's worth of messages: one text for one or more numbers (E.164), each number once."""

    text: str = field(repr=False)
    recipients: tuple[str, ...] = field(repr=False)
    premium: Premium = AS_SET


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one recipient of a batch.

    Of the service's words MOST_WORDS characters are kept, and no reference that is longer than LONGEST_REF: CouchDB
    would refuse the document, and the outcome of what was sent would be lost.
    """

    details: str  # the service's word for it, or ours: kept in the history
    state: State | None = None  # the state to move to; None: the message stays due
    failure: Failure | None = None  # None: the service took it
    ref: str | None = None  # the service's id of the message
    code: str | None = None
    cost: str | None = None
    parts: int | None = None
    retry_at: datetime | None = None  # not before then
    most_attempts: int | None = None  # to give up after, where the service wants fewer than `sms.max_attempts`
    opted_out: bool = False  # the recipient opted out of the service's messages
    left: bool = False  # the recipient left the service: what it knew them by holds no more
    spent: bool = True  # whether it was an attempt: not where nobody could be reached, for hours perhaps
    personal: bool = False  # the recipient's own circumstances: they say nothing of how the service is

    def __post_init__(self) -> None:
        details = self.details
        if self.ref and len(self.ref) > LONGEST_REF:
            unkept = f"its reference has {len(self.ref)} characters and is not kept"
            details = f"{shortened(details, MOST_WORDS - len(unkept) - 2)}; {unkept}"
            object.__setattr__(self, "ref", None)
        object.__setattr__(self, "details", shortened(details, MOST_WORDS))
        if self.cost:
            object.__setattr__(self, "cost", shortened(self.cost, MOST_WORDS))


class SendError(Exception):
    """A request that failed as a whole: its outcome is every recipient's."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.details)
        self.outcome = outcome


class NoAnswerError(SendError):
    """A request to which no answer came: what the service thinks of us is not known."""


class FencedError(Exception):
    """This process no longer holds the right to send; nothing was sent."""


class BadCallbackError(Exception):
    """A callback that cannot be stored: `field` names what is missing or wrong, `expected` what should be there."""

    def __init__(self, field: str, expected: str) -> None:
        super().__init__(f"{field}: expected {expected}")
        self.field = field
        self.expected = expected


DEFAULT_SETTINGS = Settings()  # made once: callbacks come by the hundred a second


@dataclass(frozen=True, slots=True)
class CallbackRequest:
    """What a service posted: the query, the form's fields, headers in lower case, the raw body.

    Of a form `form` has the first value of each field, of a JSON object each member: texts as they are, all else as
    JSON. `settings` are there for parsers that need them.
    """

    query: Mapping[str, str] = field(repr=False)
    form: Mapping[str, str] = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    settings: Settings = field(default=DEFAULT_SETTINGS, repr=False)

    def required(self, field: str) -> str:
        """A field's value without outer spaces. Raises BadCallbackError when it is missing or empty."""
        value = self.form.get(field, "").strip()
        if not value:
            raise BadCallbackError(field, "a value; it is missing or empty")
        return value

    def inner(self, field: str) -> dict[str, Any]:
        """The JSON object in a field; empty when there is none."""
        try:
            value = json.loads(self.form.get(field, ""))
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}


CallbackRecord = IncomingMessage | DeliveryReport | Notice
Parser = Callable[[CallbackRequest], list[CallbackRecord]]


class Matches(Protocol):
    """Compares in constant time with the credential that an admin stored; False when there is none."""

    def __call__(self, credential_id: str, given: str, made_of: Callable[[str], str] = ...) -> bool:
        """Whether `given` is the credential, or what `made_of` makes of it: a signature, for instance."""


KEY_IN_QUERY = "the query parameter key"


def hmac_sha256(body: bytes) -> Callable[[str], str]:
    """Makes of a secret the signature of `body` under it: HMAC-SHA256 in lower-case hex."""
    return lambda secret: hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


@dataclass(frozen=True, slots=True)
class Callbacks:
    """What a service posts to us: `POST /api/v1/sms/<slug>/<route>` for each parser's route.

    `authenticate` decides by the request and the stored credentials, by its `proof` in words; what it refuses is
    answered with the HTTP status `refusal`. `parsers` turn the request into records and raise BadCallbackError.
    `aliases` are whole paths beside the family, each with its route.
    """

    slug: str
    credential: str
    authenticate: Callable[[CallbackRequest, Matches], bool]
    parsers: Mapping[str, Parser]
    proof: str = KEY_IN_QUERY
    refusal: int = 403
    aliases: Mapping[str, str] = field(default_factory=dict)

    def paths(self) -> dict[str, str]:
        """Every path that the service may post to, with its route."""
        return {**{f"/api/v1/sms/{self.slug}/{route}": route for route in self.parsers}, **self.aliases}


@dataclass(frozen=True, slots=True)
class Check:
    """What a service says of our account, asked by its cheapest call."""

    ok: bool
    says: str  # a sentence for the operator
    balance: str | None = None  # as the service writes it: "KES 1785.50"

    def __post_init__(self) -> None:
        object.__setattr__(self, "says", shortened(self.says, MOST_SAID))
        if self.balance:
            object.__setattr__(self, "balance", shortened(self.balance, MOST_WORDS))


def failed_check(service: str, secret: str, url: str, error: SendError) -> Check:
    """What came of a check that failed: only a service that answered can have refused our `secret`."""
    if isinstance(error, NoAnswerError):
        return Check(False, f"{service} could not be asked at {urlsplit(url).netloc or url}: {error}")
    return Check(False, f"{service} did not take {secret}: {error}")


@dataclass(frozen=True, slots=True)
class Inbox:
    """Messages fetched from a service, and where to go on from."""

    messages: list[IncomingMessage]
    cursor: str | None


class Gateway(ABC):
    """One service, configured. Instances are used by many threads at once."""

    inbox_ids_differ: ClassVar[bool] = False
    """Whether `inbox` names messages otherwise than callbacks do, so that they are told apart by what they say."""

    @abstractmethod
    def send(self, batch: Batch) -> list[Outcome]:
        """Give the batch to the service: one outcome a recipient, in their order. Raises SendError, FencedError."""

    @abstractmethod
    def check(self) -> Check:
        """Ask the service whether it takes our credentials. Raises nothing: trouble is an answer too."""

    def reaches(self, number: str) -> bool:
        """Whether the service can write to this number (E.164) at all."""
        return True

    def statuses(self, refs: Sequence[str]) -> list[DeliveryReport]:
        """What became of messages, for services that must be asked. Raises SendError."""
        return []

    def inbox(self, cursor: str | None) -> Inbox:
        """What came in after `cursor`, in case callbacks were missed. Raises SendError."""
        return Inbox([], cursor)


@dataclass(frozen=True, slots=True)
class Wiring:
    """What a gateway is built from."""

    settings: Settings
    credential: Callable[[str], str | None]
    fence: Callable[[], None] = lambda: None
    address_of: Callable[[str], str | None] = lambda number: None  # a service's own id for a person's number
    given: set[str] = field(
        default_factory=set, init=False, repr=False, compare=False
    )  # the secrets that `secret` gave

    def http(self, section: ServiceSettings) -> "Http":
        """HTTP with the timeouts and connections of a service's settings."""
        return Http(
            connect_timeout=section.connect_timeout,
            read_timeout=section.read_timeout,
            pool=section.concurrency + 1,  # messages, and what it is asked beside them (sentinel/polls.py)
            fence=self.fence,
            secrets=self.given,
        )

    def secret(self, credential_id: str) -> str:
        """A stored credential, fit for a header. Raises SendError (configuration) while no admin has stored one."""
        value = self.credential(credential_id)
        if not value:
            trouble = f"no credential {credential_id}"
        elif not (value.isascii() and value.isprintable()):
            trouble = f"credential {credential_id} has characters that no key has"
        else:
            self.given.add(value)
            return value
        details = f"{trouble}; PUT it to /api/v1/credentials/{credential_id}"
        raise SendError(Outcome(details, failure=Failure.CONFIGURATION))


@dataclass(frozen=True, slots=True)
class Definition:
    """One service as the rest of mjumbe sees it: every gateway module ends with its own.

    `missing` tells, beside the credential, what keeps it from being used, in sentences that say what to do.
    """

    name: str  # as in `sms.outgoing_service`
    outgoing_credential: str
    section: Callable[[Settings], ServiceSettings]
    missing: Callable[[Settings], list[str]]
    build: Callable[[Wiring], Gateway]
    callbacks: Callbacks | None


# From an answer, and the JSON in it, which is None when there is none.
Refusal = Callable[[requests.Response, Any], Outcome]

RETRY_STATUSES = frozenset({408, 425, 429})
# A proxy before the service, or Cloudflare's, gave the request on and waited in vain for its answer: RFC 9110, 15.6.5;
# https://developers.cloudflare.com/support/troubleshooting/http-status-codes/cloudflare-5xx-errors/
IN_DOUBT_STATUSES = frozenset({504, 524})
CONFIGURATION_STATUSES = frozenset({401, 403, 407})  # the last is a proxy's on our side, which wants a login
# What refuses every message alike: a web site, for instance, answers 405 to what is posted to its pages.
WRONG_ADDRESS: Mapping[int, str] = {
    404: "nothing is at this address",
    405: "what is at this address takes no messages",
    410: "nothing is at this address any more",
}


class Http:
    """HTTP to a service: an end to every request, no redirects, failures as SendError, and a fence.

    `read_timeout` is for the whole answer. What is in `secrets`, which may grow, is taken out of every answer: some
    services repeat the key that they refuse, and their words are shown and kept.
    `fence` is called as late as can be, before each piece of a request is written to the socket, and raises
    FencedError when this process may no longer send: a process that was stopped and continued must not finish what
    another has taken over.
    """

    def __init__(
        self,
        *,
        connect_timeout: float,
        read_timeout: float,
        pool: int,
        fence: Callable[[], None] = lambda: None,
        secrets: Collection[str] = (),
    ) -> None:
        self._timeout = (connect_timeout, read_timeout)
        self._secrets = secrets
        # By itself requests looks for proxies at each request, a third of its cost: `_proxies` does it once.
        self._session = plain_session()
        self._session.headers["Accept-Encoding"] = "identity"
        adapter = FencedAdapter(fence, pool)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)

    def request(
        self, method: str, url: str, *, refusal: "Refusal | None" = None, **arguments: Any
    ) -> requests.Response:
        """One request (arguments as for requests). Returns a 2xx answer, raises SendError for everything else.

        `refusal` tells what the service means by another answer; by default its status decides (`status_outcome`).
        """
        origin = "/".join(url.split("/", 3)[:3])
        try:
            response = self._session.request(
                method, url, timeout=self._timeout, allow_redirects=False, proxies=_proxies(origin), **arguments
            )
        except requests.exceptions.RequestException as error:
            raise NoAnswerError(_network_outcome(error)) from None
        if 200 <= response.status_code < 300:
            return response
        try:
            body = self._decoded(response)
        except ValueError:
            body = None
        raise SendError((refusal or status_outcome)(response, body))

    def json(self, method: str, url: str, *, refusal: "Refusal | None" = None, **arguments: Any) -> Any:
        """The decoded body of a 2xx answer, its texts made safe for CouchDB and rid of our secrets.

        One that is no JSON leaves in doubt whether the service acted.
        """
        response = self.request(method, url, refusal=refusal, **arguments)
        try:
            return self._decoded(response)
        except ValueError:
            raise SendError(
                Outcome(f"HTTP {response.status_code} with a body that is no JSON", failure=Failure.AMBIGUOUS)
            ) from None

    def _decoded(self, response: requests.Response) -> Any:
        """The JSON in an answer of any status, as `json` returns it. Raises ValueError when there is none."""
        if response.content.startswith(codecs.BOM_UTF8):  # what some servers' scripts put before all that they say
            response.encoding = "utf-8-sig"
        try:
            return each_text(response.json(), self._harmless)
        except RecursionError:
            raise ValueError("nested too deeply") from None

    def _harmless(self, text: str) -> str:
        text = safe_text(text)
        for secret in tuple(self._secrets):
            if len(secret) >= SHORTEST_SECRET:
                text = text.replace(secret, HIDDEN)
        return text


@lru_cache(maxsize=100)
def _proxies(origin: str) -> dict[str, str]:
    """The proxies that the environment (HTTPS_PROXY, NO_PROXY …) has for this server, as it was when first asked."""
    try:
        return {str(scheme): str(proxy) for scheme, proxy in get_environ_proxies(origin).items()}
    except ValueError:
        return {}  # no URL: the request says so


def status_outcome(response: requests.Response, _body: object = None) -> Outcome:
    """What an HTTP status that is no success means, for every service alike, whatever is in the body."""
    status = response.status_code
    outcome = Outcome(f"HTTP {status}", state=State.FAILED, failure=Failure.PERMANENT, code=str(status))
    if status in CONFIGURATION_STATUSES:
        return replace(outcome, state=None, failure=Failure.CONFIGURATION)
    if status in IN_DOUBT_STATUSES:
        return replace(outcome, state=None, failure=Failure.AMBIGUOUS)
    if status in RETRY_STATUSES or status >= 500:
        retry_at = read_retry_after(response.headers.get("Retry-After"), datetime.now(UTC))
        return replace(outcome, state=None, failure=Failure.RETRY, retry_at=retry_at)
    if 300 <= status < 400:
        details = f"HTTP {status}: the service's address has moved; check its base_url"
        return replace(outcome, details=details, state=None, failure=Failure.CONFIGURATION)
    return outcome


def sending_outcome(response: requests.Response, _body: object = None) -> Outcome:
    """As `status_outcome`, for services whose address or device is a setting and that limit an account's requests.

    A wrong address then speaks of the settings and not of the message, and a 429 that says until when holds the
    service. One that says "now" is no pause: held until now, the service would be asked every second for as long as it
    says so.
    """
    outcome = status_outcome(response)
    if wrong := WRONG_ADDRESS.get(response.status_code):
        details = f"HTTP {response.status_code}: {wrong}; check the service's settings"
        return replace(outcome, details=details, state=None, failure=Failure.CONFIGURATION)
    if response.status_code == 429 and outcome.retry_at and outcome.retry_at > datetime.now(UTC):
        return replace(outcome, details="HTTP 429: too many requests", failure=Failure.QUOTA)
    return outcome


def dig(value: Any, *names: str) -> Any:
    """What lies in a decoded JSON value under these names, one inside the other; None when there is no such thing."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def objects(value: Any) -> list[dict[str, Any]]:
    """The objects in a decoded JSON list; none when it is no list."""
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def ask_each(refs: Sequence[str], ask: Callable[[str], list[DeliveryReport]]) -> list[DeliveryReport]:
    """What `ask` says of each reference, for services that are asked one by one. Raises SendError.

    A reference that the service refuses is passed over, and so is one that makes it fail: what fails MOST_TROUBLES
    times in a row, or asks for a pause, is the service. What was learned is not lost: trouble is raised only when
    there is nothing else to return.
    """
    reports: list[DeliveryReport] = []
    trouble: SendError | None = None
    in_a_row = 0
    for ref in refs:
        try:
            reports += ask(ref)
            in_a_row = 0
        except SendError as error:
            outcome = error.outcome
            if outcome.failure is Failure.PERMANENT:
                in_a_row = 0
                continue
            trouble, in_a_row = error, in_a_row + 1
            if outcome.failure not in PASSING or outcome.retry_at or in_a_row == MOST_TROUBLES:
                break
    if trouble and not reports:
        raise trouble
    return reports


def read_retry_after(value: str | None, now: datetime) -> datetime | None:
    """The moment that a Retry-After header names, in seconds or as a date (RFC 9110, 10.2.3); at most a day away."""
    if not value:
        return None
    try:
        moment = now + timedelta(seconds=int(value)) if value.strip().isdigit() else parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return min(max(moment, now), now + timedelta(days=1))


def _network_outcome(error: requests.exceptions.RequestException) -> Outcome:
    """A request without an answer: was anything written before it failed?"""
    name = type(error).__name__
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return Outcome(f"no connection ({name})", failure=Failure.RETRY, spent=False)
    if isinstance(error, requests.exceptions.ConnectionError):
        cause = error.args[0] if error.args else None
        reason = getattr(cause, "reason", cause)
        if isinstance(reason, NewConnectionError | ProxyError):
            return Outcome(f"no connection ({why(error)})", failure=Failure.RETRY, spent=False)
        return Outcome("the connection broke before the answer", failure=Failure.AMBIGUOUS)
    if isinstance(error, requests.exceptions.Timeout | requests.exceptions.ChunkedEncodingError):
        return Outcome(f"no answer in time ({name})", failure=Failure.AMBIGUOUS)
    if isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema):
        return Outcome(f"the service's address is no URL ({name})", failure=Failure.CONFIGURATION)
    return Outcome(f"no usable answer ({name})", failure=Failure.AMBIGUOUS)
