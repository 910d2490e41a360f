"""Reading bodies: whatever is posted, CouchDB can take what comes out."""

import io
import json
from typing import Any

import pytest
from flask import Request
from gunicorn.http.errors import NoMoreData
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from werkzeug.exceptions import HTTPException
from werkzeug.test import EnvironBuilder

from api.bodies import Text, callback_request, checked, json_body, optional_object, raw_body
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
        (b'{"a":"\\ud83d","b":["\\ude00"]}', "application/json", {"a": "\ufffd", "b": '["\\ufffd"]'}),
        (b' {"a":"x"}', "text/plain", {"a": "x"}),
        (b"a=\xc3\xa9&b=%C3%A9&c=%ED%A0%BD", FORM, {"a": "\u00e9", "b": "\u00e9", "c": "\ufffd" * 3}),
        (
            b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n\xc3\xa9\xff\r\n--x--\r\n',
            "multipart/form-data; boundary=x",
            {"a": "\u00e9\ufffd"},
        ),
    ],
)  # fmt: skip
def test_fields(body: bytes, content_type: str, form: dict[str, str]) -> None:
    request = callback_request(posted(body, content_type, "key=a%20b&key=c"))
    assert request.form == form
    assert request.query == {"key": "a b"}
    assert request.headers["content-type"] == content_type


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"NaN", b'{"a":Infinity}', b"[" * 100_000, b'{"a":' + b"9" * 5000 + b"}", b"\xff", b'{"a": "caf\xe9"}'],
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


@pytest.mark.parametrize("body", [b"[1]", b'"a"', b"7"])
def test_a_callback_in_json_is_an_object(body: bytes) -> None:
    with pytest.raises(BadRequestError):
        callback_request(posted(body, "application/json"))


class Numbered(BaseModel):
    number: Text


def test_a_text_may_be_a_whole_number() -> None:
    assert checked(Numbered, {"number": 254711000111}, str).number == "254711000111"
    for other in (True, 1.5, None):
        with pytest.raises(BadRequestError):
            checked(Numbered, {"number": other}, str)


def test_no_more_is_read_of_a_chunked_body_than_is_taken() -> None:
    """It does not say how long it is, and may have no end."""
    for size, is_taken in ((10, True), (11, False), (1_000_000, False)):
        builder = EnvironBuilder(method="POST", input_stream=io.BytesIO(b"x" * size))
        builder.content_length = None
        request = Request(builder.get_environ() | {"wsgi.input_terminated": True})
        try:
            assert raw_body(request, 10) == b"x" * size
            assert is_taken
        except ApiError as error:
            assert (error.status, is_taken) == (413, False)
        assert request.environ["wsgi.input"].tell() <= 11


class Broken(io.BytesIO):
    """As gunicorn's stream when a client falls silent, or breaks off a body in chunks."""

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error = error

    def readinto(self, buffer: Any) -> int:
        raise self.error


@pytest.mark.parametrize(
    ("error", "length", "status", "says"),
    [
        (TimeoutError(), "3", 408, "nothing was heard for too long"),
        (TimeoutError(), None, 408, "nothing was heard for too long"),
        (NoMoreData(), None, 400, "expected chunks as HTTP has them"),
    ],
)
def test_why_a_body_does_not_come(error: OSError, length: str | None, status: int, says: str) -> None:
    environ = EnvironBuilder(method="POST", input_stream=Broken(error)).get_environ()
    environ |= {"wsgi.input_terminated": True} | ({"CONTENT_LENGTH": length} if length else {})
    with pytest.raises(ApiError, match=says) as caught:
        raw_body(Request(environ), 10)
    assert caught.value.status == status


def test_limits() -> None:
    assert json_body(posted(b'"12345678"'), 10) == "12345678"
    for limit in (8, 9):
        with pytest.raises(ApiError, match=f"The body is larger than {limit} bytes.") as caught:
            json_body(posted(b'"12345678"'), limit)
        assert caught.value.status == 413
