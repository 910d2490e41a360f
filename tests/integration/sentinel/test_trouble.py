"""When the service, the account or the connection is in trouble: nothing is lost, and nothing sent twice needlessly."""

import itertools
import json
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import pytest
import requests

from mjumbe import states
from mjumbe.status import LEADER_ID
from sentinel.queue import CAPACITY
from tests.integration.processes import eventually
from tests.integration.sentinel.world import OUTGOING_KEY, SOON, World, entries, number

texts = (f"text {n}" for n in itertools.count(1))
HELD_SECONDS = 90.0  # a held service is asked once a minute


def free(world: World) -> None:
    """A changed setting is looked into at once, not after the minute."""
    world.set(sms={"africas_talking": {"read_timeout": 31}})


# ---- held


def test_no_balance(own_world: World) -> None:
    """The service is held and says so, few requests are made, and all goes on when there is money again."""
    world, text = own_world, next(texts)
    world.simulator.control(no_balance=True)
    world.start_sentinel()
    assert world.api.url
    ids = world.write_many([(number(f"{n:05}"), text) for n in range(30)])
    eventually(lambda: world.held() == "InsufficientBalance", SOON)
    held_at = len(world.simulator.requests(text))
    assert held_at <= 16, "at most what was under way"
    readiness = requests.get(f"{world.api.url}/readyz", timeout=30)
    assert readiness.status_code == 503
    assert "InsufficientBalance" in readiness.text
    late = world.write(number(), text)
    world.simulator.control(no_balance=False)
    assert set(world.states(ids)) == {"pending"}
    assert len(world.simulator.requests(text)) == held_at, "the minute is not over"
    free(world)
    eventually(lambda: set(world.states([*ids, late])) == {"delivered"}, SOON)
    assert len(world.simulator.messages(text)) == 31
    assert all(world.tasks(doc_id)[0]["attempts"] == 1 for doc_id in ids), "a held service costs no attempt"
    eventually(lambda: world.held() is None, SOON)


def test_a_wrong_key(own_world: World) -> None:
    world, text = own_world, next(texts)
    world.vault.set("africastalking.com:outgoing", "not-the-key")
    world.start_sentinel()
    assert world.api.url
    doc_id = world.write(number(), text)
    eventually(lambda: world.held() == "HTTP 401", SOON)
    assert [request["key"] for request in world.simulator.requests(text)] == ["wrong"]
    world.vault.set("africastalking.com:outgoing", OUTGOING_KEY)
    assert world.until(doc_id, "delivered")["attempts"] == 1
    assert len(world.simulator.requests(text)) == 2, "a new key is tried at once"


class Echo(BaseHTTPRequestHandler):
    """A service that refuses everything, and repeats what it was asked at length."""

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self._refuse(f"the key {self.headers['apiKey']} may not write to {form['to'][0]}" + "!" * 3_000_000)

    def do_GET(self) -> None:
        self._refuse(f"the key {self.headers['apiKey']} is none")

    def _refuse(self, message: str) -> None:
        body = json.dumps({"SMSMessageData": {"Message": message}, "UserData": {"balance": message}}).encode()
        self.send_response(201)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def echo() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_service_that_repeats_our_key(own_world: World, echo: str) -> None:
    """It gets into no history, no log, and nothing that everybody may read; the number not into the last of these."""
    world, text, to = own_world, next(texts), number()
    world.set(sms={"max_attempts": 100, "africas_talking": {"base_url": echo, "batch_size": 1}})
    world.start_sentinel()
    ids = world.write_many([(to, text)] * 6)
    eventually(lambda: "5 times in a row" in (world.held() or ""), SOON)
    ready = requests.get(f"{world.api.url}/readyz", timeout=30).text
    _, doctor = world.run("doctor")
    leader = json.dumps(world.couch.sentinel.get(LEADER_ID))
    for said in (ready, doctor, leader):
        assert "the key *** may not write to **********" in said
        assert to.removeprefix("+") not in said
    histories = json.dumps([world.tasks(doc_id) for doc_id in ids])
    assert f"the key *** may not write to {to}" in histories
    assert len(histories) < 20_000
    for said in (ready, doctor, leader, histories, *(process.log() for process in world._processes)):
        assert OUTGOING_KEY not in said


@pytest.mark.parametrize(
    ("credential", "settings", "reason"),
    [
        (None, {}, "no API key; PUT it to /api/v1/credentials/africastalking.com:outgoing"),
        (OUTGOING_KEY, {"username": ""}, "sms.africas_talking.username is not set; set it in /api/v1/settings"),
        (OUTGOING_KEY, {"enabled": False}, "it is switched off by sms.africas_talking.enabled"),
    ],
)
def test_not_configured_and_then_configured(
    own_world: World, credential: str | None, settings: dict[str, object], reason: str
) -> None:
    world, text = own_world, next(texts)
    if credential is None:
        world.vault.delete("africastalking.com:outgoing")
    world.set(sms={"africas_talking": settings})
    sentinel = world.start_sentinel()
    doc_id = world.write(number(), text)
    eventually(lambda: world.held() == reason, SOON)
    eventually(lambda: "No active SMS service" in sentinel.log(), SOON)
    assert world.tasks(doc_id)[0]["state"] == "pending"
    world.vault.set("africastalking.com:outgoing", OUTGOING_KEY)
    world.set(sms={"africas_talking": {"username": "sandbox", "enabled": True}})
    world.until(doc_id, "sent")
    assert sentinel.log().count("No active SMS service") == 1


def test_errors_open_the_breaker_and_nothing_is_lost(own_world: World) -> None:
    world, text = own_world, next(texts)
    world.set(sms={"max_attempts": 100, "africas_talking": {"batch_size": 1, "concurrency": 2}})
    world.simulator.control(error_rate=1.0)
    world.start_sentinel()
    ids = world.write_many([(number(f"{n:05}"), text) for n in range(40)])
    eventually(lambda: "HTTP 500" in (world.held() or ""), SOON)
    assert len(world.simulator.requests(text)) < 15, "it is left in peace"
    world.simulator.control(error_rate=0.0)
    eventually(lambda: set(world.states(ids)) == {"sent"}, HELD_SECONDS)
    assert len(world.simulator.messages(text)) == 40


def test_the_service_is_down(own_world: World) -> None:
    world, text = own_world, next(texts)
    world.simulator.control(down=True)
    world.start_sentinel()
    doc_id = world.write(number(), text)
    world.until_task(doc_id, lambda task: task.get("attempts"))
    world.simulator.control(down=False)
    world.until(doc_id, "sent", HELD_SECONDS)


# ---- in doubt


def test_in_doubt_is_sent_again(own_world: World) -> None:
    world, text = own_world, next(texts)
    world.simulator.control(drop_after_accept=True)
    world.start_sentinel()
    doc_id = world.write(number(), text)
    world.until_task(doc_id, lambda task: task.get("in_doubt"))
    world.simulator.control(drop_after_accept=False)
    task = world.until(doc_id, "sent")
    assert "in_doubt" not in task
    assert len(world.simulator.messages(text)) == 2, "at least once, and here twice"
    assert [entry.get("in_doubt") for entry in task["state_history"]].count(True) == task["attempts"] - 1


def test_in_doubt_is_held_and_a_report_settles_it(own_world: World) -> None:
    world, text = own_world, next(texts)
    world.set(sms={"in_doubt": "hold"})
    world.simulator.control(drop_after_accept=True, reports=False)
    assert world.api.url
    world.start_sentinel()
    to = number()
    doc_id = world.write(to, text)
    task = world.until_task(doc_id, lambda task: task.get("in_doubt"))
    assert task["state"] == "forwarded-to-gateway"
    assert "claim" not in task
    world.simulator.control(drop_after_accept=False)
    (accepted,) = world.simulator.messages(text)
    world.simulator.ask("POST", "/reports", {"id": accepted["message_id"], "status": "Success", "phoneNumber": to})
    task = world.until(doc_id, "delivered")
    assert task["gateway_ref"] == accepted["message_id"]
    assert "in_doubt" not in task
    assert len(world.simulator.messages(text)) == 1


@pytest.mark.parametrize(("sent", "after", "requests_made"), [(True, "sent", 1), (False, "delivered", 2)])
def test_in_doubt_is_held_and_a_person_settles_it(own_world: World, sent: bool, after: str, requests_made: int) -> None:
    world, text = own_world, next(texts)
    world.set(sms={"in_doubt": "hold"})
    world.simulator.control(drop_after_accept=True, reports=False)
    assert world.api.url
    world.start_sentinel()
    doc_id = world.write(number(), text)
    task = world.until_task(doc_id, lambda task: task.get("in_doubt"))
    world.simulator.control(drop_after_accept=False, reports=True)
    url = f"{world.api.url}/api/v1/messages/{task['messages'][0]['uuid']}/settle"
    login = (str(world.couch.user), world.couch._password)
    assert requests.post(url, auth=login, json={"sent": "yes"}, timeout=30).status_code == 400
    assert requests.post(url, auth=login, json={"sent": sent}, timeout=30).status_code == 200
    world.until(doc_id, after)
    assert requests.post(url, auth=login, json={"sent": sent}, timeout=30).status_code == 409
    assert len(world.simulator.messages(text)) == requests_made


def test_in_doubt_retry_is_called_off_by_a_report(own_world: World) -> None:
    world, text = own_world, next(texts)
    world.set(sms={"retry_base": 600, "retry_max": 600})
    assert world.api.url
    world.start_sentinel()
    doc_id = world.write(number("99802"), text)
    world.until(doc_id, "delivered")
    assert len(world.simulator.messages(text)) == 1


@pytest.mark.parametrize("ending", ["99806"])
def test_a_page_in_place_of_an_answer_leaves_in_doubt(own_world: World, ending: str) -> None:
    world, text = own_world, next(texts)
    world.set(sms={"in_doubt": "hold"})
    world.start_sentinel()
    task = world.until_task(world.write(number(ending), text), lambda task: task.get("in_doubt"))
    assert task["state"] == "forwarded-to-gateway"


def test_no_answer_within_the_read_timeout(own_world: World) -> None:
    world, text = own_world, next(texts)
    world.set(sms={"max_attempts": 1, "africas_talking": {"read_timeout": 1}})
    world.start_sentinel()
    task = world.until(world.write(number("99801"), text), "failed")
    assert "no answer in time" in task["state_details"]


# ---- too late


def test_what_expired_while_the_service_was_held_is_not_sent(own_world: World) -> None:
    world, text = own_world, next(texts)
    world.vault.delete("africastalking.com:outgoing")
    world.start_sentinel()
    doc_id = world.write(number(), text, due=states.now())
    eventually(lambda: world.held() is not None, SOON)
    world.set(sms={"expire_after": 1})
    due = datetime.fromisoformat(world.tasks(doc_id)[0]["due"])
    eventually(lambda: states.now() - due > timedelta(seconds=2))
    world.vault.set("africastalking.com:outgoing", OUTGOING_KEY)
    task = world.until(doc_id, "failed")
    assert task["state_details"].startswith("expired: ")
    assert world.simulator.requests(text) == []


def test_what_waits_for_another_attempt_expires(own_world: World) -> None:
    world, text = own_world, next(texts)
    world.set(sms={"expire_after": 3, "max_attempts": 100})
    world.start_sentinel()
    task = world.until(world.write(number("99500"), text), "failed")
    assert task["state_details"].startswith("expired: ")
    assert entries(task)[-1] == "failed"
    assert 1 <= len(world.simulator.requests(text)) <= 6


def test_messages_bound_to_a_service_wait_for_it(own_world: World) -> None:
    world, bound, other = own_world, next(texts), next(texts)
    world.set(sms={"outgoing_service": "medic-gateway"})
    world.start_sentinel()
    doc_id = world.write(number(), other)
    world.until_task(doc_id, lambda task: task.get("service") == "medic-gateway")
    world.until(world.write(number(), bound, via="africas-talking"), "sent")
    assert world.simulator.requests(other) == []


def test_a_broadcast_by_a_slow_service_keeps_others_waiting_for_a_turn_only(own_world: World) -> None:
    """It fills the outbox's memory, and most of it waits in CouchDB for an hour."""
    world, text, other = own_world, next(texts), next(texts)
    world.set(sms={"africas_talking": {"batch_size": 1, "max_per_second": 1}})
    world.start_sentinel()
    prefix = number("")
    world.write_many([(f"{prefix}{n:05}", text) for n in range(CAPACITY + 500)])
    eventually(lambda: world.simulator.requests(text), SOON)
    doc_id = world.receive(number("99500"), "help")
    world.until_task(doc_id, lambda task: task.get("attempts", 0) > 1, "is not tried again")
    world.write(number(), other)
    eventually(lambda: world.simulator.requests(other), SOON)
