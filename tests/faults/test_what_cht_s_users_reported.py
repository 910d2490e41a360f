"""What users of the Community Health Toolkit reported, and what its source shows: each is a test with its name."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
import requests

from mjumbe import documents, states
from mjumbe.states import State
from tests.faults.rig import INCOMING, incoming, stored
from tests.integration.processes import eventually, make_user
from tests.integration.sentinel.world import INCOMING_KEY, OUTGOING_KEY, SOON, World, entries, number

texts = (f"reported {n}" for n in count(1))


@contextmanager
def switched(world: World, **switches: Any) -> Iterator[None]:
    before = world.simulator.ask("GET", "/control")
    world.simulator.control(**switches)
    try:
        yield
    finally:
        world.simulator.control(**{name: before[name] for name in switches})


def let_the_clock_tick(world: World) -> None:
    """Wait until the sentinel has looked for due messages again."""
    world.until(world.write(number(), next(texts), due=states.now() + timedelta(seconds=1)), "delivered")


# ---- what was reported


def test_cht_10068_the_send_answer_is_parsed_once(world: World) -> None:
    """It was parsed twice: every message stayed pending and was sent again for ever."""
    text = next(texts)
    task = world.until(world.write(number(), text), "delivered")
    assert task["gateway_ref"].startswith("ATXid_")
    let_the_clock_tick(world)
    assert len(world.simulator.requests(text)) == 1


def test_cht_9467_a_permanent_400_is_not_tried_again(world: World) -> None:
    """A permanent 400 from RapidPro was retried for ever."""
    world.vault.set("rapidpro:outgoing", OUTGOING_KEY)
    world.set(sms={"rapidpro": {"url": world.simulator.url}})
    text = next(texts)
    task = world.until(world.write(number("99400"), text, via="rapidpro"), "failed")
    assert "Invalid URN" in task["state_details"]
    let_the_clock_tick(world)
    assert len(world.simulator.requests(text)) == 1


def test_cht_10802_tasks_with_one_due_date_are_sent_once(world: World) -> None:
    """They were sent again every five minutes, about 2,000 copies."""
    text, due = next(texts), states.now() - timedelta(minutes=10)
    recipients = [number() for _ in range(40)]
    schedule = [documents.new_task(to, text, states.now(), due=due) for to in recipients]
    doc = documents.outgoing_document(schedule[0], states.now(), None)
    world.couch.main.put({**doc, "tasks": [], "scheduled_tasks": schedule})
    eventually(lambda: {task["state"] for task in world.tasks(doc["_id"])} == {"delivered"}, SOON)
    let_the_clock_tick(world)
    assert sorted(entry["to"] for entry in world.simulator.messages(text)) == sorted(recipients)


def test_cht_4110_a_flaky_link_to_the_service_makes_no_duplicates(world: World) -> None:
    """Duplicates and long delays on flaky links. Here every third request fails."""
    text = next(texts)
    with switched(world, error_rate=0.34, error_status=503):
        ids = [world.write(number(), f"{text} {n}") for n in range(20)]
        eventually(lambda: set(world.states(ids)) == {"delivered"}, SOON)
    assert [len(world.simulator.messages(f"{text} {n}")) for n in range(20)] == [1] * 20


def test_cht_1220_a_flaky_link_to_us_makes_no_duplicates(world: World) -> None:
    """The service posts again what was answered, as it does when the answer is lost on its way: days later, too."""
    text = next(texts)
    world.set(sms={"replies": [{"keyword": "LINK", "message": text}]})
    sender = number()
    doc_id = world.receive(sender, "LINK", id="flaky-1")
    world.until(doc_id, "delivered")
    for _ in range(5):
        world.receive(sender, "LINK", id="flaky-1")
    let_the_clock_tick(world)
    assert len(world.simulator.messages(text)) == 1


def test_cht_1823_a_broken_connection_delays_a_message_by_its_own_wait_only(world: World) -> None:
    broken, text = number("99803"), next(texts)
    doc_id = world.write(broken, text)
    world.until_task(doc_id, lambda task: task.get("attempts"))
    world.until(world.write(number(), next(texts)), "delivered")
    assert world.tasks(doc_id)[0]["state"] != "delivered"
    with switched(world, number_faults=False):
        world.until(doc_id, "delivered")
    assert len(world.simulator.messages(text)) == 1


def test_cht_3180_a_gateway_repaired_after_weeks_sends_nothing_that_is_weeks_old(world: World) -> None:
    phone = make_user(world.couch, "phone", "a-phone-password", ["gateway"])
    old, new = next(texts), next(texts)
    ago = states.now() - timedelta(weeks=3)
    ids = [world.write(number(), old, via=via, due=ago) for via in ("medic-gateway", "africas-talking")]
    fresh = world.write(number(), new, via="medic-gateway", due=states.now() - timedelta(days=1))
    for doc_id in ids:
        assert world.until(doc_id, "failed")["state_details"].startswith("expired: ")
    world.until_task(fresh, lambda task: task.get("service") == "medic-gateway")
    answer = requests.post(f"{world.api.url}/api/sms", json={}, auth=phone, timeout=30)
    assert [message["content"] for message in answer.json()["messages"]] == [new]
    assert world.simulator.requests(old) == []


def test_cht_5844_callbacks_are_proved_by_their_key_and_not_by_their_address(world: World) -> None:
    """Checks of the source's address broke behind a TLS proxy."""
    through_a_proxy = {"X-Forwarded-For": "196.201.212.1, 10.0.0.1", "X-Forwarded-Proto": "https", "Via": "1.1 proxy"}
    right, wrong = incoming("proxied", number(), "HABARI"), incoming("forged", number(), "HABARI")
    url = world.api.url + INCOMING
    answers = [
        requests.post(url, params={"key": key}, data=form, headers=through_a_proxy, timeout=30).status_code
        for form, key in ((right, INCOMING_KEY), (wrong, "a-wrong-key"))
    ]
    assert answers == [200, 403]
    assert stored(world.couch.main, [right, wrong]) == {"proxied"}


def test_cht_750_two_machines_that_answer_each_other_come_to_an_end(world: World) -> None:
    """The other machine writes whenever we answer it."""
    text, machine = next(texts), number()
    world.set(sms={"replies": [{"keyword": "PING", "message": text}], "duplicate_limit": 5})
    ends = []
    while len(ends) < 20 and "duplicate" not in ends:
        doc_id = world.receive(machine, "PING")
        ends.append(world.until_task(doc_id, lambda task: task["state"] in ("delivered", "duplicate"))["state"])
    assert ends == ["delivered"] * 5 + ["duplicate"]
    assert len(world.simulator.messages(text)) == 5


def test_cht_5604_messages_do_not_wait_for_each_other(world: World) -> None:
    """25 messages a minute: one request each, one after the other. Equal texts go together, others at once."""
    text = next(texts)
    with switched(world, latency_ms=1_000):
        world.simulator.forget()
        different = world.write_many([(number(), f"{text} {n}") for n in range(32)])
        eventually(lambda: set(world.states(different)) == {"delivered"}, SOON)
        assert world.simulator.counts()["max_in_flight"] > 4
        equal = world.write_many([(number(), text) for _ in range(200)])
        eventually(lambda: set(world.states(equal)) == {"delivered"}, SOON)
        assert len(world.simulator.requests(text)) <= 4


# ---- what its source shows


def test_cht_source_a_late_sent_report_does_not_overwrite_delivered(world: World) -> None:
    doc_id = world.write(number("99703"), next(texts))
    task = world.until_task(doc_id, lambda task: any(entry.get("late") for entry in task["state_history"]))
    assert task["state"] == "delivered"
    assert [entry.get("report") for entry in task["state_history"]][-2:] == ["Success", "Sent"]


def test_cht_source_a_report_before_the_send_answer_is_not_lost(world: World) -> None:
    with switched(world, latency_ms=1_000):
        task = world.until(world.write(number("99704"), next(texts)), "delivered")
    assert entries(task) == ["pending", "forwarded-to-gateway", "sent", "delivered"]


def test_cht_source_two_equal_webhooks_at_once_are_stored_once(world: World) -> None:
    sender, form = number(), {"text": "HABARI", "id": "twice-at-once", "repeat": 2, "concurrency": 2}
    assert world.api.url
    answer = world.simulator.ask("POST", "/incoming", {"from": sender, **form})
    assert sorted(post["answer"].replace(" ", "").strip() for post in answer["answers"]) == [
        '{"saved":0}',
        '{"saved":1}',
    ]


def test_cht_source_an_empty_text_is_kept(world: World) -> None:
    assert world.doc(world.receive(number(), ""))["sms_message"]["message"] == ""


def test_cht_source_an_unknown_delivery_status_is_kept(world: World) -> None:
    """It was answered 400."""
    doc_id = world.write(number("99609"), next(texts))
    task = world.until_task(doc_id, lambda task: task["state_history"][-1].get("report") == "Teleported")
    assert task["state"] == "sent"
    answers = {
        post["status"]
        for post in world.simulator.ask("GET", "/callbacks", limit=100_000)["callbacks"]
        if post["fields"].get("status") == "Teleported"
    }
    assert answers == {200}


@pytest.mark.parametrize("ref", [None, "", "None"])
def test_cht_source_a_state_change_without_a_reference_does_not_erase_it(ref: str | None) -> None:
    task = documents.new_task("+254711000001", "text", states.now())
    states.claim(task, states.now(), "africas-talking", "claim")
    states.remember_ref(task, "ATXid_1")
    states.move(task, State.SENT, states.now(), "Sent")
    states.remember_ref(task, ref)
    states.move(task, State.DELIVERED, states.now(), "Success", gateway_ref=ref)
    assert task["gateway_ref"] == "ATXid_1"
