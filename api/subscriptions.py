"""Premium subscriptions at Africa's Talking: who has a product, asking people whether they want it, letting them go.

Who has a product is known from the service's notifications, which the sentinel keeps in the product's register.
"""

from collections.abc import Iterator
from typing import Any

from flask import Blueprint, request
from flask.typing import ResponseReturnValue
from pydantic import BaseModel, ConfigDict, Field

from api.auth import SMS
from api.bodies import Text, checked, object_or_query, posted_object
from api.callbacks import store
from api.context import PHONE_NUMBER, Context, admit
from api.errors import ApiError
from api.gateways import ServiceSaid, said
from api.openapi import describe
from mjumbe import gateways, phone_numbers
from mjumbe.couch import Database
from mjumbe.documents import SUBSCRIBED, Document, last_entry, product_register
from mjumbe.gateways import africas_talking
from mjumbe.gateways.africas_talking import AfricasTalking
from mjumbe.gateways.base import Check, SendError, Wiring

PAGE = 1_000

blueprint = Blueprint("subscriptions", __name__)


class Product(BaseModel):
    """What is subscribed to: a keyword at a short code."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    short_code: Text = Field(min_length=1, description="Your premium short code.", examples=["22000"])
    keyword: Text = Field(min_length=1, description="The product's keyword there.", examples=["afya"])


class Subscription(Product):
    """One person's subscription."""

    phone: Text = Field(description="The person's number, in any usual spelling.")


class Subscriber(BaseModel):
    """Somebody who has a product."""

    phone: str
    since: str | None = Field(description="ISO 8601, UTC.")


class Subscribers(BaseModel):
    """Everybody who has a product, by number."""

    subscribers: list[Subscriber]


class Fetched(BaseModel):
    """What was learned."""

    subscribers: int = Field(description="How many Africa's Talking knows.")
    new: int = Field(description="How many of them were not known here.")


EXPECTED = {"phone": PHONE_NUMBER, "short_code": "a short code", "keyword": "a keyword"}
TAG = "premium subscriptions"


@blueprint.get("/api/v1/subscriptions")
@describe(
    "Who has a product",
    "As the notifications told. Role `sms`.",
    tag=TAG,
    security="user",
    query=Product,
    answers={200: Subscribers},
    errors=(400,),
)
def subscribed() -> ResponseReturnValue:
    """All of them."""
    here, _ = admit(SMS)
    product = checked(Product, request.args.to_dict(), _expected)
    found = active(here.couch.main, product)
    return {"subscribers": [{"phone": number, "since": last_entry(doc).get("timestamp")} for number, doc in found]}


@blueprint.post("/api/v1/subscriptions")
@describe(
    "Ask somebody whether they want a product",
    "Makes a checkout token and a subscription with it. The person's phone asks them; when they agree, a notification "
    "comes. 502 when Africa's Talking refuses. Role `sms`.",
    tag=TAG,
    security="user",
    body=Subscription,
    answers={200: ServiceSaid, 502: ServiceSaid},
    errors=(409, 415),
)
def subscribe() -> ResponseReturnValue:
    """Nothing is stored before the notification."""
    here, _ = admit(SMS)
    subscription, number = _subscription(here, posted_object(request))
    return said(_account(here).subscribe(number, subscription.short_code, subscription.keyword))


@blueprint.delete("/api/v1/subscriptions")
@describe(
    "Let somebody go",
    "The fields may be in the query or in a JSON body. 502 when Africa's Talking refuses. Role `sms`.",
    tag=TAG,
    security="user",
    query=Subscription,
    answers={200: ServiceSaid, 502: ServiceSaid},
    errors=(400, 409),
)
def unsubscribe() -> ResponseReturnValue:
    """A notification tells when it is done."""
    here, _ = admit(SMS)
    subscription, number = _subscription(here, object_or_query(request))
    return said(_account(here).unsubscribe(number, subscription.short_code, subscription.keyword))


@blueprint.post("/api/v1/subscriptions/fetch")
@describe(
    "Ask Africa's Talking who has a product",
    "For those whose notification was missed, stores what it would have said. Role `sms`.",
    tag=TAG,
    security="user",
    body=Product,
    answers={200: Fetched, 502: ServiceSaid},
    errors=(409, 415),
)
def fetch() -> ResponseReturnValue:
    """Takes nobody out: who left is told by notifications alone."""
    here, _ = admit(SMS)
    product = checked(Product, posted_object(request), _expected)
    country = here.settings.fresh().default_country_code
    told = _account(here).subscribers(product.short_code, product.keyword)
    known = {number for number, _ in active(here.couch.main, product)}
    new = [number for number in told if phone_numbers.canonical(number, country) not in known]
    for number in new:
        store(here, africas_talking.subscription_notice(number, product.short_code, product.keyword, "addition"))
    return {"subscribers": len(told), "new": len(new)}


def active(database: Database, product: Product) -> Iterator[tuple[str, Document]]:
    """The numbers of those who have the product now, in order, with the register's documents. Raises
    UnavailableError."""
    prefix = f"{product_register(product.short_code, product.keyword)}:"
    after = ""
    while docs := database.beginning_with(prefix, after, PAGE):
        yield from ((doc["_id"].removeprefix(prefix), doc) for doc in docs if doc.get("value") == SUBSCRIBED)
        after = docs[-1]["_id"]


def _expected(field: str) -> str:
    return EXPECTED.get(field, f"only {', '.join(EXPECTED)}")


def _subscription(here: Context, values: dict[str, Any]) -> tuple[Subscription, str]:
    """The subscription that is asked for, and its number in E.164."""
    subscription = checked(Subscription, values, _expected)
    return subscription, here.number("phone", subscription.phone)


def _account(here: Context) -> AfricasTalking:
    """Our account. Raises ApiError 409 with what is missing while it is not configured."""
    settings = here.settings.refresh()
    missing = gateways.missing(africas_talking.NAME, settings, here.vault.get)
    if missing:
        raise ApiError(409, f"Africa's Talking cannot be asked: {'; '.join(missing)}.")
    return AfricasTalking(Wiring(settings, here.vault.get))


@blueprint.errorhandler(SendError)
def _unasked(error: SendError) -> ResponseReturnValue:
    return said(Check(False, f"Africa's Talking could not be asked: {error}"))
