"""Reading requests: bodies and their sizes, JSON and forms, text that CouchDB takes whatever it was made of, models."""

import json
import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qsl

from flask import Request
from gunicorn.http.errors import ParseException
from pydantic import BaseModel, BeforeValidator, ValidationError
from werkzeug.exceptions import ClientDisconnected

from api.errors import ApiError, BadRequestError
from mjumbe.gateways.base import CallbackRequest
from mjumbe.text import each_text, safe_text

CALLBACK_BYTES = 64 * 1024
OBJECT_BYTES = 1024 * 1024  # of a JSON object, where a view sets no limit of its own
MOST_FIELDS = 200

Model = TypeVar("Model", bound=BaseModel)


def _written(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Text = Annotated[str, BeforeValidator(_written, json_schema_input_type=str | int)]
"""A text of digits perhaps, which programs also give as a JSON number."""


def raw_body(request: Request, limit: int) -> bytes:
    """The whole body, `limit` bytes at most. Raises 413, 400 for one that was cut off on its way, 408, and 415."""
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise ApiError(415, "Send the body as it is, without a Content-Encoding.")
    too_large = ApiError(413, f"The body is larger than {limit} bytes.")
    if (request.content_length or 0) > limit:
        raise too_large
    # Werkzeug cuts a chunked body at its limit without a word, so it gets one byte more than ours.
    request.max_content_length = limit + 1
    try:
        body = request.get_data(cache=True)
    except (ClientDisconnected, ParseException) as error:
        if isinstance(error.__context__, TimeoutError):  # Werkzeug raises its own in place of each OSError
            raise ApiError(408, "The body did not come: nothing was heard for too long.") from None
        raise BadRequestError("body", "chunks as HTTP has them") from None
    if len(body) > limit:
        raise too_large
    if len(body) < (request.content_length or 0):
        raise BadRequestError("body", f"{request.content_length} bytes, as Content-Length says; {len(body)} came")
    return body


def checked(model: type[Model], values: Mapping[str, Any], expected: Callable[[str], str]) -> Model:
    """`values` as the model has them. Raises BadRequestError with the first that is wrong, and what is `expected`."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        field = str(error.errors(include_url=False)[0]["loc"][0])
        raise BadRequestError(field, expected(field)) from None


def posted_object(request: Request, limit: int = OBJECT_BYTES) -> dict[str, Any]:
    """The JSON object in a body that is said to be JSON. Raises 400, 413 and 415."""
    demand_json(request)
    return json_object(request, limit)


def json_object(request: Request, limit: int = OBJECT_BYTES) -> dict[str, Any]:
    """The JSON object in the body, whatever that is said to be. Raises 400 and 413."""
    return _object(json_body(request, limit))


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadRequestError("body", "a JSON object")
    return value


def object_or_query(request: Request) -> dict[str, Any]:
    """The JSON object in the body, or the query's fields when there is no body. Raises 400 and 413."""
    return json_object(request) if raw_body(request, OBJECT_BYTES) else request.args.to_dict()


def optional_object(request: Request) -> dict[str, Any]:
    """As `posted_object`; one without fields when there is no body, and with null for each number that cannot be
    written again: a phone whose poll is refused for one brings all of it again for ever."""
    body = raw_body(request, OBJECT_BYTES)
    if not body:
        return {}
    demand_json(request)
    return _object(_decoded(body, LENIENT))


def json_body(request: Request, limit: int) -> Any:
    """The JSON value in the body, its texts made safe. Raises 400 and 413.

    What is not UTF-8 is refused: a message would go out with other characters than its author wrote.
    """
    return _decoded(raw_body(request, limit), STRICT, errors="strict")


def demand_json(request: Request) -> None:
    """Raises 415 unless the body is said to be JSON: a browser can be made to post anything else with our cookie."""
    if not request.is_json:
        raise ApiError(415, "Send the body as JSON, with the header Content-Type: application/json.")


def callback_request(request: Request) -> CallbackRequest:
    """What a service posted, as form or JSON alike. Raises 400 and 413."""
    body = raw_body(request, CALLBACK_BYTES)
    return CallbackRequest(
        query=request.args.to_dict(),
        form=_fields(request, body),
        headers={name.lower(): value for name, value in request.headers},
        body=body,
    )


def _fields(request: Request, body: bytes) -> Mapping[str, str]:
    """The first value of each field; of a JSON object each member, what is no text as JSON."""
    if request.mimetype == "multipart/form-data":
        return request.form.to_dict()
    if request.is_json or body.lstrip()[:1] == b"{":
        value = _decoded(body, STRICT)
        if not isinstance(value, dict):
            raise BadRequestError("body", "a form or a JSON object")
        return {name: _text(inner) for name, inner in value.items() if inner is not None}
    try:
        pairs = parse_qsl(
            body.decode("utf-8", "replace"), keep_blank_values=True, errors="replace", max_num_fields=MOST_FIELDS
        )
    except ValueError:
        raise BadRequestError("body", f"a form of at most {MOST_FIELDS} fields") from None
    fields: dict[str, str] = {}
    for name, value in pairs:
        fields.setdefault(name, value)
    return fields


def _decoded(body: bytes, decoder: json.JSONDecoder, errors: str = "replace") -> Any:
    try:
        return each_text(decoder.decode(body.decode("utf-8-sig", errors)), safe_text)
    except (ValueError, RecursionError):
        raise BadRequestError("body", "JSON in UTF-8") from None


def _no_number(word: str) -> Any:
    """Python reads NaN and Infinity; JSON, and so CouchDB, has no such thing."""
    raise ValueError(word)


def _finite(written: str) -> float:
    """A number too large for Python becomes infinite, and could not be written again."""
    number = float(written)
    if math.isinf(number):
        raise ValueError(written)
    return number


def _or_none(read: Callable[[str], Any]) -> Callable[[str], Any]:
    def read_or_none(written: str) -> Any:
        try:
            return read(written)
        except ValueError:
            return None

    return read_or_none


STRICT = json.JSONDecoder(parse_constant=_no_number, parse_float=_finite)
LENIENT = json.JSONDecoder(parse_constant=_or_none(_no_number), parse_float=_or_none(_finite), parse_int=_or_none(int))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
