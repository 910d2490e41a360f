"""Each service that we call, against its simulator: out, in, what becomes of messages, proof, and every failure."""

import itertools
import json
from collections.abc import Iterator
from datetime import timedelta

import pytest
import requests

from mjumbe import states
from mjumbe.gateways import CALLBACKS, SERVICES
from tests.integration.gateways.town import AT, CALLED, RAPIDPRO, TEXTBEE, VIBER, Town
from tests.integration.processes import eventually, nothing_stored
from tests.integration.sentinel.world import SOON, number

NOWHERE = "http://127.0.0.1:9/"  # where callbacks are lost
texts = (f"text {n}" for n in itertools.count(1))


def person(town: Town, service: str, ending: str = "00001") -> str:
    """The number of somebody whom the service reaches."""
    made = number(ending)
    if service == VIBER:
        town.register(made)
    return made


# ---- out


@pytest.mark.parametrize("service", CALLED)
@pytest.mark.parametrize("text", ['Habari @mama, 50% + 1 = ?\n{{x}} \\ "é" ñ', "ሰላም 😀 " * 20])
def test_a_message_arrives_as_it_was_written(town: Town, service: str, text: str) -> None:
    to = person(town, service)
    doc_id = town.write(to, f"{text} {to}", via=service)
    task = town.until_task(doc_id, lambda task: task.get("gateway_ref"))
    (accepted,) = town.at(service).messages(f"{text} {to}")
    assert (accepted["to"], accepted["message_id"]) == (to, task["gateway_ref"])
    assert (task["service"], task["attempts"]) == (service, 1)
    if service == RAPIDPRO:
        town.polls().ask_all()
    town.until(doc_id, "delivered")


@pytest.mark.parametrize(
    ("service", "ending", "expected"),
    [
        (AT, "99602", ["sent"]),
        (AT, "99607", ["sent", "failed"]),
        (AT, "99612", ["sent", "failed", "delivered"]),
        (AT, "99702", ["sent", "delivered"]),
        (TEXTBEE, "99601", ["received-by-gateway", "sent"]),
        (TEXTBEE, "99604", ["received-by-gateway", "delivered"]),
        (TEXTBEE, "99607", ["received-by-gateway", "failed"]),
        (TEXTBEE, "99702", ["received-by-gateway", "delivered"]),
        (VIBER, "99601", ["forwarded-by-gateway", "delivered"]),
        (VIBER, "99606", ["forwarded-by-gateway", "failed"]),
        (VIBER, "99702", ["forwarded-by-gateway", "delivered"]),
    ],
)
def test_reports_that_are_posted(town: Town, service: str, ending: str, expected: list[str]) -> None:
    """Each state that a report brings, in order; a repeated report is in the history once."""
    doc_id = town.write(person(town, service, ending), next(texts), via=service)
    task = town.until(doc_id, expected[-1])
    # A report that tells no more than the answer did may have come by now, or not: it moves nothing.
    moved = [entry["state"] for entry in task["state_history"] if not entry.get("late")]
    assert [state for state in moved if state not in ("pending", "forwarded-to-gateway")] == expected


@pytest.mark.parametrize(
    ("service", "ending", "state", "details"),
    [
        (RAPIDPRO, "99601", "forwarded-by-gateway", "wired"),
        (RAPIDPRO, "99602", "sent", "sent"),
        (RAPIDPRO, "99603", "sent", "resent"),
        (RAPIDPRO, "99605", "received-by-gateway", "errored"),
        (RAPIDPRO, "99606", "failed", "failed"),
        (RAPIDPRO, "99607", "delivered", "read"),
        (RAPIDPRO, "99609", "received-by-gateway", "teleported"),
        (RAPIDPRO, "99700", "received-by-gateway", "queued"),
        (TEXTBEE, "99602", "forwarded-by-gateway", "dispatched"),
    ],
)
def test_statuses_that_are_asked_for(town: Town, service: str, ending: str, state: str, details: str) -> None:
    doc_id = town.write(number(ending), next(texts), via=service)
    town.until_task(doc_id, lambda task: task.get("gateway_ref"))
    town.polls().ask_all()
    town.polls().ask_all()
    task = town.until_task(doc_id, lambda task: details in [entry.get("report") for entry in task["state_history"]])
    assert task["state"] == state
    assert [entry.get("report") for entry in task["state_history"]].count(details) == 1, "asked twice, noted once"


def test_what_the_phone_could_not_send_is_tried_again(town: Town) -> None:
    """Its network was away: bounded, by the same service, and whatever became of the attempt before is kept."""
    town.set(sms={"max_attempts": 2})
    text = next(texts)
    given_up = town.write(number("99606"), text, via=TEXTBEE)
    assert "gave up after 2 attempts: failed (RADIO_OFF" in town.until(given_up, "failed")["state_details"]
    assert len(town.accepted(text)) == 2
    town.set(sms={"max_attempts": 10, "retry_base": 600, "outgoing_service": TEXTBEE, "fallback_services": [AT]})
    doc_id = town.write(number("99605"), next(texts))
    waiting = town.until_task(doc_id, lambda task: task.get("retry_at"))
    assert (waiting["state"], waiting["attempts"], waiting["via"]) == ("pending", 1, TEXTBEE)
    town.clear(doc_id)
    town.set(sms={"retry_base": 1, "outgoing_service": AT, "fallback_services": []})


# ---- in


@pytest.mark.parametrize("service", CALLED)
@pytest.mark.parametrize("text", ["Habari {}", "ሰላም 😀 & = + % {}"])
def test_a_message_comes_in_once_however_often_it_is_posted(town: Town, service: str, text: str) -> None:
    sender = number()
    text = text.format(sender)
    ref = str(5136431130449316000 + int(sender[-8:]))
    answers = town.hear(service, sender, text, id=ref, repeat=6, concurrency=3)
    assert [answer["status"] for answer in answers] == [200] * 6
    assert sorted(json.loads(answer["answer"])["saved"] for answer in answers) == [0, 0, 0, 0, 0, 1]
    (doc,) = town.incoming(text)
    assert (doc["sms_message"]["gateway"], doc["sms_message"]["gateway_ref"]) == (service, ref)
    assert doc["from"] == sender or service == VIBER


@pytest.mark.parametrize("service", CALLED)
def test_a_keyword_is_answered(town: Town, service: str) -> None:
    answer, sender = next(texts), person(town, service)
    town.set(sms={"replies": [{"keyword": "MSAADA", "message": answer}]})
    town.hear(service, sender, "Msaada")
    eventually(lambda: town.accepted(answer) == [sender], SOON)


@pytest.mark.parametrize("alias", ["/api/v1/sms/radpidpro/incoming-messages", "/api/v2/sms/rapidpro/incoming-messages"])
def test_both_addresses_of_rapidpro(town: Town, alias: str) -> None:
    text = next(texts)
    answers = town.hear(RAPIDPRO, number(), text, url=town.api.url + alias)
    assert [answer["status"] for answer in answers] == [200]
    assert len(town.incoming(text)) == 1


def test_an_inbox_tells_of_a_message_whose_callback_never_came(own_town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """TextBee's has the ids of its callbacks, Africa's Talking's has not; both have what came by callback, too."""
    monkeypatch.setattr("sentinel.polls.SPOOL_SECONDS", 0)
    town, missed, came, sender = own_town, next(texts), next(texts), number()
    sent = (states.now() - timedelta(minutes=10)).strftime("%Y-%m-%d %H:%M:%S")
    for service, more in ((AT, {"date": sent}), (TEXTBEE, {})):
        town.hear(service, sender, f"{missed} {service}", url=NOWHERE, **more)
        answers = town.hear(service, sender, f"{came} {service}", **more)
        assert [answer["status"] for answer in answers] == [200]
    for _ in range(2):
        town.polls().ask_all()
    for service in (AT, TEXTBEE):
        assert [doc["from"] for doc in town.incoming(f"{missed} {service}")] == [sender]
        assert len(town.incoming(f"{came} {service}")) == 1


# ---- proof


REFUSALS = {AT: 403, TEXTBEE: 401, VIBER: 401, RAPIDPRO: 403}


@pytest.fixture
def forged(town: Town) -> Iterator[None]:
    town.twins.control(wrong_signatures=True)
    yield
    town.twins.control(wrong_signatures=False)


@pytest.mark.parametrize("service", CALLED)
def test_a_wrong_signature_stores_nothing(town: Town, forged: None, service: str) -> None:
    text, refusal = next(texts), REFUSALS[service]
    more = {"url": f"{town.api.url}/api/v1/sms/africastalking/incoming-messages?key=wrong"} if service == AT else {}
    answers = town.hear(service, number(), text, **more)
    assert [answer["status"] for answer in answers] == [refusal]
    assert town.incoming(text) == []


@pytest.mark.parametrize("service", CALLED)
def test_no_proof_stores_nothing(town: Town, service: str) -> None:
    callbacks = SERVICES[service].callbacks
    assert callbacks is not None
    assert callbacks in CALLBACKS.values()
    with nothing_stored(town.couch.main, town.couch.callbacks):
        for path in callbacks.paths():
            answer = requests.post(town.api.url + path, data=b'{"event":"message"}', timeout=30)
            assert answer.status_code == REFUSALS[service], path


VIBERS_TOKEN = "44b935abea139fd6-53fa53b32559c4a6-12dbd3d883b06835"
VIBERS_BODY = (
    b'{"event":"unsubscribed","timestamp":1516678387902,"user_id":"KMMqtlNTDxIm/5bZhdQ5uA==",'
    b'"message_token":5136431130449316903}'
)
VIBERS_SIGNATURE = "d84d8648b402a2737838fea4da41d903d1af1aed92466b1758828ad27e31a9f9"


def test_vibers_check_vector(own_town: Town) -> None:
    own_town.vault.set("viber:outgoing", VIBERS_TOKEN)
    headers = {"X-Viber-Content-Signature": VIBERS_SIGNATURE, "Content-Type": "application/json"}

    def post(body: bytes) -> int:
        url = f"{own_town.api.url}/api/v1/sms/viber/events"
        return requests.post(url, data=body, headers=headers, timeout=30).status_code

    assert post(VIBERS_BODY) == 200
    assert [doc["_id"] for doc in own_town.couch.callbacks.beginning_with("")] == [
        "viber-user:viber:5136431130449316903"
    ], "no digit of the token is lost"
    for altered in (VIBERS_BODY.replace(b":", b": "), VIBERS_BODY + b"\n", VIBERS_BODY.replace(b"903}", b"904}")):
        assert post(altered) == 401


# ---- failures

PERMANENT = [
    (AT, "99403", "failed", "InvalidPhoneNumber"),
    (AT, "99404", "failed", "UnsupportedNumberType"),
    (TEXTBEE, "99400", "failed", "HTTP 400: Message cannot be blank"),
    (VIBER, "99903", "failed", "badData"),
    (VIBER, "99906", "denied", "receiverNotSubscribed"),
    (RAPIDPRO, "99400", "failed", "HTTP 400: urns: Invalid URN"),
]


@pytest.mark.parametrize(("service", "ending", "state", "details"), PERMANENT)
def test_permanent(town: Town, service: str, ending: str, state: str, details: str) -> None:
    text = next(texts)
    task = town.until(town.write(person(town, service, ending), text, via=service), state)
    assert (task["state_details"], task["attempts"]) == (details, 1)
    assert len(town.at(service).requests(text)) == 1
    assert town.why_held(service) == ""


PASSING = [
    (AT, "99500", "InternalServerError"),
    (AT, "99804", "HTTP 500"),
    (TEXTBEE, "99430", "an answer without success"),
    (TEXTBEE, "99804", "HTTP 500"),
    (VIBER, "99804", "HTTP 500"),
    (RAPIDPRO, "99804", "HTTP 500"),
]


@pytest.mark.parametrize(("service", "ending", "details"), PASSING)
def test_passing_trouble_is_tried_again(town: Town, service: str, ending: str, details: str) -> None:
    text = next(texts)
    doc_id = town.write(person(town, service, ending), text, via=service)
    task = town.until_task(doc_id, lambda task: task.get("attempts", 0) >= 2)
    town.clear(doc_id)
    assert details in [entry.get("state_details") for entry in task["state_history"]]
    assert "in_doubt" not in task


def test_a_status_that_nobody_knows_is_tried_three_times(town: Town) -> None:
    text = next(texts)
    task = town.until(town.write(person(town, VIBER, "99999"), text, via=VIBER), "failed")
    assert task["state_details"] == "gave up after 3 attempts: status 99: generalError"
    assert len(town.twins.requests(text)) == 3


HOLDING = [  # one for the account, one for what is used up
    (AT, "99405", "InsufficientBalance"),
    (AT, "99805", "HTTP 429: too many requests"),
    (TEXTBEE, "99410", "Device does not exist or is not enabled"),
    (TEXTBEE, "99420", "You have reached your daily limit"),
    (TEXTBEE, "99608", "failed (PERMISSION_DENIED: "),  # it took the message first
    (VIBER, "99910", "webhookNotSet"),
    (VIBER, "99912", "tooManyRequests"),
    (RAPIDPRO, "99403", "HTTP 403"),
    (RAPIDPRO, "99805", "HTTP 429: too many requests"),
]


@pytest.mark.parametrize(("service", "ending", "reason"), HOLDING)
def test_trouble_of_the_account_holds_the_service_and_costs_no_attempt(
    town: Town, service: str, ending: str, reason: str
) -> None:
    assert town.api.url, "it hears reports"
    town.set(sms={"outgoing_service": service})
    text = next(texts)
    doc_id = town.write(person(town, service, ending), text, via=service)
    try:
        town.until_held(service, reason)
        town.until_task(doc_id, lambda task: (task["state"], task.get("attempts")) == ("pending", 0))
    finally:
        town.clear(doc_id)
        town.free(service)
        town.set(sms={"outgoing_service": AT})


IN_DOUBT = [(service, ending) for service in CALLED for ending in ("99802", "99806")]


@pytest.fixture
def doubted(town: Town) -> Iterator[None]:
    """Nothing settles what is in doubt."""
    town.set(sms={"in_doubt": "hold"})
    for at in (town.simulator, town.twins):
        at.control(reports=False)
    yield
    for at in (town.simulator, town.twins):
        at.control(reports=True)
    town.set(sms={"in_doubt": "retry"})


@pytest.mark.parametrize(("service", "ending"), IN_DOUBT)
def test_a_request_without_a_usable_answer_leaves_in_doubt(
    town: Town, doubted: None, service: str, ending: str
) -> None:
    text = next(texts)
    doc_id = town.write(person(town, service, ending), text, via=service)
    task = town.until_task(doc_id, lambda task: task.get("in_doubt"))
    assert task["state"] == "forwarded-to-gateway"
    assert len(town.at(service).requests(text)) == 1
    town.clear(doc_id)
