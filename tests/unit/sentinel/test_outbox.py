"""What the outbox makes of what the services answer, and of a CouchDB that is away meanwhile."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import cast

import pytest
from structlog.testing import capture_logs

from mjumbe import documents, settings, states
from mjumbe.couch import CouchError, NotFoundError, UnavailableError
from mjumbe.documents import OutgoingMessage, Route
from mjumbe.gateways import PHONE_GATEWAY
from mjumbe.gateways.base import Batch, Failure, FencedError, Gateway, Outcome, SendError
from mjumbe.settings import ServiceSettings
from mjumbe.states import State
from sentinel import patience
from sentinel.pipeline import due_messages
from sentinel.queue import CAPACITY
from sentinel.service import Service
from sentinel.writer import Updates, Write
from tests.unit.sentinel.desk import PHONE, Desk, Lab, doc

SOON = 30.0


@pytest.fixture
def lab() -> Iterator[Lab]:
    made = Lab()
    yield made
    made.close()


def test_sent_and_stored(lab: Lab) -> None:
    lab.offer(doc())
    lab.run()
    assert lab.desk.batches == [Batch("Habari", (PHONE,))]
    assert (lab.task()["state"], lab.task()["gateway_ref"], lab.task()["attempts"]) == ("sent", f"r{PHONE}", 1)
    place = ("d", lab.task()["messages"][0]["uuid"])
    assert lab.referenced == {f"r{PHONE}": place}
    assert not lab.outbox.knows(place)


def test_an_answer_to_what_was_asked_by_another_key_says_nothing_of_the_service(lab: Lab) -> None:
    service = lab.service
    assert isinstance(service, Service)

    def answer(batch: Batch) -> list[Outcome]:
        service.change(cast(Gateway, Desk()), ServiceSettings(batch_size=10))
        return [Outcome("InvalidAPIKey", failure=Failure.CONFIGURATION)] * len(batch.recipients)

    lab.desk.answer = answer
    lab.offer(doc())
    lab.run()
    assert not service.status.held
    lab.run()
    assert lab.task()["state"] == "sent", "given back, and sent by the new one"


def test_who_opted_out_is_kept_before_the_result_and_however_long_couchdb_is_away(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "PAUSE_SECONDS", 0)
    lab.desk.answer = lambda batch: [Outcome("UserInBlacklist", State.DENIED, opted_out=True)]
    stores = iter([UnavailableError("away"), UnavailableError("away"), None])
    states_then = []

    def keep(numbers: Sequence[str], service: str) -> None:
        states_then.append(lab.task()["state"])
        if trouble := next(stores):
            raise trouble
        lab.opted_out.extend(numbers)

    lab.outbox._heard = replace(lab.outbox._heard, opt_outs=keep)
    lab.offer(doc())
    lab.run()
    assert lab.opted_out == [PHONE]
    assert set(states_then) == {"forwarded-to-gateway"}
    assert lab.task()["state"] == "denied"


def test_what_waits_for_a_held_service_takes_no_others_room(lab: Lab) -> None:
    held, other = Route("textbee"), Route()
    many = [OutgoingMessage(f"d{n}", f"u{n}", PHONE, "x", 0, False, route=held) for n in range(CAPACITY + 1)]
    lab.outbox.offer(many)
    assert [lab.outbox.knows(each.key) for each in many[-2:]] == [True, False]
    assert (lab.outbox.takes(held), lab.outbox.takes(other)) == (False, True)
    assert not lab.outbox.has_room()
    lab.stuck.add("textbee")
    assert lab.outbox.has_room()
    (message,) = due_messages(doc("another"))
    lab.outbox.offer([message])
    assert lab.outbox.knows(message.key)


def test_answers_without_end_do_not_keep_their_documents_in_memory(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sentinel.outbox.MOST_DOCUMENTS", 2)
    heard = {"type": "data_record", "from": PHONE, "sms_message": {"message": "HELP"}}
    lab.offer(*(doc(f"d{n}", to=f"+25471100000{n}") | heard for n in range(4)))
    held = {message.doc_id: message.doc is not None for message in lab.outbox._queue.take(Route(), 4)}
    assert held == {"d0": True, "d1": True, "d2": False, "d3": False}


@pytest.mark.parametrize(
    ("text", "said", "details"),
    [
        ("Wambui is positive", "Refused: 'Wambui is positive'", "Refused: '…"),
        ("Wambui is positive, please come", "Refused: 'Wambui is positive, pl", "Refused: '…"),
        # Cut within the text, before as much of it came as is looked for.
        ("Wambui is positive", f"{'w' * 190} Wambui is positive", f"{'w' * 190} …"),
        ("Wambui is positive", f"{'w' * 194} Wambui is positive", f"{'w' * 194} …"),
        ("Wambui is positive", f"{'w' * 196} Wambui is positive", f"{'w' * 196} Wa…"),
        ("OK", "HTTP 400: OK", "HTTP 400: OK"),
        ("Habari", "HTTP 401", "HTTP 401"),
    ],
)
def test_a_refusal_that_repeats_the_text_does_not_bring_it_into_the_log(
    lab: Lab, text: str, said: str, details: str
) -> None:
    lab.desk.answer = lambda batch: [Outcome(said, failure=Failure.CONFIGURATION)]
    lab.offer(doc(text=text))
    with capture_logs() as logs:
        lab.outbox._dispatch()
        lab.close()
    assert [line["reason"] for line in logs if line["event"] == "a service is held"] == [details]
    assert lab.task()["state_details"] == details


def test_equal_texts_are_one_request_and_one_claim(lab: Lab) -> None:
    lab.offer(*(doc(f"d{n}", f"+2547110000{n:02}") for n in range(10)))
    lab.run()
    assert [len(batch.recipients) for batch in lab.desk.batches] == [10]
    assert lab.database.bulks == 2


def test_what_is_offered_twice_is_sent_once(lab: Lab) -> None:
    lab.offer(doc())
    lab.outbox.offer(due_messages(lab.stored()))
    lab.run()
    lab.outbox.offer([])
    assert len(lab.desk.batches) == 1


@pytest.mark.parametrize(
    "trouble",
    [
        UnavailableError("CouchDB is away"),
        NotFoundError(404, "not_found: Database does not exist."),
        CouchError(401, "the name or the password in COUCH_URL is wrong"),
    ],
)
def test_couchdb_is_away_when_the_result_is_to_be_stored(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    def fail() -> None:
        if next(troubles):
            raise trouble

    monkeypatch.setattr(patience, "PAUSE_SECONDS", 0.0)
    lab.offer(doc())
    troubles = iter([False, True, True, False])
    lab.database.before_bulk = fail
    lab.run()
    assert len(lab.desk.batches) == 1
    assert lab.task()["state"] == "sent"


def test_a_request_behind_the_fence_is_given_back(lab: Lab) -> None:
    def fenced(batch: Batch) -> list[Outcome]:
        raise FencedError("this sentinel no longer leads")

    lab.desk.answer = fenced
    lab.offer(doc())
    lab.run()
    task = lab.task()
    assert (task["state"], task["attempts"], task.get("in_doubt")) == ("pending", 0, None), "it was surely not sent"
    assert "claim" not in task


@pytest.mark.parametrize(
    ("error", "state", "in_doubt"),
    [
        (SendError(Outcome("HTTP 500", failure=Failure.RETRY)), "pending", False),
        (SendError(Outcome("no answer in time", failure=Failure.AMBIGUOUS)), "pending", True),
        (RuntimeError("a bug"), "pending", True),
    ],
)
def test_requests_that_fail(lab: Lab, error: Exception, state: str, in_doubt: bool) -> None:
    def fail(batch: Batch) -> list[Outcome]:
        raise error

    lab.desk.answer = fail
    lab.offer(doc())
    lab.run()
    assert (lab.task()["state"], lab.task().get("in_doubt", False)) == (state, in_doubt)
    assert len(lab.desk.batches) == 1, "not at once again"


def test_a_held_service_gives_its_messages_back(lab: Lab) -> None:
    def refuse(batch: Batch) -> list[Outcome]:
        return [Outcome("InsufficientBalance", failure=Failure.CONFIGURATION)] * len(batch.recipients)

    lab.desk.answer = refuse
    lab.offer(*(doc(f"d{n}", f"+2547110000{n:02}") for n in range(10)))
    assert isinstance(lab.service, Service)
    lab.outbox._dispatch()
    lab.outbox._workers.shutdown(wait=True)
    assert lab.service.status.held
    for number in range(10):
        task = lab.task(f"d{number}")
        assert (task["state"], task["attempts"]) == ("pending", 0)
        assert lab.outbox.knows((f"d{number}", task["messages"][0]["uuid"])), "queued again by itself"


@pytest.mark.parametrize(
    "outcome", [Outcome("Sent", State.SENT), Outcome("InsufficientBalance", failure=Failure.CONFIGURATION)]
)
def test_what_others_write_while_a_request_is_under_way_is_not_sent_unlooked_at(lab: Lab, outcome: Outcome) -> None:
    """It went past the deny list: the transitions see only what the feed or the clock brings."""

    def write(batch: Batch) -> list[Outcome]:
        stored = lab.stored()
        stored["tasks"][0]["messages"][0]["to"] = "+254790000000"
        stored["tasks"].append(documents.new_task("+254790000001", "Habari", states.now()))
        lab.database.store(stored)
        return [outcome]

    lab.desk.answer = write
    lab.offer(doc())
    lab.outbox._dispatch()
    lab.outbox._workers.shutdown(wait=True)
    assert [batch.recipients for batch in lab.desk.batches] == [(PHONE,)]
    for task in lab.stored()["tasks"]:
        assert not lab.outbox.knows(("d", task["messages"][0]["uuid"])), "the clock may offer it"


def test_a_message_that_is_refused_for_itself_spends_attempts_and_holds_nobody_up(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sender id that one network does not know: each try held everybody's messages for a minute, for a week."""
    monkeypatch.setattr("sentinel.service.PROBE_SECONDS", 0.0)

    def answer(batch: Batch) -> list[Outcome]:
        if batch.text == "odd":
            return [Outcome("InvalidSenderId", failure=Failure.CONFIGURATION)]
        return [Outcome("Sent", State.SENT)]

    lab.desk.answer = answer
    lab.offer(doc(text="odd"))
    lab.outbox._dispatch()
    lab.outbox._workers.shutdown(wait=True)
    lab.outbox._workers = ThreadPoolExecutor(4)
    assert (lab.task()["state_details"], lab.task()["attempts"]) == ("InvalidSenderId", 0)
    lab.offer(doc("d2"))
    for _ in range(3):  # a run may end while the odd one is given back
        lab.run()
    assert lab.task("d2")["state"] == "sent"
    assert (lab.task()["state"], lab.task()["attempts"]) == ("pending", 1)
    assert lab.task()["retry_at"] > states.timestamp(states.now())
    assert isinstance(lab.service, Service)
    assert not lab.service.status.held


def test_a_place_is_anothers_before_its_results_are_stored_but_nothing_is_asked_before(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.service = Service("africas-talking", cast(Gateway, lab.desk), ServiceSettings(concurrency=1))
    go_on, third = threading.Event(), threading.Event()
    submit, writes = lab.outbox._writer.submit, iter(range(1, 5))

    def watched(write: Write) -> "Future[Updates]":
        future = submit(write)
        if next(writes) == 3:
            third.set()
        return future

    def wait_with_results() -> None:
        assert not lab.desk.batches or go_on.wait(SOON)

    monkeypatch.setattr(lab.outbox._writer, "submit", watched)
    lab.database.before_bulk = wait_with_results
    lab.offer(doc("d1", text="one"), doc("d2", text="two"))
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(lab.outbox.run, stop)
        assert third.wait(SOON), "the claim of the second message waits behind the results of the first"
        assert len(lab.desk.batches) == 1
        go_on.set()
        stop.set()
        running.result(SOON)
    assert [batch.text for batch in lab.desk.batches] == ["one", "two"]
    assert lab.task("d2")["state"] == "sent"


# ---- what the settings say when it is sent


def test_numbers_go_out_normalised_and_replaced(lab: Lab) -> None:
    lab.live.current = settings.parse({"outgoing_phone_replace": {"match": "+254", "replace": "+1"}})
    lab.offer(doc(to="0711000001"))
    lab.run()
    assert lab.desk.batches[0].recipients == ("+1711000001",)
    assert lab.task()["messages"][0]["to"] == "0711000001"


def test_long_texts_are_cut_to_the_limit(lab: Lab) -> None:
    lab.live.current = settings.parse({"multipart_sms_limit": 2})
    lab.offer(doc(text="x" * 1000))
    lab.run()
    (batch,) = lab.desk.batches
    assert batch.text == "x" * 303 + "..."
    assert lab.task()["state_details"] == "Sent; the text was cut to 2 parts (multipart_sms_limit)"
    assert lab.task()["messages"][0]["message"] == "x" * 1000


# ---- the phone gateway


def test_the_phone_gateway_is_only_assigned(lab: Lab) -> None:
    lab.service = PHONE_GATEWAY
    lab.offer(doc())
    lab.run()
    assert (lab.task()["state"], lab.task()["service"]) == ("pending", PHONE_GATEWAY)
    assert "attempts" not in lab.task()
    before = lab.database.bulks
    lab.outbox.offer(due_messages(lab.stored()))
    lab.run()
    assert lab.database.bulks == before, "once"


def test_what_the_phone_gateway_has_goes_by_another_service_when_it_must(lab: Lab) -> None:
    service, lab.service = lab.service, PHONE_GATEWAY
    lab.offer(doc())
    lab.run()
    lab.service = service
    lab.outbox.offer(due_messages(lab.stored()))
    lab.run()
    assert (lab.task()["state"], lab.task()["service"]) == ("sent", "africas-talking")


# ---- stopping


def test_a_stop_waits_for_what_is_under_way(lab: Lab) -> None:
    asked, go_on, stop = threading.Event(), threading.Event(), threading.Event()

    def slow(batch: Batch) -> list[Outcome]:
        asked.set()
        assert go_on.wait(SOON)
        return [Outcome("Sent", State.SENT, ref="r1")]

    lab.desk.answer = slow
    lab.offer(doc())
    running = threading.Thread(target=lab.outbox.run, args=(stop,))
    running.start()
    assert asked.wait(SOON)
    stop.set()
    lab.outbox.wake()
    assert running.is_alive()
    go_on.set()
    running.join(SOON)
    assert not running.is_alive()
    assert lab.task()["state"] == "sent"


def test_a_couchdb_that_stays_away_ends_it_as_any_stop_does(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that chooses was leaving a message to phones, and waited for CouchDB."""
    lab.offer(doc())
    lab.service = PHONE_GATEWAY
    lab.outbox.give_up()

    def away(docs: object) -> None:
        raise UnavailableError("CouchDB is away")

    monkeypatch.setattr(lab.database, "bulk", away)
    lab.outbox.run(threading.Event())
    assert not any(thread.is_alive() for thread in lab.outbox._writer._batcher._threads)
