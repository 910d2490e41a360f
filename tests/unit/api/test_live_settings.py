"""The settings as they are now, whatever somebody writes into their document."""

import math
from typing import Any, NoReturn

import pytest
from flask.testing import FlaskClient
from structlog.testing import capture_logs

from mjumbe import live_settings
from mjumbe.couch import CouchError, UnavailableError
from mjumbe.live_settings import LiveSettings
from mjumbe.settings import Settings
from tests.unit.api.conftest import MemoryCouch, MemoryDatabase

ADMIN, PHONE = {"Authorization": "Basic YWRtaW46cHc="}, {"Authorization": "Basic cDpw"}


def write(database: MemoryDatabase, values: Any) -> None:
    database.put({**(database.get("settings") or {"_id": "settings"}), "settings": values})


def test_before_the_first_reading(database: MemoryDatabase) -> None:
    live = LiveSettings(database)
    assert live.current.default_country_code == "254"
    with pytest.raises(UnavailableError):
        live.loaded()
    write(database, {"default_country_code": "256"})
    assert live.loaded().default_country_code == "256"


def test_changes_are_picked_up(database: MemoryDatabase) -> None:
    live = LiveSettings(database)
    write(database, {"locale": "en"})
    assert live.refresh().locale == "en"
    write(database, {"locale": "sw"})
    assert live.refresh_if_older(3600).locale == "en"
    assert live.refresh_if_older(0).locale == "sw"
    assert live.current.locale == "sw"


def test_a_wrong_key_keeps_its_value_before_and_the_others_apply(database: MemoryDatabase) -> None:
    live = LiveSettings(database)
    write(database, {"locale": "en", "sms": {"duplicate_limit": 7}})
    live.refresh()
    write(database, {"locale": "sw", "sms": {"duplicate_limit": 50, "in_doubt": "hold"}})
    now = live.refresh()
    assert (now.locale, now.sms.duplicate_limit, now.sms.in_doubt) == ("sw", 7, "hold")
    assert [str(problem) for problem in live.problems] == [
        "sms.duplicate_limit is 50; expected a whole number from 1 to 20"
    ]
    write(database, {"sms": {"duplicate_limit": 50}})
    assert live.refresh().sms.duplicate_limit == 7
    write(database, {"sms": {"duplicate_limit": 8}})
    assert live.refresh().sms.duplicate_limit == 8
    assert live.problems == ()


@pytest.mark.parametrize(
    "values",
    [
        None,
        [],
        "text",
        {"sms": 7},
        {"sms": {"replies": [{"keyword": "two words", "message": "x"}]}},
        {"sms": {"replies": "x", "duplicate_limit": -1, "africas_talking": {"base_url": "ftp://x", "batch_size": 0}}},
        {"permissions": {"can_access_gateway_api": 7}},
        {"default_country_code": "x", "locale": 7},
    ],
)
def test_a_wrong_document_from_the_start_leaves_the_defaults(database: MemoryDatabase, values: Any) -> None:
    live = LiveSettings(database)
    write(database, values)
    now = live.refresh()
    assert now.sms == Settings().sms
    assert now.default_country_code == "254"
    assert live.problems


def test_a_deleted_document_leaves_the_last_good_ones(database: MemoryDatabase) -> None:
    live = LiveSettings(database)
    write(database, {"locale": "sw"})
    live.refresh()
    del database.docs["settings"]
    assert live.refresh().locale == "sw"
    assert [str(problem) for problem in live.problems] == ["settings is null; expected an object"]
    write(database, {"locale": "fr"})
    assert (live.refresh().locale, live.problems) == ("fr", ())


def test_couchdb_away_leaves_the_last_good_ones(database: MemoryDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_settings, "SOON_SECONDS", 0.0)
    live = LiveSettings(database)
    write(database, {"locale": "sw"})
    live.refresh()
    database.away = True
    with pytest.raises(UnavailableError):
        live.refresh()
    assert live.loaded().locale == "sw"
    live.refresh_soon()
    with live._lock:  # until the thread is done
        assert live.current.locale == "sw"


def test_fresh_ones_are_read_again_by_their_age(database: MemoryDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    live = LiveSettings(database)
    with pytest.raises(UnavailableError):
        live.fresh()
    live._failed_at = -math.inf
    write(database, {"locale": "en"})
    assert live.fresh().locale == "en"
    write(database, {"locale": "sw"})
    assert live.fresh().locale == "en"
    monkeypatch.setattr(live_settings, "SOON_SECONDS", 0.0)
    assert live.fresh().locale == "sw"


@pytest.mark.parametrize("error", [UnavailableError("CouchDB is away"), CouchError(401, "the password is wrong")])
def test_couchdb_away_is_not_asked_at_every_request(
    database: MemoryDatabase, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    asked = []

    def away(doc_id: str) -> NoReturn:
        asked.append(doc_id)
        raise error

    monkeypatch.setattr(database, "get", away)
    live = LiveSettings(database)
    live.recall({"locale": "sw"})
    with capture_logs() as lines:
        for _ in range(3):
            live.refresh_soon()
            with live._lock:  # until the thread is done
                pass
            assert live.fresh().locale == "sw"
    assert asked == ["settings"]
    assert [line["event"] for line in lines] == ["settings not read, the last good ones stay"]


def test_whoever_reads_them_already_is_not_waited_for(database: MemoryDatabase) -> None:
    live = LiveSettings(database)
    with live._lock:
        live.refresh_soon()
    assert live._read_at is None


def test_what_else_is_in_an_object_with_a_wrong_list_applies(database: MemoryDatabase) -> None:
    live = LiveSettings(database)
    write(database, {"sms": {"replies": [{"keyword": "HELP", "message": "x"}], "reply_to": "1"}})
    live.refresh()
    wrong = {"replies": [{"keyword": "HELP", "message": "y"}, {"keyword": "two words", "message": "x"}]}
    write(database, {"sms": {**wrong, "reply_to": "22000"}})
    now = live.refresh()
    assert (now.sms.reply_to, [reply.message for reply in now.sms.replies]) == ("22000", ["x"])


@pytest.mark.parametrize("name", ["can_x", "can.x", "can[x]", ".", ""])
def test_a_wrong_key_may_have_any_name(database: MemoryDatabase, name: str) -> None:
    live = LiveSettings(database)
    write(database, {"locale": "sw", "permissions": {name: "all", "can_y": ["sms"]}})
    now = live.refresh()
    assert (now.locale, now.permissions, len(live.problems)) == ("sw", {"can_y": ["sms"]}, 1)


def test_what_comes_into_force_is_told_once_and_what_is_wrong_is_logged_once(database: MemoryDatabase) -> None:
    told: list[Any] = []
    live = LiveSettings(database, lambda values: told.append(dict(values)))
    write(database, {"locale": "sw", "sms": {"duplicate_limit": 50}})
    with capture_logs() as lines:
        for _ in range(3):
            live.refresh()
        write(database, {"locale": "fr", "sms": {"duplicate_limit": 50}})
        live.refresh()
    assert told == [{"locale": "sw", "sms": {}}, {"locale": "fr", "sms": {}}]
    assert len(lines) == 1 and "duplicate_limit is 50" in lines[0]["problem"]


def test_settings_of_an_earlier_process_are_in_force_until_they_are_read(database: MemoryDatabase) -> None:
    live = LiveSettings(database)
    live.recall({"locale": "sw"})
    database.away = True
    assert live.loaded().locale == "sw"
    database.away = False
    write(database, {"locale": "fr"})
    assert live.refresh_if_older(3600).locale == "fr"


def test_what_another_process_changed_holds_for_the_next_request(
    memory: MemoryCouch, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_settings, "SOON_SECONDS", 0.0)
    message = {"to": "0711000111", "message": "Habari"}

    def numbers() -> list[str]:
        sent = client.post("/api/v1/messages", json=message, headers=ADMIN).json
        told = client.post("/api/v1/opt-outs", json={"phone": message["to"]}, headers=ADMIN).json
        assert sent and told
        return [sent["messages"][0]["to"], told["phone"]]

    memory.users["Basic cDpw"] = ("p", ("chw",))
    assert numbers() == ["+254711000111"] * 2
    assert client.get("/api/sms", headers=PHONE).status_code == 403
    write(memory.main, {"default_country_code": "255", "permissions": {"can_access_gateway_api": ["chw"]}})
    assert numbers() == ["+255711000111"] * 2
    assert client.get("/api/sms", headers=PHONE).status_code == 200
