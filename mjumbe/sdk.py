"""IBM's Cloudant SDK with a way of its own to the wire.

The SDK's operations stay as they are; what a request costs between them and the socket is ours. The SDK and requests
build each one from cookie jars, hooks, redirects, proxies and a guessed charset, none of which a CouchDB needs, and
that was more than half of a write's processor time.
"""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import requests
from ibm_cloud_sdk_core import ApiException, DetailedResponse
from ibmcloudant.cloudant_v1 import CloudantV1
from requests.structures import CaseInsensitiveDict

from mjumbe.login import SessionAuthenticator

Timeout = tuple[float, float]  # connecting, and waiting for an answer, in seconds
JSON = {"Accept": "application/json", "Content-Type": "application/json"}


class Client(CloudantV1):  # type: ignore[misc]
    """The SDK's client of one server; what it is asked for by `prepare_request` and `send` takes the short way.

    Only the login goes by the SDK's own.
    """

    def __init__(self, authenticator: Any, session: requests.Session, server_url: str, timeout: Timeout) -> None:
        super().__init__(authenticator=authenticator)
        self.set_http_client(session)
        self.set_service_url(server_url)
        self.set_http_config({"timeout": timeout})
        self._timeout = timeout
        self._session = session

    def prepare_request(
        self,
        method: str,
        url: str,
        *_: Any,
        params: Mapping[str, Any] | None = None,
        data: str | Mapping[str, Any] | None = None,
        **__: Any,
    ) -> requests.PreparedRequest:
        """A request for `send`: `url` is a path, already quoted; None in `params` and `data` stands for nothing."""
        query = {name: _word(value) for name, value in (params or {}).items() if value is not None}
        body = data if isinstance(data, str) or data is None else json.dumps(_given(data))
        prepared = requests.PreparedRequest()
        prepared.method = method
        prepared.url = self.service_url + url + (f"?{urlencode(query)}" if query else "")
        prepared.headers = CaseInsensitiveDict(JSON)
        prepared.body = body.encode() if body is not None else None
        if prepared.body is not None or method in ("PUT", "POST"):
            prepared.headers["Content-Length"] = str(len(prepared.body or b""))
        return prepared

    def send(self, request: requests.PreparedRequest, **_: Any) -> DetailedResponse:
        """Make the request. Raises ApiException with CouchDB's own words, and what requests and a login raise."""
        if isinstance(self.authenticator, SessionAuthenticator):
            request.headers["Cookie"] = self.authenticator.cookie()
        response = self._session.get_adapter(str(request.url)).send(
            request, timeout=self._timeout, verify=self._session.verify or True
        )
        if response.status_code >= 300:
            raise ApiException(response.status_code, message=_reason(response), http_response=response)
        return DetailedResponse(response=_decoded(response), headers=response.headers, status_code=response.status_code)


def _word(value: Any) -> Any:
    """A query's value as CouchDB reads it."""
    return json.dumps(value) if isinstance(value, bool) else value


def _given(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if value is not None}


def _decoded(response: requests.Response) -> Any:
    try:
        return response.json()
    except requests.exceptions.JSONDecodeError:
        raise
    except ValueError:  # JSON, but with a whole number of more digits than Python reads (sys.set_int_max_str_digits)
        return response.json(parse_int=_whole)


def _whole(digits: str) -> int | float:
    """The number, infinite where it is too long: one odd document must keep no other from being read."""
    try:
        return int(digits)
    except ValueError:
        return float(digits)


def _reason(response: requests.Response) -> str:
    """`error: reason` of CouchDB's answer; of what is none the beginning."""
    try:
        answer = response.json()
        return f"{answer['error']}: {answer['reason']}" if answer.get("reason") else str(answer["error"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return response.text[:200]
