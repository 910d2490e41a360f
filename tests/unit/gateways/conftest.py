"""What the tests of all gateways share: posted callbacks from their exact bytes, and a vault of known credentials."""

import hmac
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import responses
from flask import Request
from werkzeug.test import EnvironBuilder

from api.bodies import callback_request
from mjumbe.gateways.base import Batch, CallbackRequest, Gateway, Matches, Outcome, SendError


def refused(gateway: Gateway, number: str) -> Outcome:
    """What became of a request with one message that failed as a whole."""
    with pytest.raises(SendError) as caught:
        gateway.send(Batch("Habari", (number,)))
    return caught.value.outcome


@pytest.fixture
def service() -> Iterator[responses.RequestsMock]:
    """The service's side of the wire: every answer that is given must be asked for."""
    with responses.RequestsMock() as mock:
        yield mock


@pytest.fixture
def posted() -> Callable[..., CallbackRequest]:
    """What a parser gets of `posted(body, content_type, **headers)`, read as the API reads it."""

    def read(body: bytes, content_type: str = "application/json", **headers: str) -> CallbackRequest:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        builder = EnvironBuilder(method="POST", data=body, content_type=content_type, headers=named)
        return callback_request(Request(builder.get_environ()))

    return read


@pytest.fixture
def vault() -> Callable[..., Matches]:
    """`vault({credential id: value})` compares with these."""

    def of(values: dict[str, str]) -> Matches:
        def matches(credential_id: str, given: str, made_of: Any = str) -> bool:
            value = values.get(credential_id)
            return value is not None and hmac.compare_digest(made_of(value), given)

        return matches

    return of
