"""Reading bodies: whatever is posted, CouchDB can take what comes out."""

import io
import json

import pytest
from flask import Request
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.exceptions import HTTPException
from werkzeug.test import EnvironBuilder

from api.bodies import callback_request, json_body, optional_object
from api.errors import ApiError, BadRequestError

FORM = "application/x-www-form-urlencoded"


def posted(body: bytes, content_type: str = FORM, query: str = "") -> Request:
    builder = EnvironBuilder(
        method="POST",
        input_stream=io.BytesIO(body),
        content_length=len(body),
        content_type=content_type,
        query_string=query,
    )
    return Request(builder.get_environ())


@given(
    st.binary(max_size=300),
    st.sampled_from([FORM, "application/json", "text/plain", "", "multipart/form-data; boundary=x"]),
)
def test_any_body_is_read_or_refused(body: bytes, content_type: str) -> None:
    try:
        request = callback_request(posted(body, content_type))
    except (ApiError, HTTPException) as error:
        assert getattr(error, "status", None) == 400 or getattr(error, "code", None) == 400
        return
    assert request.body == body
    for name, value in request.form.items():
        assert json.dumps([name, value], ensure_ascii=False).encode()


@pytest.mark.parametrize(("encoding", "status"), [("gzip", 415), ("identity", None)])
def test_a_body_that_is_packed_is_refused_for_that(encoding: str, status: int | None) -> None:
    request = posted(b"a=1")
    request.environ["HTTP_CONTENT_ENCODING"] = encoding
    try:
        assert callback_request(Request(request.environ)).form == {"a": "1"}
        assert status is None
    except ApiError as error:
        assert error.status == status


@pytest.mark.parametrize(
    ("body", "content_type", "form"),
    [
        (b"a=1&b=%20x+y&a=2&c=", FORM, {"a": "1", "b": " x y", "c": ""}),
        (b"a=1;b=2", FORM, {"a": "1;b=2"}),
        (b"novalue", FORM, {"novalue": ""}),
        (b'{"a":1,"b":null,"c":{"d":[1]},"e":true,"f":"x"}', "application/json", {
            "a": "1", "c": '{"d": [1]}', "e": "true", "f": "x",
        }),
        (b'\xef\xbb\xbf {"a":"x"}', "application/json; charset=utf-8", {"a": "x"}),
        (b'{"token":5741311803571721087}', "application/json", {"token": "5741311803571721087"}),
    ],
)  # fmt: skip
def test_fields(body: bytes, content_type: str, form: dict[str, str]) -> None:
    request = callback_request(posted(body, content_type, "key=a%20b&key=c"))
    assert request.form == form
    assert request.query == {"key": "a b"}
    assert request.headers["content-type"] == content_type


@pytest.mark.parametrize(
    "body", [b"", b"{", b"NaN", b'{"a":Infinity}', b"[" * 100_000, b'{"a":' + b"9" * 5000 + b"}", b"\xff"]
)
def test_what_is_no_json(body: bytes) -> None:
    with pytest.raises(BadRequestError):
        json_body(posted(body, "application/json"), 1_000_000)


def test_an_optional_object_has_null_for_a_number_that_cannot_be_kept() -> None:
    body = b'{"n": [NaN, 1e400, -1e400, -Infinity, ' + b"9" * 5000 + b", 1, 0.5, -7]}"
    read = optional_object(posted(body, "application/json"))
    assert read == {"n": [None, None, None, None, None, 1, 0.5, -7]}
    assert optional_object(posted(b"")) == {}
    with pytest.raises(ApiError) as caught:
        optional_object(posted(body))
    assert caught.value.status == 415


def test_too_many_fields() -> None:
    with pytest.raises(BadRequestError):
        callback_request(posted(b"&".join(b"a=1" for _ in range(500))))


def test_limits() -> None:
    assert json_body(posted(b'"12345678"'), 10) == "12345678"
    for limit in (8, 9):
        with pytest.raises(ApiError, match=f"The body is larger than {limit} bytes.") as caught:
            json_body(posted(b'"12345678"'), limit)
        assert caught.value.status == 413
