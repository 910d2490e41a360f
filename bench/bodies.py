"""The requests of the loads, as bytes: callbacks as Africa's Talking posts them, and writes to a CouchDB."""

import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from urllib.parse import quote, urlencode, urlsplit

from bench.load import Job, Kind
from bench.seed import SHORT_CODE, TEXTS, sender
from mjumbe import documents
from mjumbe.documents import IncomingMessage
from mjumbe.gateways import africas_talking

EXPECTED: Mapping[Kind, bytes] = {
    "webhook": b'"saved":1',
    "report": b'"saved":1',
    "put": b'"ok":true',
    "bulk": b'"ok":true',
}
FORM = "application/x-www-form-urlencoded; charset=utf-8"


def message_id(tag: str, n: int) -> str:
    """The service's id of message `n`."""
    return f"ATXid_{tag}{n:08d}"


def incoming_form(ref: str, number: str, text: str) -> dict[str, str]:
    """https://developers.africastalking.com/docs/sms/notifications, incoming messages."""
    date = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"id": ref, "from": number, "to": SHORT_CODE, "text": text, "date": date, "networkCode": "63902"}


def report_form(ref: str, number: str) -> dict[str, str]:
    """The same page, delivery reports."""
    return {"id": ref, "status": "Success", "phoneNumber": number, "networkCode": "63902", "retryCount": "0"}


def request(method: str, url: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """A whole HTTP/1.1 request."""
    parts = urlsplit(url)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    lines = [f"{method} {path} HTTP/1.1", f"Host: {parts.netloc}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def _webhook(job: Job) -> Callable[[int], bytes]:
    return lambda n: _callback(job, incoming_form(message_id(job.tag, n), sender(n), TEXTS[n % len(TEXTS)]))


def _report(job: Job) -> Callable[[int], bytes]:
    return lambda n: _callback(job, report_form(message_id(job.tag, n), sender(n)))


def _callback(job: Job, form: Mapping[str, str]) -> bytes:
    return request("POST", job.url, {"Content-Type": FORM, **job.headers}, urlencode(form).encode())


def _document(tag: str, n: int) -> documents.Document:
    """What the API stores of the webhook with this number."""
    message = IncomingMessage(
        africas_talking.NAME, message_id(tag, n), sender(n), TEXTS[n % len(TEXTS)], SHORT_CODE, network_code="63902"
    )
    return documents.incoming_document(message, sender(n), int(time.time() * 1000))


def _put(job: Job) -> Callable[[int], bytes]:
    def make(n: int) -> bytes:
        doc = _document(job.tag, n)
        url = f"{job.url}/{quote(doc['_id'], safe='')}"
        return request("PUT", url, {"Content-Type": "application/json", **job.headers}, json.dumps(doc).encode())

    return make


def _bulk(job: Job) -> Callable[[int], bytes]:
    def make(n: int) -> bytes:
        docs = [_document(job.tag, n * job.docs + i) for i in range(job.docs)]
        body = json.dumps({"docs": docs}).encode()
        return request("POST", f"{job.url}/_bulk_docs", {"Content-Type": "application/json", **job.headers}, body)

    return make


MAKERS: Mapping[Kind, Callable[[Job], Callable[[int], bytes]]] = {
    "webhook": _webhook,
    "report": _report,
    "put": _put,
    "bulk": _bulk,
}
