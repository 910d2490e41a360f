"""What an attacker tries at the API: each is answered as the caller's error, in JSON, and nothing of ours shows."""

import base64
import http.client
import json
import socket
from contextlib import closing
from typing import Any
from urllib.parse import quote

import pytest
import requests

from mjumbe.couch import Couch
from tests import leaks
from tests.integration.processes import Process, eventually, make_user

Login = tuple[str, str]
KEY = "the-key-of-attacked-callbacks"
CALLBACK = f"/api/v1/sms/africastalking/incoming-messages?key={KEY}"
FORM = "application/x-www-form-urlencoded"
JSON = "application/json"


@pytest.fixture(scope="module", autouse=True)
def key(api: Process, admin: Login) -> None:
    url = f"{api.url}/api/v1/credentials/africastalking.com:incoming"
    requests.put(url, auth=admin, data=KEY, timeout=30).raise_for_status()


@pytest.fixture(scope="module")
def program(couch: Couch) -> Login:
    return make_user(couch, "program", "program-password", ["sms"])


def ask(
    api: Process, method: str, path: str, body: bytes | None = None, login: Login | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """One request whose path goes out as it stands here; what clients tidy up, attackers do not."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if login:
        named["Authorization"] = "Basic " + base64.b64encode(":".join(login).encode()).decode()
    with closing(http.client.HTTPConnection("127.0.0.1", api.port, timeout=60)) as client:
        client.putrequest(method, path, skip_accept_encoding=True)
        for name, value in named.items():
            client.putheader(name, value)
        if body is not None:
            client.putheader("Content-Length", str(len(body)))
        client.endheaders(body)
        answer = client.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()


def refused(answer: tuple[int, dict[str, str], bytes]) -> int:
    """The status of an answer that is an error of the caller's and shows nothing of ours."""
    status, _, body = answer
    assert 400 <= status < 500, (status, body[:300])
    assert json.loads(body)["reason"] if body else True
    shows_nothing(body)
    return status


def shows_nothing(body: bytes) -> None:
    for word in (b"Traceback", b'File "', b"werkzeug", b"site-packages", b"Error(", KEY.encode()):
        assert word not in body


# ---- paths


@pytest.mark.parametrize(
    "path",
    [
        "//api/v1/credentials",
        "/api//v1/credentials",
        "/api/v1/../v1/credentials",
        "/api/v1/./credentials",
        "/api/v1/%2e%2e/credentials",
        "/api/v1/messages;x=1",
        "/api/static/../../app.py",
        "/api/static/..%2f..%2fapp.py",
        "/api/static/%2e%2e/%2e%2e/app.py",
        "/api/static/..\\..\\app.py",
        "/api/static//etc/passwd",
        "/api/v1/credentials%00",
        "/API/V1/CREDENTIALS",
        "/api/v1/sms/africastalking/__class__",
        "/%0d%0aSet-Cookie:%20a=b",
        "/%ff%fe",
        "/" + "a" * 8000,
        "http://169.254.169.254/latest/meta-data",
    ],
)
def test_paths_lead_nowhere_else(api: Process, path: str) -> None:
    status, headers, _ = answer = ask(api, "GET", path)
    assert refused(answer) in (401, 404)
    assert "Set-Cookie" not in headers
    assert status != 200


@pytest.mark.parametrize(
    "name", [".", "..", "%2e%2e", "_design/mjumbe", "_design%2fmjumbe", "settings", "_all_docs", "_local/x", "a%00b",
             "..%2f_users%2f_all_docs", "a%0ab", "%f0%9f%98%80" * 100, "a" * 3000, "?conflicts=true", "%ff"]
)  # fmt: skip
def test_a_message_is_not_the_way_to_another_document(api: Process, program: Login, name: str) -> None:
    answer = ask(api, "GET", f"/api/v1/messages/{name}", login=program)
    assert refused(answer) == (400 if name == "?conflicts=true" else 404)
    assert b"Welcome" not in answer[2]


@pytest.mark.parametrize("name", [".", "..", "%2e", "%2e%2e", "a%2f..", "%00", "%0a", "x" * 3000, "%ff", "_design%2fx"])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_a_credential_is_not_the_way_to_couchdb_s_configuration(
    api: Process, admin: Login, method: str, name: str
) -> None:
    status, _, body = ask(
        api, method, f"/api/v1/credentials/{name}", b"the-odd-value" if method == "PUT" else None, admin
    )
    assert status in ((200, 400) if method == "PUT" else (200, 400, 404)), body
    shows_nothing(body)
    if name in (".", "..", "%2e", "%2e%2e", "%00", "%0a"):
        assert status != 200, body


# ---- methods


@pytest.mark.parametrize(
    "method", ["TRACE", "TRACK", "PROPFIND", "DEBUG", "CONNECT", "FOO", "PATCH", "DELETE", "PUT", "GET", "HEAD"]
)
def test_other_methods_do_nothing(api: Process, couch: Couch, method: str) -> None:
    body = b"id=by-verb&from=0711000111&text=by+another+verb"
    assert refused(ask(api, method, CALLBACK, body, Content_Type=FORM)) == 405
    assert couch.main.get("incoming:africas-talking:by-verb") is None


@pytest.mark.parametrize("header", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"])
def test_methods_are_not_overridden(api: Process, admin: Login, header: str) -> None:
    answer = requests.get(
        f"{api.url}/api/v1/credentials/africastalking.com:incoming", auth=admin, headers={header: "DELETE"}, timeout=30
    )
    assert answer.json() == {"id": "africastalking.com:incoming", "set": True}
    posted = requests.post(api.url + CALLBACK + "&_method=DELETE", data={"_method": "DELETE"}, timeout=30)
    assert posted.status_code == 400


def test_options_tell_no_more_than_the_methods(api: Process) -> None:
    status, headers, body = ask(api, "OPTIONS", "/api/v1/credentials")
    assert (status, body) == (200, b"")
    assert not [name for name in headers if name.lower().startswith("access-control")]


# ---- bodies


BOMBS = {
    "nested lists": b"[" * 30_000 + b"]" * 30_000,
    "nested objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "a huge number": b'{"to":' + b"9" * 60_000 + b"}",
    "a huge exponent": b'{"to":1e999,"message":"x","due":1e999}',
    "a tiny exponent": b'{"to":1e-999,"message":"x"}',
    "not a number": b'{"to":NaN,"message":"x"}',
    "many members": json.dumps({f"a{n}": n for n in range(5_000)}).encode(),
    "the same member often": b"{" + b",".join(b'"to":"x"' for _ in range(6_000)) + b"}",
    "prototype": b'{"__proto__":{"admin":true},"constructor":{"prototype":{}}}',
    "dunder": b'{"__class__":"os.system","py/object":"os.system"}',
    "lone surrogates": b'{"to":"\\ud800","message":"\\udfff"}',
    "utf-16": '{"to":"0711000111"}'.encode("utf-16"),
    "utf-7": b"+AHsAIg-",
    "null bytes": b"\0" * 1000,
    "empty": b"",
    "a string": b'"x"',
    "XML": b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
    "a pickle": b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00",
}
DEPTHS = {
    f"{depth} deep": b'{"a":' * depth + b"1" + b"}" * depth
    for depth in (50, 100, 200, 300, 400, 450, 480, 500, 700, 990)
}


@pytest.mark.parametrize("name", [*BOMBS, *DEPTHS])
@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/api/v1/messages"), ("PUT", "/api/v1/settings"), ("POST", "/api/sms"), ("POST", CALLBACK),
     ("POST", "/api/v1/gateways/africas-talking/test")],
)  # fmt: skip
def test_bombs(api: Process, admin: Login, method: str, path: str, name: str) -> None:
    status, _, body = ask(api, method, path, {**BOMBS, **DEPTHS}[name], admin, Content_Type=JSON)
    assert status in (200, 400, 413), (status, body)
    shows_nothing(body)
    assert json.loads(body)


@pytest.mark.parametrize(
    "content_type",
    [FORM, JSON, "text/plain", "text/xml", "application/octet-stream", "multipart/form-data", "", "\xff", "a" * 2000,
     "multipart/form-data; boundary=", "multipart/form-data; boundary=" + "b" * 4000, "application/json; charset=utf-7",
     "application/x-www-form-urlencoded; charset=idna", "application/x-www-form-urlencoded; charset=../../etc"],
)  # fmt: skip
@pytest.mark.parametrize("body", [b"id=1", b'{"id":1}', b"--b\r\n\r\n\r\n--b--", b"\xff\xfe\0"])
def test_content_types(api: Process, content_type: str, body: bytes) -> None:
    assert refused(ask(api, "POST", CALLBACK, body, Content_Type=content_type)) == 400


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "x"])
def test_compressed_bodies_are_not_inflated(api: Process, encoding: str) -> None:
    import gzip  # noqa: PLC0415

    bomb = gzip.compress(b"id=1&from=0711000111&text=" + b"x" * 10_000_000)
    assert refused(ask(api, "POST", CALLBACK, bomb, Content_Type=FORM, Content_Encoding=encoding)) == 415


def parts(count: int) -> bytes:
    return (
        b"".join(b'--b\r\nContent-Disposition: form-data; name="a%d"\r\n\r\nx\r\n' % n for n in range(count))
        + b"--b--\r\n"
    )


FILE = b'--b\r\nContent-Disposition: form-data; name="f"; filename="../../x"\r\n\r\nx\r\n--b--'


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"&".join(b"a%d=1" % n for n in range(7_000)), FORM),
        (b"&" * 60_000, FORM),
        (b"=" * 60_000, FORM),
        (b"%" * 60_000, FORM),
        (parts(900), "multipart/form-data; boundary=b"),
        (parts(1_100), "multipart/form-data; boundary=b"),
        (b"--b\r\n" + b"A: b\r\n" * 5_000, "multipart/form-data; boundary=b"),
        (FILE, "multipart/form-data; boundary=b"),
    ],
)  # fmt: skip
def test_many_fields(api: Process, body: bytes, content_type: str) -> None:
    assert refused(ask(api, "POST", CALLBACK, body, Content_Type=content_type)) in (400, 413)


def test_many_parameters(api: Process, program: Login) -> None:
    query = "&".join(f"a{n}=1" for n in range(1_000))
    assert refused(ask(api, "GET", f"/api/v1/messages?{query}", login=program)) == 400


def test_the_first_of_two_keys_counts(api: Process) -> None:
    """A proxy that checks one of two parameters of the same name, and we the other, could be talked past."""
    path = CALLBACK.partition("?")[0]
    body = b"from=0711000111&text=x"
    assert refused(ask(api, "POST", f"{path}?key=wrong&key={KEY}", body, Content_Type=FORM)) == 403
    assert refused(ask(api, "POST", f"{path}?key={KEY}&key=wrong", body, Content_Type=FORM)) == 400
    assert refused(ask(api, "POST", path, b"key=" + KEY.encode(), Content_Type=FORM)) == 403
    for other in (f"Key={KEY}", f"key[]={KEY}", f"key%00={KEY}", f"x=1;key={KEY}", f"%EF%BB%BFkey={KEY}"):
        assert refused(ask(api, "POST", f"{path}?{other}", body, Content_Type=FORM)) == 403
    for almost in (
        KEY.upper(),
        KEY + "%00",
        KEY + "%20",
        "%20" + KEY,
        KEY[:-1],
        "%ff",
        "%ed%a0%80",
        "",
        quote("ｔ" + KEY[1:]),
    ):
        assert refused(ask(api, "POST", f"{path}?key={almost}", body, Content_Type=FORM)) == 403


# ---- queries


def bookmark(*values: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode()


@pytest.mark.parametrize(
    "query",
    [
        {"bookmark": bookmark(["all", float("inf")], "x", 1)},
        {"bookmark": bookmark(["all", float("nan")], "x", 1)},
        {"bookmark": bookmark(["all", 1], "\ud800", 1)},
        {"bookmark": bookmark(["all", 1], "x", -1)},
        {"bookmark": bookmark(["all", 1], "x", 10**30)},
        {"bookmark": bookmark(["all", 1], "x", True)},
        {"bookmark": bookmark(["all", {"a": [[[]]]}], "x", 1)},
        {"bookmark": bookmark([], "x", 1)},
        {"bookmark": base64.urlsafe_b64encode(b"[" * 5_000).decode()},
        {"bookmark": "ü"},
        {"from": "9" * 400},
        {"from": "1e999"},
        {"from": "-9999999999999999"},
        {"from": "0001-01-01", "to": "9999-12-31T23:59:59-12:00"},
        {"limit": "9" * 400},
        {"limit": "1e3"},
        {"limit": "٣"},
        {"phone": "\ud800", "limit": "1"},
        {"phone": "+" * 2_000},
        {"phone": "1" * 4_000},
        {"state": "\0"},
        {"state": "ü" * 1_000},
    ],
)
def test_queries(api: Process, program: Login, query: dict[str, str]) -> None:
    written = "&".join(f"{name}={quote(value, errors='replace')}" for name, value in query.items())
    status, _, body = ask(api, "GET", f"/api/v1/messages?{written}", login=program)
    assert status in (200, 400), body
    shows_nothing(body)


# ---- logins


@pytest.mark.parametrize(
    "headers",
    [
        {"Cookie": "AuthSession=\u0436".encode().decode("latin-1")},
        {"Cookie": "AuthSession=" + "x" * 4_000},
        {"Cookie": 'AuthSession="x\\015\\012X: y"'},
        {"Cookie": "AuthSession=x; AuthSession=y"},
        {"Authorization": "Basic " + "A" * 4_000},
        {"Authorization": "Basic Og=="},
        {"Authorization": "Basic OnB3"},
        {"Authorization": "Basic \xff"},
        {"Authorization": "Basic YTpi, Basic YTpi"},
        {"Authorization": "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9."},
        {"Authorization": "Negotiate x"},
        {"X-Auth-CouchDB-UserName": "admin", "X-Auth-CouchDB-Roles": "_admin"},
        {"X-Forwarded-User": "admin", "Remote-User": "admin"},
    ],
)
def test_logins_that_are_none(api: Process, headers: dict[str, str]) -> None:
    answer = ask(api, "GET", "/api/v1/credentials", None, None, **headers)
    assert refused(answer) == 401
    assert answer[1]["WWW-Authenticate"].startswith("Basic")


# ---- other sites


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize(
    ("method", "path", "content_type"),
    [
        ("POST", "/api/v1/gateways/africas-talking/test", "text/plain"),
        ("POST", "/api/v1/messages", JSON),
        ("POST", "/api/sms", JSON),
        ("PUT", "/api/v1/settings", JSON),
        ("PUT", "/api/v1/credentials/x", "text/plain"),
        ("DELETE", "/api/v1/credentials/x", "text/plain"),
        ("GET", "/sms/invoke-bulk-sms?phone=0711000111", "text/plain"),
    ],
)
def test_no_page_of_another_site_acts_in_a_user_s_name(
    api: Process, admin: Login, method: str, path: str, content_type: str, site: str
) -> None:
    """A browser sends its user's login along with whatever another page asks for."""
    answer = ask(api, method, path, b"{}", admin, Content_Type=content_type, Sec_Fetch_Site=site)
    assert refused(answer) == 403
    assert b"another site" in answer[2]


PAGES = [
    ("Origin", "http://evil.example", 403),
    ("Origin", "null", 403),
    ("Origin", "http://{host}.evil.example", 403),
    ("Origin", "http://evil.example/{host}", 403),
    ("Referer", "http://evil.example/{host}/", 403),
    ("Origin", "http://{host}", 400),
    ("Referer", "https://{host}/api/docs", 400),
]


@pytest.mark.parametrize(("header", "page", "status"), PAGES)
def test_by_plain_http_a_browser_tells_whose_page_asks(
    api: Process, admin: Login, header: str, page: str, status: int
) -> None:
    """Sec-Fetch-Site is for https and localhost alone."""
    told = {header: page.format(host=f"127.0.0.1:{api.port}")}
    for method in ("GET", "POST"):
        answer = requests.request(method, f"{api.url}/sms/invoke-bulk-sms", auth=admin, headers=told, timeout=30)
        assert answer.status_code == status


def test_a_form_cannot_try_a_service(api: Process, admin: Login) -> None:
    """Browsers without Sec-Fetch-Site: what forms can post is refused."""
    body = b'{"to":"+254711000111","a":"="}'
    answer = ask(api, "POST", "/api/v1/gateways/africas-talking/test", body, admin, Content_Type="text/plain")
    assert refused(answer) == 415


# ---- the wire


SMUGGLED = [
    b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /api/info HTTP/1.1\r\nHost: x\r\n\r\n",
    b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
    b"Content-Length: +4\r\n\r\nabcd",
    b"Content-Length: 4, 4\r\n\r\nabcd",
    b"Content-Length: -1\r\n\r\n",
    b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    b"X: a\r\n folded\r\n\r\n",
    b"X: a\0b\r\n\r\n",
    b"X: a\rb\r\n\r\n",
    b"X_Forwarded_For: 10.0.0.1\r\n\r\n",
    b"A: " + b"x" * 9_000 + b"\r\n\r\n",
    b"".join(b"A%d: x\r\n" % n for n in range(200)) + b"\r\n",
]


@pytest.mark.parametrize("headers", SMUGGLED)
def test_one_request_is_not_two(api: Process, headers: bytes) -> None:
    with closing(socket.create_connection(("127.0.0.1", api.port), timeout=60)) as client:
        client.sendall(b"POST " + CALLBACK.encode() + b" HTTP/1.1\r\nHost: x\r\n" + headers)
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := client.recv(65536):
            answer += chunk
    assert answer.count(b"HTTP/1.1 ") <= 1
    assert b" 200 " not in answer
    assert b'"couchdb"' not in answer
    if answer:
        assert b"X-Content-Type-Options: nosniff" in answer
        assert b"<html>" not in answer
    shows_nothing(answer)


HEAD = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
POST = b"POST " + CALLBACK.encode() + b" HTTP/1.1\r\nHost: x\r\n"
TEXT = leaks.text("nitakufa kesho asubuhi")
TOKEN = leaks.secret("a-token-that-no-log-shows")
WORDS = b"id=1&from=%2B254711000177&text=" + leaks.text(TEXT.replace(" ", "+")).encode()


@pytest.mark.parametrize(
    ("sent", "kind"),
    [
        (POST + b"Content-Length: 3\r\n\r\n" + WORDS + b"\r\n\r\n", "InvalidRequestLine"),
        (POST + b"\r\n" + WORDS + b"\r\n\r\n", "InvalidRequestLine"),
        (POST + b"\r\n" + b'{"text": "' + TEXT.encode() + b'"}\r\n\r\n', "InvalidRequestMethod"),
        (POST + b"Content-Length: 0\r\n\r\n" + WORDS + b" / HTTP/1.1\r\n\r\n", "InvalidRequestMethod"),
        (b"GET /x HTTP/" + TOKEN.encode() + b"\r\n\r\n", "InvalidHTTPVersion"),
        (HEAD + b"Authorization Basic " + TOKEN.encode() + b"\r\n\r\n", "InvalidHeader"),
        (HEAD + b"X-Viber-Auth-Token " + TOKEN.encode() + b"\r\n\r\n", "InvalidHeader"),
        (HEAD + b"Authorization : Basic " + TOKEN.encode() + b"\r\n\r\n", "InvalidHeaderName"),
        (HEAD + b"Authorization: Basic\r\n " + TOKEN.encode() + b"\r\n\r\n", "ObsoleteFolding"),
        (HEAD + b"Expect: " + TOKEN.encode() + b"\r\n\r\n", "ExpectationFailed"),
        (HEAD + b"Transfer-Encoding: " + TOKEN.encode() + b"\r\n\r\n", "UnsupportedTransferCoding"),
    ],
)
def test_nothing_of_what_is_no_request_gets_into_the_log(api: Process, sent: bytes, kind: str) -> None:
    before = len(api.log())
    with closing(socket.create_connection(("127.0.0.1", api.port), timeout=60)) as client:
        client.sendall(sent)
        while client.recv(65536):
            pass
    eventually(lambda: "no HTTP request" in api.log()[before:])
    lines = [json.loads(line) for line in api.log()[before:].splitlines()]
    [line] = [line for line in lines if line["event"] == "no HTTP request"]
    facts = {name: value for name, value in line.items() if name not in ("timestamp", "event")}
    assert facts == {"kind": kind, "address": "127.0.0.1", "level": "warning"}
    for secret in (TEXT, TEXT.replace(" ", "+"), TOKEN, "254711000177", KEY):
        assert secret not in api.log()[before:]


@pytest.mark.parametrize("chunk", [WORDS, b"5\r\n" + WORDS, b"fff\r\n" + WORDS, b"5\r\nid=1&\r\n" + WORDS])
def test_nothing_of_a_body_whose_chunks_are_none_gets_into_the_log(api: Process, chunk: bytes) -> None:
    before = len(api.log())
    with closing(socket.create_connection(("127.0.0.1", api.port), timeout=60)) as client:
        client.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunk)
        client.shutdown(socket.SHUT_WR)
        while client.recv(65536):
            pass
    eventually(lambda: '"request"' in api.log()[before:])
    for secret in (TEXT.replace(" ", "+"), "254711000177", KEY):
        assert secret not in api.log()[before:]


@pytest.mark.parametrize("path", ["/x%3Fkey%3D", "/x%253Fkey%253D", "/x%3Fk%2565y%3D", "/x%2Fkey=", "/x?key="])
def test_a_key_in_a_path_is_not_logged(api: Process, path: str) -> None:
    before = len(api.log())
    assert refused(ask(api, "GET", path + KEY)) == 404
    eventually(lambda: '"request"' in api.log()[before:])
    assert KEY not in api.log()[before:]
