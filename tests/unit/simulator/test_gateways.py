"""Each gateway against its twin, over real HTTP: what one side writes the other reads, in both directions."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Mapping
from typing import Any

import pytest
from flask import Request
from werkzeug.test import EnvironBuilder

from api.bodies import callback_request
from mjumbe import settings
from mjumbe.documents import DeliveryReport, IncomingMessage, Notice
from mjumbe.gateways import SERVICES
from mjumbe.gateways.base import Batch, CallbackRequest, Failure, Gateway, Outcome, SendError, Wiring
from mjumbe.states import State
from simulator.viber import user_of

NUMBER = "+254711000001"
SECRETS = {"textbee:incoming": "textbee-secret", "viber:outgoing": "viber-token", "rapidpro:incoming": "rapidpro-key"}


def gateway(lab: Any, name: str, key: str = "right-key") -> Gateway:
    """The service's gateway, its address the simulator's."""
    url = lab.simulator.url.rstrip("/")
    sections = {
        "textbee": {"base_url": f"{url}/api/v1", "device_id": "simulated"},
        "viber": {"base_url": f"{url}/pa", "sender_name": "Mtandao"},
        "rapidpro": {"url": url},
    }
    values = settings.parse({"sms": {name: sections[name] | {"read_timeout": 20}}})
    return SERVICES[name].build(Wiring(values, lambda _: key, address_of=user_of))


async def sent(lab: Any, name: str, number: str, key: str = "right-key") -> Outcome:
    """The outcome of a message, also of a request that failed as a whole."""
    try:
        [outcome] = await asyncio.to_thread(gateway(lab, name, key).send, Batch("a@b 😀", (number,)))
    except SendError as error:
        return error.outcome
    return outcome


FAULTS = [  # service, the number's ending, how the message fails, the state that is final
    ("textbee", "99400", Failure.PERMANENT, State.FAILED),
    ("textbee", "99410", Failure.CONFIGURATION, None),
    ("textbee", "99411", Failure.CONFIGURATION, None),
    ("textbee", "99420", Failure.QUOTA, None),
    ("textbee", "99421", Failure.QUOTA, None),
    ("textbee", "99422", Failure.QUOTA, None),
    ("textbee", "99430", Failure.RETRY, None),
    ("viber", "99902", Failure.CONFIGURATION, None),
    ("viber", "99906", Failure.PERMANENT, State.DENIED),
    ("viber", "99911", Failure.PERMANENT, State.FAILED),
    ("viber", "99912", Failure.QUOTA, None),
    ("viber", "99924", Failure.CONFIGURATION, None),
    ("viber", "99999", Failure.RETRY, None),
    ("rapidpro", "99400", Failure.PERMANENT, State.FAILED),
    ("rapidpro", "99403", Failure.CONFIGURATION, None),
    *((name, "99802", Failure.AMBIGUOUS, None) for name in ("textbee", "viber", "rapidpro")),
    *((name, "99803", Failure.AMBIGUOUS, None) for name in ("textbee", "viber", "rapidpro")),
    *((name, "99804", Failure.RETRY, None) for name in ("textbee", "viber", "rapidpro")),
    *((name, "99805", Failure.QUOTA, None) for name in ("textbee", "viber", "rapidpro")),
    *((name, "99806", Failure.AMBIGUOUS, None) for name in ("textbee", "viber", "rapidpro")),
]


@pytest.mark.parametrize(("name", "ending", "failure", "state"), FAULTS)
def test_every_failure(play: Any, name: str, ending: str, failure: Failure, state: State | None) -> None:
    async def scenario(lab: Any) -> None:
        outcome = await sent(lab, name, f"+2547110{ending}")
        assert (outcome.failure, outcome.state) == (failure, state)

    play(scenario)


@pytest.mark.parametrize("name", ["textbee", "viber", "rapidpro"])
def test_a_wrong_key(play: Any, name: str) -> None:
    async def scenario(lab: Any) -> None:
        assert (await sent(lab, name, NUMBER, "wrong")).failure is Failure.CONFIGURATION
        assert not (await asyncio.to_thread(gateway(lab, name, "wrong").check)).ok
        assert (await asyncio.to_thread(gateway(lab, name).check)).ok

    play(scenario)


def posted(lab: Any, n: int) -> CallbackRequest:
    """What the receiver got as its n-th callback, read as the API reads it."""
    _, content_type, body = lab.receiver.posts[n]
    headers = lab.receiver.headers[n]
    builder = EnvironBuilder(method="POST", data=body, content_type=content_type, headers=headers)
    return callback_request(Request(builder.get_environ()))


def matches(credential_id: str, given: str, made_of: Any = str) -> bool:
    value = SECRETS.get(credential_id)
    return value is not None and hmac.compare_digest(made_of(value), given)


def records(name: str, request: CallbackRequest) -> list[Any]:
    callbacks = SERVICES[name].callbacks
    assert callbacks is not None
    assert callbacks.authenticate(request, matches)
    [parser] = callbacks.parsers.values()
    return list(parser(request))


@pytest.mark.parametrize(
    ("name", "ending", "states"),
    [
        ("textbee", "00001", [State.SENT, State.DELIVERED]),
        ("textbee", "99605", [State.FAILED]),
        ("textbee", "99609", [None]),
        ("viber", "00001", [State.DELIVERED, State.DELIVERED]),
        ("viber", "99606", [State.FAILED]),
    ],
)
def test_reports(play: Any, name: str, ending: str, states: list[State | None]) -> None:
    async def scenario(lab: Any) -> None:
        outcome = await sent(lab, name, f"+2547110{ending}")
        await lab.callbacks(len(states))
        reports = [record for n in range(len(states)) for record in records(name, posted(lab, n))]
        assert [report.state for report in reports] == states
        assert {report.ref for report in reports} == {outcome.ref}

    play(scenario)


@pytest.mark.parametrize(
    ("name", "ending", "state"),
    [
        ("textbee", "99602", State.FORWARDED_BY_GATEWAY),
        ("textbee", "99605", State.FAILED),
        ("rapidpro", "00001", State.DELIVERED),
        ("rapidpro", "99606", State.FAILED),
        ("rapidpro", "99601", State.FORWARDED_BY_GATEWAY),
    ],
)
def test_asking_for_statuses(play: Any, name: str, ending: str, state: State) -> None:
    async def scenario(lab: Any) -> None:
        outcome = await sent(lab, name, f"+2547110{ending}")
        asked = gateway(lab, name)
        while True:
            [report] = await asyncio.to_thread(asked.statuses, [outcome.ref])
            if report.state is state:
                break
        assert isinstance(report, DeliveryReport)
        assert (report.ref, report.phone) == (outcome.ref, f"+2547110{ending}")

    play(scenario)


@pytest.mark.parametrize("name", ["textbee", "viber", "rapidpro"])
def test_the_text_arrives_as_it_was(play: Any, name: str) -> None:
    async def scenario(lab: Any) -> None:
        assert (await sent(lab, name, NUMBER)).failure is None
        [accepted] = (await lab.json("GET", "/messages"))["messages"]
        assert (accepted["to"], accepted["message"]) == (NUMBER, "a@b 😀")

    play(scenario)


INCOMING: Mapping[str, str] = {"textbee": NUMBER, "viber": user_of(NUMBER), "rapidpro": NUMBER}


@pytest.mark.parametrize("name", INCOMING)
def test_incoming_messages_and_wrong_signatures(play: Any, name: str) -> None:
    async def scenario(lab: Any) -> None:
        told = {"from": NUMBER, "text": "register+4711 é", "id": "4912661846655238145"}
        await lab.json("POST", f"/incoming/{name}", told)
        message, *more = records(name, posted(lab, 0))
        assert isinstance(message, IncomingMessage)
        assert (message.sender, message.text, message.ref) == (INCOMING[name], told["text"], told["id"])
        assert [type(record) for record in more] == ([Notice] if name == "viber" else [])
        await lab.json("PUT", "/control", {"wrong_signatures": True})
        await lab.json("POST", f"/incoming/{name}", told)
        callbacks = SERVICES[name].callbacks
        assert callbacks is not None
        assert not callbacks.authenticate(posted(lab, 1), matches)

    play(scenario)


def test_textbees_inbox_has_what_the_webhook_told(play: Any) -> None:
    async def scenario(lab: Any) -> None:
        await lab.json("POST", "/incoming/textbee", {"from": NUMBER, "text": "Habari", "id": "s1"})
        inbox = await asyncio.to_thread(gateway(lab, "textbee").inbox, None)
        assert inbox.messages == records("textbee", posted(lab, 0))

    play(scenario)
