"""Sentinels that stop, die and take over; the phone gateway; two thousand messages."""

import itertools
import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from mjumbe import documents, setup, states
from mjumbe.couch import Couch
from mjumbe.documents import IncomingMessage
from tests.integration.processes import eventually, make_user
from tests.integration.sentinel.world import SOON, World, entries, number

texts = (f"text {n}" for n in itertools.count(1))


# ---- stopping


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_finishes_what_is_under_way(own_world: World, signal_number: signal.Signals) -> None:
    world, text = own_world, next(texts)
    world.set(sms={"africas_talking": {"batch_size": 1, "concurrency": 4}})
    world.simulator.control(latency_ms=1500)
    sentinel = world.start_sentinel()
    ids = world.write_many([(number(f"{n:05}"), text) for n in range(12)])
    eventually(lambda: len(world.simulator.requests(text)) == 4, SOON)
    assert sentinel.stop(signal_number) == 0
    assert len(world.simulator.requests(text)) == 4, "nothing new was begun"
    assert sorted(world.states(ids)) == ["pending"] * 8 + ["sent"] * 4
    status = world.status()
    assert status is not None
    assert status.released
    world.simulator.control(latency_ms=0)
    world.start_sentinel()
    eventually(lambda: set(world.states(ids)) == {"sent"}, SOON)
    assert world.simulator.counts()["duplicates"] == 0


def test_a_stop_with_nothing_to_do(own_world: World) -> None:
    assert own_world.start_sentinel().stop() == 0


# ---- dying


def test_killed_in_the_middle_nothing_is_lost_and_what_is_in_doubt_says_so(own_world: World) -> None:
    world, text = own_world, next(texts)
    world.set(sms={"africas_talking": {"batch_size": 1, "concurrency": 4}})
    world.simulator.control(latency_ms=60_000)
    first = world.start_sentinel()
    ids = world.write_many([(number(f"{n:05}"), text) for n in range(12)])
    eventually(lambda: len(world.simulator.requests(text)) == 4, SOON)
    first.stop(signal.SIGKILL)
    assert sorted(world.states(ids)) == ["forwarded-to-gateway"] * 4 + ["pending"] * 8
    world.simulator.control(latency_ms=0)
    world.start_sentinel()
    eventually(lambda: set(world.states(ids)) == {"sent"}, SOON)
    tasks = [world.tasks(doc_id)[0] for doc_id in ids]
    doubted = [task for task in tasks if any(entry.get("in_doubt") for entry in task["state_history"])]
    assert len(doubted) == 4
    assert all("no answer was stored" in str(task["state_history"]) for task in doubted)
    assert all(task["attempts"] == 2 for task in doubted)
    assert len(world.simulator.messages(text)) == 16, "each at least once, and only those in doubt twice"


def test_killed_and_held_until_a_person_decides(own_world: World) -> None:
    world, text = own_world, next(texts)
    world.set(sms={"in_doubt": "hold"})
    world.simulator.control(latency_ms=60_000, reports=False)
    first = world.start_sentinel()
    doc_id = world.write(number(), text)
    eventually(lambda: len(world.simulator.requests(text)) == 1, SOON)
    first.stop(signal.SIGKILL)
    world.simulator.control(latency_ms=0)
    world.start_sentinel()
    task = world.until_task(doc_id, lambda task: task.get("in_doubt"))
    assert task["state"] == "forwarded-to-gateway"
    doc = world.doc(doc_id)
    states.release(doc["tasks"][0], states.now(), "send it again")
    del doc["tasks"][0]["in_doubt"]
    world.couch.main.put(doc)
    world.until(doc_id, "sent")
    assert len(world.simulator.messages(text)) == 2


def test_what_comes_while_no_sentinel_runs_is_done_later(own_world: World) -> None:
    world, text = own_world, next(texts)
    world.set(sms={"replies": [{"keyword": "HELP", "message": text}]})
    world.start_sentinel().stop()
    incoming, outgoing = world.receive(number(), "HELP"), world.write(number(), text)
    world.start_sentinel()
    world.until(incoming, "delivered")
    world.until(outgoing, "delivered")
    assert len(world.simulator.messages(text)) == 2


def test_the_duplicate_limit_is_counted_across_a_restart(own_world: World) -> None:
    world, text, to = own_world, next(texts), number()
    spellings = itertools.cycle([to, "0" + to.removeprefix("+254")])
    world.set(sms={"duplicate_limit": 4})
    first = world.start_sentinel()
    for _ in range(3):
        world.until(world.write(next(spellings), text), "sent")
    first.stop(signal.SIGKILL)
    world.start_sentinel()
    world.until(world.write(next(spellings), text), "sent")
    duplicate = world.until(world.write(next(spellings), text), "duplicate")
    assert "sms.duplicate_limit" in duplicate["state_details"]
    world.until(world.write(next(spellings), next(texts)), "sent")
    assert len(world.simulator.messages(text)) == 4


# ---- two


def test_the_second_takes_over_when_the_first_dies(own_world: World) -> None:
    world = own_world
    first, second = world.start_sentinel(), world.start_sentinel(leads=False)
    before, after = next(texts), next(texts)
    world.until(world.write(number(), before), "sent")
    assert "this sentinel leads" not in second.log()
    first.stop(signal.SIGKILL)
    doc_id = world.write(number(), after)
    world.wait_for_leader(second)
    world.until(doc_id, "sent")
    assert world.simulator.counts()["duplicates"] == 0


def test_the_second_takes_over_when_the_first_stops(own_world: World) -> None:
    world = own_world
    first, second = world.start_sentinel(), world.start_sentinel(leads=False)
    assert first.stop() == 0
    world.wait_for_leader(second)
    world.until(world.write(number(), next(texts)), "sent")


def test_a_leader_that_was_frozen_sends_nothing_when_it_thaws(own_world: World) -> None:
    """SIGSTOP stands for a machine that sleeps: the first does not know that its lease ran out."""
    world, text = own_world, next(texts)
    world.set(sms={"africas_talking": {"batch_size": 1, "concurrency": 2}})
    first, second = world.start_sentinel(), world.start_sentinel(leads=False)
    world.until(world.write(number(), next(texts)), "sent")
    os.kill(first.popen.pid, signal.SIGSTOP)
    ids = world.write_many([(number(f"{n:05}"), text) for n in range(30)])
    world.wait_for_leader(second)
    os.kill(first.popen.pid, signal.SIGCONT)
    eventually(lambda: set(world.states(ids)) == {"sent"}, SOON)
    eventually(lambda: "stops sending" in first.log() or "no longer leads" in first.log(), SOON)
    assert len(world.simulator.messages(text)) == 30
    status = world.status()
    assert status is not None
    assert status.owner["pid"] == second.popen.pid


# ---- an adopted database


@pytest.fixture
def adopted_world(server_url: str, tmp_path: Path) -> Iterator[World]:
    """A world in whose database a message was answered before mjumbe came."""
    url = f"{server_url}/test-{uuid.uuid4().hex}"
    main = Couch(url).main
    main.create()
    message = IncomingMessage("africas-talking", "past", number(), "HELP")
    past = documents.incoming_document(message, message.sender, 1_700_000_000_000)
    del past["receipt"]
    main.put({**past, "_id": "past"})
    world = World(url, tmp_path)
    yield world
    world.close()


def test_a_database_with_a_past_is_not_answered_again(adopted_world: World) -> None:
    world, text = adopted_world, next(texts)
    world.set(
        sms={"replies": [{"keyword": "HELP", "message": text}]},
        default_responses={"start_date": "2020-01-01"},
    )
    world.start_sentinel()
    world.couch.main.put({**world.doc("past"), "fields": {"touched": True}})
    world.until(world.receive(number(), "HELP"), "delivered")
    assert world.tasks("past") == []
    assert len(world.simulator.messages(text)) == 1


def test_a_lost_checkpoint_loses_no_message(own_world: World) -> None:
    """As after a restore without `<db>-sentinel`, or CouchDB's replication, which leaves `_local` documents behind."""
    world, text = own_world, next(texts)
    world.set(sms={"replies": [{"keyword": "HELP", "message": text}]})
    answered = world.receive(number(), "HELP")
    sentinel = world.start_sentinel()
    world.until(answered, "delivered")
    sentinel.stop()
    unread, opting_out = world.receive(number(), "HELP"), number()
    world.receive(opting_out, "STOP")
    world.couch.sentinel.drop()
    setup.prepare(world.couch)  # as an API does that starts before the sentinel
    world.start_sentinel()
    world.until(unread, "delivered")
    eventually(lambda: world.couch.main.get(f"{documents.OPT_OUT}:{opting_out}"), SOON)
    assert len(world.simulator.messages(text)) == 2, "what was answered before is not answered again"


# ---- the phone gateway


def test_the_phone_gateway(own_world: World) -> None:
    world, text = own_world, next(texts)
    world.set(sms={"outgoing_service": "medic-gateway"})
    user = make_user(world.couch, "phone", "a-phone-password", ["gateway"])
    world.start_sentinel()

    def poll(**body: object) -> list[dict[str, str]]:
        answer = requests.post(f"{world.api.url}/api/sms", json=body, auth=user, timeout=30)
        assert answer.status_code == 200, answer.text
        messages: list[dict[str, str]] = answer.json()["messages"]
        return messages

    to = number()
    doc_id = world.write(to, text)
    world.until_task(doc_id, lambda task: task.get("service") == "medic-gateway")
    assert world.tasks(doc_id)[0]["state"] == "pending"
    (given,) = poll()
    assert (given["to"], given["content"]) == (to, text)
    assert world.tasks(doc_id)[0]["state"] == "forwarded-to-gateway"
    assert poll() == [given], "again, until it acknowledges"
    assert poll(updates=[{"id": given["id"], "status": "UNSENT"}]) == []
    poll(updates=[{"id": given["id"], "status": "SENT"}, {"id": given["id"], "status": "DELIVERED"}])
    task = world.until(doc_id, "delivered")
    assert entries(task) == ["pending", "forwarded-to-gateway", "received-by-gateway", "sent", "delivered"]
    assert world.simulator.requests(text) == []


def test_the_index_of_contacts_is_brought_up_though_nobody_asks_it(own_world: World) -> None:
    """At once at a start, then once a minute; else the first who writes would wait for it."""
    world = own_world
    world.couch.main.bulk([{"_id": f"p{n}", "type": "person", "phone": number()} for n in range(10)])
    world.start_sentinel()

    def is_current() -> bool:
        path = f"/{world.couch.name}/_design/mjumbe-contacts/_info"
        return bool(world.couch.request("GET", path)["view_index"]["updates_pending"]["total"] == 0)

    eventually(is_current, SOON)


def test_a_change_of_the_service_takes_what_is_due_along(own_world: World) -> None:
    world, text = own_world, next(texts)
    world.set(sms={"outgoing_service": "medic-gateway"})
    world.start_sentinel()
    ids = world.write_many([(number(f"{n:05}"), text) for n in range(10)])
    eventually(lambda: all(world.tasks(doc_id)[0].get("service") == "medic-gateway" for doc_id in ids), SOON)
    world.set(sms={"outgoing_service": "africas-talking"})
    eventually(lambda: set(world.states(ids)) == {"sent"}, SOON)
    assert len(world.simulator.messages(text)) == 10


def test_the_fallback_takes_over_while_the_service_is_held(own_world: World) -> None:
    world, text = own_world, next(texts)
    world.simulator.control(no_balance=True)
    world.set(sms={"fallback_services": ["medic-gateway"]})
    world.start_sentinel()
    doc_id = world.write(number(), text)
    task = world.until_task(doc_id, lambda task: task.get("service") == "medic-gateway")
    assert task["state"] == "pending"


# ---- many


def test_two_thousand_messages_are_sent_once_each(own_world: World) -> None:
    world = own_world
    world.simulator.control(latency_ms=50, reports=False)
    messages = [(f"+2547200{n:05}", f"Dear customer {n}, your balance is low") for n in range(2000)]
    ids = world.write_many(messages)
    world.start_sentinel()
    world.simulator.ask("GET", "/messages", limit=1, wait_for=2000, timeout_ms=80_000)
    counts = world.simulator.counts()
    assert (counts["accepted"], counts["duplicates"]) == (2000, 0)
    # Sixteen at once; the simulator may count a few whose answers are on their way.
    assert counts["max_in_flight"] <= 20
    eventually(lambda: set(world.states(ids)) == {"sent"}, SOON)
    assert world.simulator.counts()["accepted"] == 2000


def test_replies_overtake_bulk(own_world: World) -> None:
    world, reply = own_world, next(texts)
    world.set(
        sms={
            "replies": [{"keyword": "HELP", "message": reply}],
            "africas_talking": {"concurrency": 1, "batch_size": 1},
        }
    )
    world.simulator.control(latency_ms=100, reports=False)
    assert world.api.url
    world.write_many([(f"+2547300{n:05}", f"bulk {n}") for n in range(200)])
    world.start_sentinel()
    world.simulator.ask("GET", "/messages", limit=1, wait_for=3, timeout_ms=60_000)
    doc_id = world.receive(number(), "HELP")
    world.until(doc_id, "sent")
    assert world.simulator.counts()["accepted"] < 200
