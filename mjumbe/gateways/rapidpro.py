"""RapidPro and TextIt: https://rapidpro.io/api/v2/

A message is a broadcast to one URN, and the broadcast's id its reference. RapidPro posts no reports: it is asked.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import requests

from mjumbe.documents import DeliveryReport, IncomingMessage
from mjumbe.gateways.base import (
    Batch,
    CallbackRecord,
    CallbackRequest,
    Callbacks,
    Check,
    Definition,
    Failure,
    Gateway,
    Matches,
    Outcome,
    SendError,
    Wiring,
    ask_each,
    dig,
    failed_check,
    objects,
    sending_outcome,
)
from mjumbe.settings import Settings
from mjumbe.states import State

NAME = "rapidpro"
OUTGOING_CREDENTIAL = "rapidpro:outgoing"
INCOMING_CREDENTIAL = "rapidpro:incoming"

# https://rapidpro.io/api/v2/messages, "status". Any other keeps the state.
STATES: Mapping[str, State] = {
    "queued": State.RECEIVED_BY_GATEWAY,
    "wired": State.FORWARDED_BY_GATEWAY,
    "sent": State.SENT,
    "resent": State.SENT,
    "delivered": State.DELIVERED,
    "read": State.DELIVERED,
    "errored": State.RECEIVED_BY_GATEWAY,  # RapidPro tries again
    "failed": State.FAILED,
}

URN_SCHEME = "tel:"
TOKEN = re.compile(r"Token\s+(.*)")


class RapidPro(Gateway):
    """One workspace."""

    def __init__(self, wiring: Wiring) -> None:
        section = wiring.settings.sms.rapidpro
        self._wiring = wiring
        self._api = f"{section.base_url or section.url or ''}/api/v2"
        self._http = wiring.http(section)

    def send(self, batch: Batch) -> list[Outcome]:
        """One request; sms.rapidpro.batch_size is 1. The text is a template there, where `@` begins an expression."""
        body = {
            "urns": [f"{URN_SCHEME}{number}" for number in batch.recipients],
            "text": batch.text.replace("@", "@@"),
        }
        url = f"{self._api}/broadcasts.json"
        answer = self._http.json("POST", url, json=body, headers=self._headers(), refusal=refused)
        return [read_answer(answer)] * len(batch.recipients)

    def check(self) -> Check:
        """The workspace, which only a right key gets."""
        try:
            answer = self._http.json("GET", f"{self._api}/workspace.json", headers=self._headers())
        except SendError as error:
            return failed_check("RapidPro", "the key", self._api, error)
        name = dig(answer, "name")
        if not name:
            return Check(False, "RapidPro gave an answer without a workspace; check sms.rapidpro.url")
        return Check(True, f"RapidPro took the key; its workspace is {name}")

    def statuses(self, refs: Sequence[str]) -> list[DeliveryReport]:
        """One request a reference; a workspace has about 2,500 an hour for everything."""
        return ask_each(refs, self._status)

    def _status(self, ref: str) -> list[DeliveryReport]:
        url, query = f"{self._api}/messages.json", {"broadcast": ref}
        answer = self._http.json("GET", url, params=query, headers=self._headers())
        # A server that does not know the filter any more answers with everybody's messages.
        rows = [row for row in objects(dig(answer, "results")) if str(row.get("broadcast")) == ref]
        return [_report(ref, row) for row in rows if row.get("status")]

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Token {self._wiring.secret(OUTGOING_CREDENTIAL)}"}


def read_answer(answer: Any) -> Outcome:
    """The outcome of a broadcast that was answered with a 2xx."""
    ref = dig(answer, "id") or dig(answer, "uuid")
    if not ref:
        return Outcome("an answer without a broadcast", failure=Failure.AMBIGUOUS)
    return Outcome(str(dig(answer, "status") or "queued"), State.RECEIVED_BY_GATEWAY, ref=str(ref))


def refused(response: requests.Response, body: Any) -> Outcome:
    """The outcome of a broadcast that was answered with another status; a 400's body says what is wrong."""
    outcome = sending_outcome(response)
    if response.status_code != 400:
        return outcome
    found = body.items() if isinstance(body, dict) else ()
    reason = "; ".join(f"{name}: {words[0] if isinstance(words, list) and words else words}" for name, words in found)
    return replace(outcome, details=f"HTTP 400: {reason}") if reason else outcome


def _report(ref: str, row: Mapping[str, Any]) -> DeliveryReport:
    status = str(row["status"]).lower()
    urn = str(row.get("urn") or "")
    reason = row.get("failed_reason") if status == "failed" else None
    return DeliveryReport(
        gateway=NAME,
        ref=ref,
        status=status,
        state=STATES.get(status),
        phone=urn.removeprefix(URN_SCHEME) if urn.startswith(URN_SCHEME) else None,
        reason=str(reason) if reason else None,
    )


def authenticate(request: CallbackRequest, matches: Matches) -> bool:
    """As CHT takes it: the header that RapidPro's own API wants."""
    given = TOKEN.fullmatch(request.headers.get("authorization", ""))
    return given is not None and matches(INCOMING_CREDENTIAL, given[1])


def parse_incoming(request: CallbackRequest) -> list[CallbackRecord]:
    """A message that a flow hands on: `{id, from, content}`, of which `from` may be a URN."""
    sender = request.required("from").removeprefix(URN_SCHEME)
    text = request.form.get("content", "")
    return [IncomingMessage(gateway=NAME, ref=request.required("id"), sender=sender, text=text)]


def missing(settings: Settings) -> list[str]:
    """RapidPro is many servers; there is none by default."""
    if settings.sms.rapidpro.base_url or settings.sms.rapidpro.url:
        return []
    return ["sms.rapidpro.url is not set; set it in /api/v1/settings"]


CALLBACKS = Callbacks(
    slug="rapidpro",
    credential=INCOMING_CREDENTIAL,
    authenticate=authenticate,
    parsers={"incoming-messages": parse_incoming},
    proof="the header Authorization: Token …",
    aliases={
        "/api/v2/sms/rapidpro/incoming-messages": "incoming-messages",  # CHT's
        "/api/v1/sms/radpidpro/incoming-messages": "incoming-messages",  # CHT's first, which flows still have
    },
)

DEFINITION = Definition(
    name=NAME,
    outgoing_credential=OUTGOING_CREDENTIAL,
    section=lambda settings: settings.sms.rapidpro,
    missing=missing,
    build=RapidPro,
    callbacks=CALLBACKS,
)
