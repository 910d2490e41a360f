"""The messages of the API beside a model of them: random requests to two processes, and what each answer and the lists
must be then.

The model is made from docs/ and the description that the API serves. No sentinel runs: a message changes by requests
alone.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from mjumbe.couch import Couch
from tests import leaks
from tests.integration.conftest import StartApi, couch, couch_url, server_url, start_api  # noqa: F401
from tests.integration.processes import make_user

MESSAGES = "/api/v1/messages"
INCOMING = "/api/v2/sms/rapidpro/incoming-messages"
KEY = leaks.secret("the-rapidpro-key-2d41")
SPELLINGS = ("+254{}", "254{}", "0{}", "{}", "00254{}", " +254 {} ", "+254-{}", "254{}.0", "\u202a+254{}\u202c")
TEXTS = ("Habari", "ça va", "日本語", "a\nb", "{{name}}", "x" * 40_000)
ZONES = (UTC, timezone(timedelta(hours=3)), timezone(-timedelta(hours=9, minutes=30)))
DAYS = (-400, -30, -1, 1, 30, 400)  # from the test's start: nothing falls due while it runs
WRONG: tuple[tuple[str, Any], ...] = (
    *(("to", value) for value in ("", "SAFARICOM", "123", "+254711000111,+254711000112", None, True)),
    *(("message", value) for value in ("", "x" * 40_001, 5, None)),
    *(("due", value) for value in ("tomorrow", "", True, 10**30)),
    *(("uuid", value) for value in ("", "a b", "a/b", "x" * 101, 1.5)),
    *(("service", "sms"), ("premium", "yes"), ("premium", {"retry_duration_hours": 169}), ("text", "x")),
)
serial = itertools.count(1)


@dataclass(frozen=True)
class Known:
    """A message as the model has it; `at` is when it is due, None for what is due, or came in, when it was posted."""

    number: str
    text: str
    state: str
    at: datetime | None = None


class Program(RuleBasedStateMachine):
    """It writes, reads and cancels messages; a service posts what comes in."""

    ask: Callable[..., requests.Response]
    started: datetime

    def __init__(self) -> None:
        super().__init__()
        run = next(serial)
        self._uuids = (f"u{run}-{count}" for count in itertools.count())
        # They end in the same seven digits, by which the index lists them.
        self._numbers = [leaks.number(f"{beginning}{run:07}") for beginning in (71, 11, 20)]
        self.known: dict[str, Known] = {}

    def drawn(self, data: st.DataObject, **facts: Any) -> tuple[dict[str, Any], Known]:
        """A message to post, and what the model knows of it then."""
        number, spelling = data.draw(st.sampled_from(self._numbers)), data.draw(st.sampled_from(SPELLINGS))
        days, zone = data.draw(st.none() | st.sampled_from(DAYS)), data.draw(st.sampled_from(ZONES))
        at = None if days is None else self.started + timedelta(days=days)
        known = Known(
            f"+254{number}", data.draw(st.sampled_from(TEXTS)), "scheduled" if days and days > 0 else "pending", at
        )
        entry = {"to": spelling.format(number), "message": known.text, "uuid": next(self._uuids), **facts}
        return (entry if at is None else {**entry, "due": at.astimezone(zone).isoformat()}), known

    @rule(data=st.data(), count=st.integers(1, 3))
    def post(self, data: st.DataObject, count: int) -> None:
        made = [self.drawn(data) for _ in range(count)]
        answer = self.ask("POST", MESSAGES, json=[entry for entry, _ in made] if count > 1 else made[0][0])
        assert answer.status_code == 202
        assert answer.json()["messages"] == [
            {"uuid": uuid, "id": f"outgoing:{uuid}", "to": known.number, "state": known.state}
            for uuid, known in ((entry["uuid"], known) for entry, known in made)
        ]
        self.known |= {entry["uuid"]: known for entry, known in made}

    @rule(data=st.data(), wrong=st.sampled_from(WRONG))
    def post_one_that_is_wrong(self, data: st.DataObject, wrong: tuple[str, Any]) -> None:
        (good, _), (bad, _) = self.drawn(data), self.drawn(data)
        answer = self.ask("POST", MESSAGES, json=[good, bad | dict([wrong])])
        assert (answer.status_code, answer.json()["field"]) == (400, wrong[0])
        assert [problem["index"] for problem in answer.json()["problems"]] == [1]
        assert self.ask("GET", f"{MESSAGES}/{good['uuid']}").status_code == 404

    @precondition(lambda self: self.known)
    @rule(data=st.data(), other=st.sampled_from([{}, {"message": "another"}, {"to": "+254799999999"}]))
    def post_again(self, data: st.DataObject, other: dict[str, str]) -> None:
        outgoing = sorted(uuid for uuid, known in self.known.items() if known.state != "received")
        if not outgoing:
            return
        uuid = data.draw(st.sampled_from(outgoing))
        known = self.known[uuid]
        entry = {"to": known.number, "message": known.text, "uuid": uuid} | other
        answer = self.ask("POST", MESSAGES, json=entry)
        assert answer.status_code == (409 if other else 202)
        assert other or answer.json()["messages"][0]["state"] == known.state

    @rule(data=st.data(), again=st.booleans())
    def come_in(self, data: st.DataObject, again: bool) -> None:
        entry, known = self.drawn(data)
        posted = {"id": entry["uuid"], "from": entry["to"], "content": known.text}
        for saved in (1, 0) if again else (1,):
            assert self.ask("POST", INCOMING, json=posted, headers={"Authorization": f"Token {KEY}"}).json() == {
                "saved": saved
            }
        listed = self.ask("GET", MESSAGES, params={"phone": known.number, "state": "received", "limit": 1000}).json()
        [uuid] = [one["uuid"] for one in listed["messages"] if one["gateway_ref"] == entry["uuid"]]
        self.known[uuid] = Known(known.number, known.text, "received")

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        uuid = data.draw(st.sampled_from(sorted(self.known)))
        known = self.known[uuid]
        answer = self.ask("POST", f"{MESSAGES}/{uuid}/cancel")
        assert answer.status_code == {"received": 404, "cleared": 409}.get(known.state, 200)
        if answer.status_code == 200:
            self.known[uuid] = replace(known, state="cleared")
        self.must_be(self.ask("GET", f"{MESSAGES}/{uuid}").json(), self.known[uuid])

    @rule(
        data=st.data(),
        state=st.none() | st.sampled_from(["pending", "scheduled", "cleared", "received", "sent"]),
        days=st.none() | st.tuples(st.sampled_from(DAYS), st.sampled_from(DAYS)),
        limit=st.sampled_from([1, 2, 7, 1000]),
    )
    def search(self, data: st.DataObject, state: str | None, days: tuple[int, int] | None, limit: int) -> None:
        number = data.draw(st.sampled_from(self._numbers))
        query: dict[str, Any] = {"phone": data.draw(st.sampled_from(SPELLINGS)).format(number), "limit": limit}
        wanted = {uuid: known for uuid, known in self.known.items() if known.number == f"+254{number}"}
        if state:
            query["state"] = state
            wanted = {uuid: known for uuid, known in wanted.items() if known.state == state}
        if days:
            first, last = (self.started + timedelta(days=each) for each in days)
            query |= {"from": first.isoformat(), "to": str(int(last.timestamp() * 1000))}
            # What has no `at` was posted within the hour.
            wanted = {
                uuid: known
                for uuid, known in wanted.items()
                if first <= (known.at or self.started + timedelta(hours=1)) <= last
            }
        found: list[dict[str, Any]] = []
        while True:
            page = self.ask("GET", MESSAGES, params=query).json()
            assert len(page["messages"]) <= limit
            found += page["messages"]
            if page["bookmark"] is None:
                break
            query["bookmark"] = page["bookmark"]
        assert sorted(one["uuid"] for one in found) == sorted(wanted)
        dues = [known.at or self.started for known in (wanted[one["uuid"]] for one in found)]
        assert dues == sorted(dues, reverse=True)
        for one in found:
            self.must_be(one, wanted[one["uuid"]])

    @staticmethod
    def must_be(shown: dict[str, Any], known: Known) -> None:
        number = shown["from"] if known.state == "received" else shown["to"]
        assert (number, shown["message"], shown["state"]) == (known.number, known.text, known.state)
        assert shown["history"][-1]["state"] == known.state
        assert (shown["due"] and datetime.fromisoformat(shown["due"])) == known.at


@pytest.mark.parametrize("runs", [8, pytest.param(200, marks=pytest.mark.long)])
def test_messages_are_as_the_model_says(couch: Couch, couch_url: str, start_api: StartApi, runs: int) -> None:  # noqa: F811
    user = make_user(couch, "program", "a-program-password", ["sms"])
    urls = itertools.cycle([start_api(couch_url).url for _ in range(2)])
    http = requests.Session()
    credential = f"{next(urls)}/api/v1/credentials/rapidpro:incoming"
    http.put(credential, data=KEY, auth=(couch.user or "", couch._password), timeout=60).raise_for_status()

    def ask(method: str, path: str, **arguments: Any) -> requests.Response:
        login = {} if "headers" in arguments else {"auth": user}
        return http.request(method, next(urls) + path, timeout=60, **login, **arguments)

    # Whole milliseconds, as they are stored.
    started = datetime.now(UTC).replace(microsecond=0)
    machine = type("Program", (Program,), {"ask": staticmethod(ask), "started": started})
    with leaks.deaf():
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=runs,
                stateful_step_count=25,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
