"""What operators set: the app settings as typed records, their defaults, how changes merge, and their reference.

CHT keeps them in the document `settings`, field `settings`, with hundreds of keys that are none of ours: those are
carried along and ignored. As in CHT, a key that is null or blank is not set and takes its default. This module does not
talk to CouchDB.
"""

import copy
import json
import re
import types
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from mjumbe import mustache, text

DEFAULTS_PATH = Path(__file__).resolve().parent.parent / "config" / "app_settings.json"

SECRET_PATH = re.compile(r"secret|token|passw|credential|api_?key|(^|[._-])key($|[._-])", re.IGNORECASE)
URL_PASSWORD = re.compile(r"(://)[^/@\s]*@")
OURS = "mjumbe/"
SHOWN_VALUE = 60  # characters of a wrong value that an error message quotes
DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw]?)")
DURATION_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


@dataclass(frozen=True)
class Expected:
    """What a field takes, in words: said when a value is refused, and in the reference."""

    words: str


@dataclass(frozen=True)
class Problem:
    """One wrong setting. `value` is None when the path looks like a secret's, so that it can be shown to anybody.

    `names` lead to it through the objects, up to the first list: of such a setting it is the whole list that is wrong.
    """

    path: str
    value: object
    expected: str
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        if SECRET_PATH.search(self.path):
            return f"{self.path} is not valid; expected {self.expected}"
        return f"{self.path} is {_shown(self.value)}; expected {self.expected}"


class SettingsError(ValueError):
    """Settings that cannot be used: `problems` has one entry for each key that is wrong."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems


# ---- what the values may be


def duration(value: object) -> object:
    """Seconds from what settings write for them (`15m`); anything else as it is, for pydantic to judge."""
    match = DURATION.fullmatch(value.strip().lower()) if isinstance(value, str) else None
    return float(match[1]) * DURATION_UNITS[match[2]] if match else value


def _http_url(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        parts = urlsplit(value.strip())
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and len(value.split()) == 1
    except ValueError:  # a port that is no number, brackets that do not close
        usable = False
    # A password in a URL would end up in logs: credentials have their vault.
    if not usable or "@" in parts.netloc or parts.query or parts.fragment:
        raise PydanticCustomError("url", "not a usable URL")
    return value.strip().rstrip("/")


def _word(value: object) -> object:
    if isinstance(value, str) and (len(value.translate(text.WORD_ENDS).split()) != 1 or not text.first_word(value)):
        raise PydanticCustomError("word", "not one word")
    return value


def _template(value: object) -> object:
    if isinstance(value, str):
        try:
            mustache.check(value)
        except mustache.TemplateError as error:
            raise PydanticCustomError("template", "not a template") from error
    return value


def _country_code(value: object) -> object:
    return str(value).strip().removeprefix("+") if isinstance(value, str | int) else value


def _service(value: object) -> object:
    # CHT's API sends by itself what its services can send. Beside it, a name that it does not know keeps it from that.
    name = value.removeprefix(OURS) if isinstance(value, str) else value
    return "medic-gateway" if name == "cht-gateway" else name  # the app's new name, under CHT's old one


Seconds = Annotated[
    float,
    BeforeValidator(duration),
    Field(gt=0, le=366 * 86_400),
    Expected("a duration like `30s`, `15m`, `12h` or `7d`, or a number of seconds"),
]
HttpUrl = Annotated[
    str, BeforeValidator(_http_url), Expected("an http or https URL without user name, password, query or fragment")
]
Word = Annotated[str, BeforeValidator(_word), Expected("one word")]
Template = Annotated[
    str, BeforeValidator(_template), Expected("a text, in which every Mustache tag and section is closed")
]
Service = Annotated[
    Literal["medic-gateway", "africas-talking", "rapidpro", "textbee", "viber"], BeforeValidator(_service)
]


# ---- the settings


class Section(BaseModel):
    """An object in the settings: read-only, with whatever other keys CHT's database has."""

    model_config = ConfigDict(frozen=True, extra="allow", coerce_numbers_to_str=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _unset(cls, values: object) -> object:
        if not isinstance(values, Mapping):
            return values
        # A space behind a name or a date is nothing that people see, and CHT overlooks it.
        trimmed = {key: value.strip() if isinstance(value, str) else value for key, value in values.items()}
        return {key: value for key, value in trimmed.items() if value is not None and value != ""}

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_numbers(cls, value: object, info: ValidationInfo) -> object:
        """Python counts true as 1: `"expire_after": true` would throw away everything older than a second."""
        kind, _ = peeled(cls.model_fields[str(info.field_name)].annotation)
        if isinstance(value, bool) and kind in (int, float):
            raise PydanticCustomError("number", "not a number")
        return value


class PhoneReplace(Section):
    match: str = Field(default="", description="The beginning of a recipient's number to replace; empty: none.")
    replace: str = Field(default="", description="What to put in its place; the number is then written in full again.")


class DefaultResponses(Section):
    start_date: date | None = Field(
        default=None,
        description="Answer incoming messages that no keyword matched and that came on this day or later; not set: do "
        "not.",
    )


class Reply(Section):
    keyword: Word = Field(description="The first word of the incoming message, in any case.")
    message: Template | None = Field(
        default=None, description="The answer: a Mustache template filled from the message's document."
    )
    translation_key: str | None = Field(
        default=None, description="In place of `message`: the answer in the translations, in the sender's language."
    )

    @model_validator(mode="after")
    def _answers(self) -> "Reply":
        if not self.message and not self.translation_key:
            raise PydanticCustomError("reply", "no answer")
        return self


class ServiceSettings(Section):
    """What every service that we call over HTTP has."""

    enabled: bool = Field(default=True, description="`false`: send nothing through this service.")
    base_url: HttpUrl | None = Field(
        default=None, description="Another host than the service's own: a simulator, a proxy, your own installation."
    )
    batch_size: int = Field(default=100, ge=1, le=1000, description="Recipients of one text in one request.")
    concurrency: int = Field(default=16, ge=1, le=128, description="Requests at once.")
    max_per_second: float | None = Field(
        default=None, gt=0, description="Requests a second at most; not set: no limit."
    )
    connect_timeout: Seconds = Field(default=5.0, description="How long connecting may take.")
    read_timeout: Seconds = Field(default=60.0, description="How long the answer may take; some have taken 60 s.")


class OneByOne(ServiceSettings):
    batch_size: int = Field(default=1, ge=1, le=1, description="Always 1: the service takes one recipient a request.")


class AfricasTalking(ServiceSettings):
    username: str = Field(default="", description="Your application's user name; `sandbox` uses the sandbox.")
    premium: bool = Field(
        default=False,
        description="Send every message as a premium one, which its recipient pays for, from the short code in "
        "`sms.reply_to`. Answers to premium messages (those that came with a linkId) are premium in any case.",
    )
    keyword: str = Field(default="", description="The keyword of your premium product; goes with premium messages.")
    retry_duration_hours: int | None = Field(
        default=None, ge=1, le=168, description="How long Africa's Talking tries to deliver a premium message."
    )
    enqueue: bool = Field(
        default=False, description="Let Africa's Talking queue a request before it works on it: for large requests."
    )


class MedicGateway(Section):
    poll_limit: int = Field(default=25, ge=1, le=1000, description="Messages handed to the Android phone at each poll.")
    silent_after: Seconds = Field(
        default=300.0,
        description="When no phone has polled for so long, messages go by the other services instead, where there are "
        "any.",
    )


class RapidPro(OneByOne):
    url: HttpUrl | None = Field(
        default=None, description="Address of the RapidPro or TextIt server; `base_url` takes its place when it is set."
    )


class TextBee(OneByOne):
    device_id: str = Field(default="", description="The Android device that sends.")


class Viber(OneByOne):
    sender_name: str = Field(default="", max_length=28, description="The name that recipients see.")
    register_words: list[Word] = Field(
        default=["register"],
        description="A message to the bot that begins with one of these and goes on with a customer's number or id, "
        "like `register+4711`, ties its sender's Viber to that customer.",
    )


class Sms(Section):
    outgoing_service: Service = Field(
        default="medic-gateway",
        description="The service that sends; `cht-gateway` is taken for `medic-gateway`, and "
        "`mjumbe/africas-talking` for `africas-talking`: see [cht.md](cht.md#side-by-side).",
    )
    fallback_services: list[Service] = Field(
        default=[], description="Tried in this order when `outgoing_service` cannot take a message."
    )
    reply_to: str = Field(
        default="", description="Short code or sender id that messages come from; not set: the service's own."
    )
    duplicate_limit: int = Field(
        default=5, ge=1, le=20, description="How often one text may go to one recipient within 30 minutes."
    )
    clear_failing_schedules: bool = Field(
        default=False,
        description="Clear a scheduled message whose text cannot be made, instead of trying again for ever.",
    )
    default_to_sender: bool = Field(
        default=True, description="Send to the sender of a report when a scheduled message's recipient is not found."
    )
    replies: list[Reply] = Field(default=[], description="Answers to keywords; the first that matches is sent.")
    opt_out_words: list[Word] = Field(
        default=["STOP", "STOPALL", "UNSUBSCRIBE", "ACHA"],
        description="A message that begins with one of these, and not with the code of one of `forms`, ends all "
        "messages to its sender.",
    )
    opt_in_words: list[Word] = Field(
        default=["START", "UNSTOP", "ANZA"], description="A message that begins with one of these takes that back."
    )
    expire_after: Seconds = Field(
        default=7 * 86_400.0, description="What has waited longer since it was due is not sent."
    )
    in_doubt: Literal["retry", "hold"] = Field(
        default="retry",
        description="A message that may have been sent when the connection broke or a process died: send it again "
        "(perhaps twice), or hold it for a person to decide (perhaps never sent).",
    )
    max_attempts: int = Field(default=10, ge=1, le=100, description="Attempts to send before a message is `failed`.")
    retry_base: Seconds = Field(
        default=30.0, description="Wait before the second attempt; doubled at each further one."
    )
    retry_max: Seconds = Field(default=3600.0, description="The longest wait between two attempts.")
    africas_talking: AfricasTalking = AfricasTalking()
    medic_gateway: MedicGateway = MedicGateway()
    rapidpro: RapidPro = RapidPro()
    textbee: TextBee = TextBee()
    viber: Viber = Viber()

    @property
    def order(self) -> list[str]:
        """The services in use, in the order in which they are tried."""
        return list(dict.fromkeys([self.outgoing_service, *self.fallback_services]))


class Settings(Section):
    """All settings that mjumbe reads. Durations are seconds."""

    default_country_code: Annotated[str, BeforeValidator(_country_code), Expected("a calling code like `254`")] = Field(
        default="254", pattern=r"^[1-9]\d{0,2}$", description="Calling code of numbers that are written without one."
    )
    gateway_number: str = Field(
        default="",
        description="Our own number: nothing is sent to it, so that two machines do not answer each other for ever.",
    )
    outgoing_deny_list: str = Field(
        default="",
        description="Beginnings of numbers and names, separated by commas, to which nothing is sent, in any case: "
        "`+253,ORANGE` refuses +253 77 12 34 56 and ORANGE NET. A number is compared as its author wrote it, and in "
        "full with its plus.",
    )
    outgoing_deny_shorter_than: int = Field(
        default=6, ge=0, description="Numbers of fewer characters are refused (short codes answer by machine); 0: none."
    )
    outgoing_deny_with_alphas: bool = Field(
        default=True, description="Refuse recipients with letters, such as Safaricom: nobody reads there."
    )
    outgoing_phone_replace: PhoneReplace | None = None
    multipart_sms_limit: int = Field(
        default=10, ge=1, le=255, description="Parts of one SMS at most; what is longer is cut and ends in `...`."
    )
    default_responses: DefaultResponses = DefaultResponses()
    transitions: dict[str, Any] = Field(
        default={}, description="CHT's own transitions; with `default_responses` switched off here, it is off."
    )
    forms_only_mode: bool = Field(
        default=False,
        description="Answer messages that do not begin with the code of one of `forms` with `form_not_found`, not "
        "`sms_received`.",
    )
    forms: dict[str, Any] = Field(
        default={}, description="CHT's form definitions, by form code. mjumbe does not read reports."
    )
    locale: str = Field(default="en", description="Language of texts, unless another is known.")
    locale_outgoing: str = Field(
        default_factory=lambda values: values.get("locale", "en"),
        description="Language of outgoing messages; not set: `locale`.",
    )
    date_format: str = Field(
        default="DD-MMM-YYYY",
        description="How `{{#date}}…{{/date}}` writes a date in a text, in the words of moment.js.",
    )
    reported_date_format: str = Field(
        default="DD-MMM-YYYY HH:mm:ss", description="The same for `{{#datetime}}…{{/datetime}}`."
    )
    permissions: dict[str, list[str]] = Field(
        default={"can_access_gateway_api": ["gateway"]}, description="CHT's permissions, each with its roles."
    )
    public_url: HttpUrl | None = Field(
        default=None,
        description="Where the services reach this server from outside; callback URLs shown to you begin with it.",
    )
    sms: Sms = Sms()


# ---- reading and changing


def parse(values: Mapping[str, Any]) -> Settings:
    """The settings in `values` (the `settings` field of CHT's document). Raises SettingsError."""
    if not isinstance(values, Mapping):
        raise SettingsError([Problem("settings", values, "an object")])
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        problems = [
            _problem(entry["loc"], entry["input"])
            for entry in error.errors(include_url=False)
            if entry["type"] != "default_factory_not_called"  # locale_outgoing, because another key is wrong
        ]
        raise SettingsError(problems) from None  # pydantic's own message quotes every value


def merge(
    current: Mapping[str, Any], changes: Mapping[str, Any], *, overwrite: bool = False, replace: bool = False
) -> dict[str, Any]:
    """The settings after a change, as CHT's PUT /api/v1/settings makes it; neither argument is changed.

    By default objects are merged key by key at every depth, and lists and plain values replaced. With `replace` each
    top-level key that is given takes the place of the old one; with `overwrite` what is given is all there is.
    """
    if overwrite:
        return copy.deepcopy(dict(changes))
    if replace:
        return copy.deepcopy({**current, **changes})
    merged = copy.deepcopy(dict(current))
    for key, value in changes.items():
        if isinstance(value, Mapping):
            old = merged.get(key)
            merged[key] = merge(old if isinstance(old, Mapping) else {}, value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def load_defaults() -> dict[str, Any]:
    """What a new database starts from: config/app_settings.json."""
    defaults: dict[str, Any] = json.loads(DEFAULTS_PATH.read_text(encoding="utf-8"))
    return defaults


def _problem(loc: tuple[int | str, ...], value: object) -> Problem:
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in loc).removeprefix(".")
    names = tuple(str(step) for step in takewhile(lambda step: isinstance(step, str), loc))
    return Problem(path, None if SECRET_PATH.search(path) else value, _wanted(loc), names)


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list):
        return "a list"
    shown = URL_PASSWORD.sub(r"\1***@", json.dumps(value, ensure_ascii=False, default=str))
    return shown if len(shown) <= SHOWN_VALUE else shown[:SHOWN_VALUE] + "…"


# ---- words for types


def _wanted(loc: tuple[int | str, ...]) -> str:
    """What the setting at `loc` takes, in words."""
    annotation: Any = Settings
    metadata: list[Any] = []
    for step in loc:
        annotation, inner = peeled(annotation)
        if isinstance(annotation, type) and issubclass(annotation, Section):
            field = annotation.model_fields[str(step)]
            annotation, metadata = field.annotation, field.metadata
        else:
            annotation, metadata = get_args(annotation)[-1], inner
    return describe(annotation, metadata)


def peeled(annotation: Any) -> tuple[Any, list[Any]]:
    """The type inside Annotated[…] and … | None, with the annotations found on the way."""
    metadata: list[Any] = []
    while True:
        if get_origin(annotation) is Annotated:
            annotation, *more = get_args(annotation)
            metadata += [m for entry in more for m in (entry.metadata if isinstance(entry, FieldInfo) else [entry])]
        elif get_origin(annotation) in (Union, types.UnionType):
            annotation = next(choice for choice in get_args(annotation) if choice is not type(None))
        else:
            return annotation, metadata


def describe(annotation: Any, metadata: list[Any]) -> str:
    """A type in words: "a whole number from 1 to 20"."""
    kind, inner = peeled(annotation)
    metadata = [*metadata, *inner]
    for entry in metadata:
        if isinstance(entry, Expected):
            return entry.words
    if get_origin(kind) is Literal:
        choices = [f"`{choice}`" for choice in get_args(kind)]
        return f"{', '.join(choices[:-1])} or {choices[-1]}"
    if get_origin(kind) is list:
        return f"a list, each entry {describe(get_args(kind)[0], [])}"
    words = {
        bool: "`true` or `false`",
        date: "a date like `2026-01-31`",
        int: "a whole number",
        float: "a number",
        str: "a text",
        Reply: "an object with `keyword` and either `message` or `translation_key`",
    }
    return words.get(kind, "an object") + _bounds(metadata)


def _bounds(metadata: list[Any]) -> str:
    limits = ("ge", "gt", "le", "max_length")
    found = {name: getattr(entry, name) for entry in metadata for name in limits if hasattr(entry, name)}
    words = {"ge": " from {}", "gt": " above {}", "le": " to {}", "max_length": " of at most {} characters"}
    return "".join(words[name].format(found[name]) for name in limits if name in found)
