"""The command line of an operator: doctor, gateways, contacts, as processes."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import requests

from mjumbe import documents, states
from mjumbe.commands.base import _what_it_waits_for
from mjumbe.commands.settings import _read_value
from mjumbe.couch import Couch
from mjumbe.edits import apply_edits
from mjumbe.polling_phones import PollingPhones
from mjumbe.status import LEADER_ID
from tests import leaks
from tests.integration.processes import VAULT_KEY, Process, eventually, start
from tests.integration.sentinel.world import World, number


def examined(world: World, **environment: str) -> tuple[int, dict[str, tuple[bool, str]]]:
    """What the doctor says: each check's ok and sentence."""
    code, output = world.run("doctor", **environment)
    failed = output.count("FAIL")
    summary = f"Failed: {failed}. docs/troubleshooting.md says more about each."
    assert [line for line in output.splitlines() if line.startswith("Failed")] == [summary] * bool(failed)
    lines = [line.strip() for line in output.splitlines() if line.startswith(("  ok", "FAIL"))]
    checks = {}
    for line in lines:
        mark, _, rest = line.partition("  ")
        name, _, says = rest.partition(": ")
        checks[name] = (mark == "ok", says)
    assert checks, output
    return code, checks


# ---- doctor


def test_a_healthy_house(world: World) -> None:
    world.set(public_url="https://sms.example.org")
    code, checks = examined(world)
    assert {name: says for name, (ok, says) in checks.items() if not ok} == {}
    assert code == 0
    assert list(checks) == [
        *("disk", "vault key", "couchdb", "version", "admin", "clock", "views", "vault", "sentinel", "service"),
        *("settings", "africas-talking", "setting names", "public url", "callback keys", "overdue"),
        *("in doubt", "with phones", "spool"),
    ]
    assert checks["africas-talking"][1].startswith("Africa's Talking took the credentials; the balance is KES ")


@pytest.fixture
def house(own_world: World) -> World:
    """A world in which everything is set up, but no sentinel runs."""
    own_world.set(public_url="https://sms.example.org")
    return own_world


def failing(world: World, **environment: str) -> dict[str, str]:
    code, checks = examined(world, **environment)
    failed = {name: says for name, (ok, says) in checks.items() if not ok}
    assert code == (1 if failed else 0)
    return failed


def test_what_an_unfinished_house_lacks(house: World) -> None:
    house.vault.delete("africastalking.com:incoming")
    house.vault.set("africastalking.com:outgoing", "a-wrong-key")
    house.set(public_url="http://sms.example.org")
    failed = failing(house)
    assert set(failed) == {"sentinel", "africas-talking", "public url", "callback keys"}
    assert failed["sentinel"] == "No sentinel has run yet; start one with `mjumbe sentinel`."
    assert failed["africas-talking"] == (
        "Africa's Talking did not take the credentials: HTTP 401; are the credential africastalking.com:outgoing and "
        "the settings sms.africas_talking right, and can this machine reach the service? docs/africas-talking.md says "
        "more."
    )
    assert "https" in failed["public url"]
    assert "/api/v1/credentials/africastalking.com:incoming" in failed["callback keys"]
    house.set(public_url=None)
    assert failing(house)["public url"].startswith("public_url is not set")


def test_a_held_service_says_why_and_since_when(house: World) -> None:
    held = {"held": True, "reason": "InsufficientBalance", "since": "2026-01-31T08:30:00.000Z"}
    doc = {"_id": LEADER_ID, "owner": {}, "heartbeat": states.timestamp(states.now())}
    house.couch.sentinel.put({**doc, "services": {"africas-talking": held}})
    failed = failing(house)
    assert failed == {
        "service": "No active SMS service. "
        "The service africas-talking is held since 2026-01-31T08:30:00.000Z: InsufficientBalance; "
        "`mjumbe gateways test africas-talking NUMBER` sends a message by it, which frees it when it works."
    }


def test_messages_that_wait_or_are_in_doubt(house: World) -> None:
    old = states.now().replace(year=2026, month=1, day=1)
    phone = {"service": "medic-gateway"}
    for facts in ({}, {"state": "scheduled", "due": old.isoformat()}, phone, phone | {"via": "medic-gateway"}):
        task = documents.new_task(number(), "x", old) | facts
        house.couch.main.put(documents.outgoing_document(task, old, None))
    for facts in ({"state": "pending"}, {"state": "forwarded-to-gateway", "claim": "c"}):
        again = documents.new_task(number(), "x", states.now()) | facts | {"in_doubt": True}
        house.couch.main.put(documents.outgoing_document(again, states.now(), None))
    failed = failing(house)
    assert set(failed) == {"sentinel", "overdue"}
    assert failed["overdue"].startswith("4 messages have been due for more than an hour, 2 of them for the phone")
    held = documents.new_task(number(), "x", states.now()) | {"state": "forwarded-to-gateway", "in_doubt": True}
    house.couch.main.put(documents.outgoing_document(held, states.now(), None))
    # Also where sms.in_doubt was `hold`, and is `retry` by now.
    assert failing(house)["in doubt"].startswith("1 message may have been sent and is held (sms.in_doubt)")


def test_messages_that_wait_for_a_service_of_their_own(house: World) -> None:
    """It need not be among those in use, of which the checks before tell."""
    at = states.now() - timedelta(hours=2)
    for facts in ({}, {"via": "viber"}):
        task = documents.new_task(number(), "x", at) | facts
        house.couch.main.put(documents.outgoing_document(task, at, None))
    says = "2 messages have been due for more than an hour, 1 of them for viber alone: `mjumbe gateways` says what"
    assert failing(house)["overdue"].startswith(says)


def test_messages_that_a_phone_keeps_to_itself(house: World) -> None:
    for hours, service in ((2, "medic-gateway"), (2, "africas-talking"), (0.5, "medic-gateway")):
        at = states.now() - timedelta(hours=hours)
        task = documents.new_task(number(), "x", at)
        states.claim(task, at, service, "phone1")
        house.couch.main.put(documents.outgoing_document(task, at, None))
    failed = failing(house)
    assert set(failed) == {"sentinel", "with phones"}
    assert failed["with phones"].startswith("1 message that was due more than an hour ago is with phones")


def test_a_key_file(house: World, tmp_path: Path) -> None:
    for credential in ("africastalking.com:incoming", "africastalking.com:outgoing"):
        house.vault.delete(credential)
    key = tmp_path / "vault.key"
    environment = {"MJUMBE_DATA": str(tmp_path), "MJUMBE_VAULT_KEY": ""}
    failed = failing(house, **environment)
    assert not key.exists(), "a doctor makes no key"
    assert str(key) in failed["vault key"] and "there is no key file" in failed["vault"].lower()
    key.write_text(VAULT_KEY)
    key.chmod(0o640)
    assert "0640" in failing(house, **environment)["vault key"]
    assert "vault key" not in failing(house, **environment)


def test_data_that_this_user_may_not_write_or_look_at(house: World, tmp_path: Path) -> None:
    (tmp_path / "file").touch(mode=0o600)
    closed = tmp_path / "file" / "data"
    said = examined(house, MJUMBE_DATA=str(closed))[1]
    assert said["disk"] == (
        False,
        f"MJUMBE_DATA ({closed}) cannot be written (Not a directory): run this as the user who runs mjumbe; "
        "if that user cannot either, chown it, or see to the disk: callbacks are spooled there.",
    )
    # A name that is too long stands for a directory that is closed: looking at what is in it fails, for root too.
    said = examined(house, MJUMBE_DATA=str(tmp_path / ("x" * 300)))[1]
    assert not said["spool"][0] and " cannot be read " in said["spool"][1]
    assert examined(house, MJUMBE_DATA=str(tmp_path / ("x" * 300)), MJUMBE_VAULT_KEY="")[1]["vault key"][0] is False


def test_a_couchdb_that_is_away_or_refuses(house: World) -> None:
    database = house.couch.name
    away = failing(house, COUCH_URL=f"http://admin:x@127.0.0.1:1/{database}")
    assert away["couchdb"].endswith("start it, or correct COUCH_URL.")
    assert away["version"] == "Not known while CouchDB cannot be reached."
    assert away["callback keys"] == "Not known while CouchDB cannot be reached."
    # A name of nobody's: wrong passwords for our own would lock it out of a CouchDB 3.4.
    wrong = house.couch.server_url.replace("://", f"://nobody-{database}:wrong@")
    refused = failing(house, COUCH_URL=f"{wrong}/{database}")
    assert refused["couchdb"] == "The name or the password in COUCH_URL is wrong."
    for name in ("views", "callback keys"):
        assert refused[name] == "Not known while CouchDB does not let us in."
    says = (
        "Error: CouchDB answered 404: not_found: Database does not exist. Does COUCH_URL end with the right database?\n"
    )
    assert house.run("settings", "get", COUCH_URL=f"{house.couch_url}-not-there") == (1, says)
    empty = failing(house, COUCH_URL=f"{house.couch_url}-not-there")
    assert empty["views"].endswith("Database does not exist.")
    somebody = {"name": database, "password": "pw", "roles": [], "type": "user"}
    path = f"/_users/org.couchdb.user:{database}"
    rev = house.couch.request("PUT", path, somebody)["rev"]
    as_somebody = house.couch.server_url.replace("://", f"://{database}:pw@")
    says = f"The user {database} in COUCH_URL is no server admin; name one who is."
    try:
        assert failing(house, COUCH_URL=f"{as_somebody}/{database}")["admin"] == says
    finally:
        house.couch.request("DELETE", path, params={"rev": rev})
    code, output = house.run("doctor", COUCH_URL="")
    assert code == 1 and "COUCH_URL is not set" in output


# ---- settings, credentials, messages


def test_a_misspelt_name_is_named(own_world: World) -> None:
    code, output = own_world.run("settings", "set", "sms.reply_too", "22000")
    assert (code, output) == (0, "Set sms.reply_too.\nmjumbe reads no setting sms.reply_too; was sms.reply_to meant?\n")
    assert "Nothing reads sms.reply_too (was sms.reply_to meant?)" in failing(own_world)["setting names"]
    code, output = own_world.run("settings", "set", "sms.reply_to", "22000")
    assert (code, output) == (0, "Set sms.reply_to.\n")
    code, output = own_world.run("credentials", "set", "africastalking:incoming", "a-key-under-a-wrong-name")
    assert code == 0
    assert "No service uses a credential africastalking:incoming; they use africastalking.com:incoming, " in output
    code, output = own_world.run("credentials", "set", "africastalking.com:incoming", "a-key-under-its-name")
    assert (code, output) == (0, "Stored africastalking.com:incoming.\n")


def test_a_wrong_name_in_couch_url_makes_no_databases_silently(house: World) -> None:
    url = f"{house.couch_url}-typo"
    try:
        code, output = house.run("settings", "set", "sms.reply_to", "22000", COUCH_URL=url)
        assert code == 0
        made = ", ".join(database.name for database in Couch(url).databases)
        where = f"Made the databases {made} on {house.couch.server_url}. If mjumbe has others there already, COUCH_URL"
        assert where in output
        assert house.run("settings", "set", "sms.reply_to", "22000", COUCH_URL=url) == (0, "Set sms.reply_to.\n")
    finally:
        for database in Couch(url).databases:
            database.drop()


def test_a_setting_without_a_name_is_refused(house: World) -> None:
    for path in ("", "sms..x", ".sms", "sms."):
        code, output = house.run("settings", "set", path, "5")
        assert (code, output) == (1, f"Error: PATH is '{path}', with an empty name in it; write it as sms.reply_to\n")


def test_settings_are_merged_and_shown(house: World, tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    file.write_text('{"sms": {"reply_to": "22000", "max_attempts": 4}, "forms": {"é": {"fields": {}}}}')
    assert house.run("settings", "load", str(file)) == (0, f"Merged {file}.\n")
    assert house.run("settings", "set", "sms.max_attempts", "5") == (0, "Set sms.max_attempts.\n")
    code, output = house.run("settings", "get")
    shown = json.loads(output)
    assert (code, shown["forms"], "é" in output) == (0, {"é": {"fields": {}}}, True)
    assert (shown["sms"]["reply_to"], shown["sms"]["max_attempts"]) == ("22000", 5)
    assert shown["public_url"] == "https://sms.example.org", "what neither names stays"
    assert house.run("settings", "get", "sms.reply_to") == (0, '"22000"\n')
    for path in ("sms.nothing", "sms.reply_to.x"):
        assert house.run("settings", "get", path) == (1, f"Error: {path} is not set\n")


def test_credentials_are_listed_by_name_and_go(house: World) -> None:
    names = ["africastalking.com:incoming", "africastalking.com:outgoing", "textbee:outgoing"]
    assert house.run("credentials", "set", names[2], piped=leaks.secret("a-key-by-pipe\n")) == (
        0,
        f"Stored {names[2]}.\n",
    )
    assert house.vault.get(names[2]) == "a-key-by-pipe"
    assert house.run("credentials", "list") == (0, "".join(f"{name}\n" for name in names))
    assert house.run("credentials", "delete", names[2]) == (0, f"Deleted {names[2]}.\n")
    assert house.vault.get(names[2]) is None
    says = f"Error: there is no credential {names[2]}; mjumbe credentials list shows what there is\n"
    assert house.run("credentials", "delete", names[2]) == (1, says)


def test_what_becomes_of_a_message_is_shown(world: World) -> None:
    code, output = world.run("send", number().replace("+254", "0"), "Habari")
    first, *steps = output.splitlines()
    assert (code, first.startswith("Handed over as ")) == (0, True)
    shown = [step.split()[1:] for step in steps]
    assert [step[0] for step in shown] == ["pending", "forwarded-to-gateway", "sent", "delivered"]
    assert shown[-1] == ["delivered", "Success"]
    code, output = world.run("send", number(), "Habari", "--wait", "0")
    assert (code, len(output.splitlines())) == (0, 1)


@pytest.mark.parametrize(
    ("path", "written", "stored"),
    [
        ("sms.textbee.device_id", "661234567890123456789e12", "661234567890123456789e12"),
        ("sms.textbee.device_id", "661234567890123456789e900", "661234567890123456789e900"),
        ("sms.reply_to", "22000", "22000"),
        ("sms.reply_to", '"22000"', "22000"),
        ("sms.max_attempts", "4", 4),
        ("sms.textbee.enabled", "false", False),
        ("not_ours", "1.5", 1.5),
        ("not_ours", "1e999", "1e999"),
    ],
)
def test_a_setting_is_read_as_json_unless_it_is_a_text(path: str, written: str, stored: object) -> None:
    assert _read_value(path, written) == stored


def test_what_cannot_be_merged_or_sent(own_world: World, tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    for content, says in (("{", "is no JSON: "), ("[]", "holds no JSON object")):
        file.write_text(content)
        code, output = own_world.run("settings", "load", str(file))
        assert code == 1 and output.startswith(f"Error: {file} {says}")
    code, output = own_world.run("send", number(), "")
    assert (code, output) == (1, "Error: MESSAGE is empty; write the text to send\n")
    code, output = own_world.run("send", number(), "x", "--wait", "-5")
    assert code == 2 and "Invalid value for '--wait'" in output
    latin = os.fsdecode("habari njéma".encode("latin-1"))
    for arguments in (("send", number(), latin), ("contacts", "add", number(), latin), ("settings", "set", "x", latin)):
        code, output = own_world.run(*arguments)
        assert code == 2 and output.endswith("is not written in UTF-8; set the terminal, and LANG, to it\n")
    code, output = own_world.run("contacts", "list", "--limit", "-1")
    assert code == 2 and "Invalid value for '--limit'" in output


def test_output_to_a_disk_that_is_full(house: World) -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "mjumbe.cli", "settings", "get"]
        done = subprocess.run(
            command,
            env=os.environ | house.environment,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    says = "Error: nothing can be written to where the output goes (No space left on device); free some space\n"
    assert (done.returncode, done.stderr) == (1, says)


def test_what_was_sent_is_known_by_the_id_that_is_shown(house: World) -> None:
    code, output = house.run("send", number(), "x", "--wait", "2")
    assert code == 1 and "What holds messages up says `mjumbe doctor`" in output
    shown = output.partition("Handed over as ")[2].partition(".")[0]
    rows = house.couch.main.view("mjumbe", "messages_by_uuid", key=shown)
    assert len(rows) == 1, output


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"state": "pending"}, "it goes on by itself. What holds messages up says `mjumbe doctor`."),
        ({"state": "sent", "state_details": "by the phone"}, "it goes on by itself."),
        (
            {"state": "pending", "state_details": "no service reaches this number: viber cannot"},
            "it stays due: no service reaches this number: viber cannot.",
        ),
    ],
)
def test_why_a_message_is_not_delivered_yet(facts: dict[str, str], says: str) -> None:
    assert _what_it_waits_for(documents.new_task("+254711000111", "x", states.now()) | facts).startswith(says)


# ---- gateways


def test_gateways(world: World) -> None:
    world.set(public_url="https://sms.example.org")
    code, output = world.run("gateways", COLUMNS="80")
    assert code == 0, output
    assert "africas-talking" in output and "ready" in output and "not configured" in output
    assert "incoming-messages at https://sms.example.org/api/v1/sms/africastalking/incoming-messages?key=" in output
    assert "africas-talking │" in output
    # Of those that are not in use yet too: who sets one up needs what is missing, and the URL for its dashboard.
    assert "textbee: no API key; PUT it to /api/v1/credentials/textbee:outgoing" in output
    assert "textbee: events at https://sms.example.org/api/v1/sms/textbee/events" in output


def test_gateways_tells_what_each_did(house: World) -> None:
    said = {"last_success": "2026-01-02T00:00:00.000Z", "last_failure": "2026-01-01T00:00:00.000Z", "balance": "KES 5"}
    owner = {"_id": LEADER_ID, "owner": {}, "heartbeat": "", "services": {"africas-talking": said}}
    apply_edits(house.couch.sentinel, {LEADER_ID: lambda doc: doc.update(owner) is None}, create=True)
    sent = documents.new_task(number(), "x", states.now(), service="africas-talking") | {"state": "sent"}
    house.couch.main.put(documents.outgoing_document(sent, states.now(), None))
    for days in (-1, 1):  # a clock that was set back may have written of tomorrow
        at = states.now() + timedelta(days=days)
        other = documents.new_task(number(), "x", at, service="africas-talking") | {"state": "failed"}
        house.couch.main.put(documents.outgoing_document(other, at, None))
    code, output = house.run("gateways", COLUMNS="80")
    assert code == 0, output
    assert "KES 5" in output
    assert "africas-talking: last success at 2026-01-02T00:00:00.000Z" in output
    assert "africas-talking: last failure at 2026-01-01T00:00:00.000Z" in output
    assert "africas-talking: today 1 sent\n" in output
    assert "viber: events at https://sms.example.org/api/v1/sms/viber/events\n" in output, "it proves itself otherwise"

    def table() -> dict[str, tuple[str, str]]:
        """By service, in order: its place and its state."""
        lines = house.run("gateways", COLUMNS="80")[1].splitlines()
        rows = [[cell.strip() for cell in line.split("│")] for line in lines if "│" in line]
        return {row[1]: (row[2], row[3]) for row in rows}

    said |= {"held": True, "reason": "InsufficientBalance", "since": "2026-01-31T08:30:00.000Z"}
    apply_edits(house.couch.sentinel, {LEADER_ID: lambda doc: doc.update(owner) is None})
    house.set(sms={"viber": {"enabled": False}, "fallback_services": ["viber"]})
    found = table()
    assert list(found.items())[:2] == [("africas-talking", ("1", "held")), ("viber", ("2", "switched off"))]
    assert found["textbee"] == ("", "not configured")
    held = "africas-talking: held since 2026-01-31T08:30:00.000Z: InsufficientBalance"
    assert held in house.run("gateways", COLUMNS="80")[1]


def test_trying_a_service(world: World) -> None:
    code, output = world.run("gateways", "test", "africas-talking", number())
    assert code == 0, output
    assert "Africa's Talking took the credentials" in output
    assert "delivered" in output
    shown = output.partition("Handed over as ")[2].partition(".")[0]
    [row] = world.couch.main.view("mjumbe", "messages_by_uuid", key=shown)
    assert world.doc(row.id)["tasks"][0]["via"] == "africas-talking"
    code, output = world.run("gateways", "test", "textbee")
    assert code == 1 and "textbee:outgoing" in output
    code, output = world.run("gateways", "test", "medic-gateway")
    assert code == 1 and "none has yet" in output
    PollingPhones(world.couch).polled("a-phone")
    code, output = world.run("gateways", "test", "medic-gateway")
    assert code == 0 and "one did last at" in output
    assert world.run("gateways", "test", "pigeon")[0] == 2


@pytest.fixture
def viber(tmp_path: Path) -> Iterator[Process]:
    """A simulated Viber whose bot has the token that the simulator gives it by itself."""
    process = start(["simulator", "--port", "0"], tmp_path / "viber")
    yield process
    process.stop()


def test_vibers_webhook(world: World, viber: Process) -> None:
    world.set(public_url=None)
    world.vault.set("viber:outgoing", "viber-token")
    world.set(sms={"viber": {"base_url": f"{viber.url}/pa", "sender_name": "Mtandao"}})
    code, output = world.run("gateways", "webhook", "viber")
    assert code == 1 and "public_url is not set" in output
    world.set(public_url=world.api.url)
    code, output = world.run("gateways", "webhook", "viber")
    assert (code, output.strip()) == (0, f"Viber posts the bot's events to {world.api.url}/api/v1/sms/viber/events")
    assert world.couch.user is not None
    url = f"{world.api.url}/api/v1/gateways/viber/webhook"
    answer = requests.post(url, auth=(world.couch.user, world.couch._password), timeout=30)
    assert (answer.status_code, answer.json()["ok"]) == (200, True)
    assert requests.post(url, timeout=30).status_code == 401
    world.set(sms={"viber": {"base_url": viber.url}})
    answer = requests.post(url, auth=(world.couch.user, world.couch._password), timeout=30)
    assert (answer.status_code, answer.json()["ok"]) == (502, False)


# ---- contacts


def test_contacts(world: World) -> None:
    to, name = number(), f"Amina {uuid.uuid4().hex}"
    code, output = world.run("contacts", "find", to)
    assert code == 1 and "nobody has the number" in output
    code, output = world.run("contacts", "add", to.replace("+254", "0"), name)
    assert code == 0 and output.startswith(f"{to}  {name}  ")
    doc = world.doc(output.split()[-1])
    assert (doc["type"], doc["name"], doc["phone"]) == ("person", name, to)
    assert abs(doc["reported_date"] - documents.milliseconds(states.now())) < 60_000
    code, output = world.run("contacts", "add", to, "Juma")
    assert code == 1 and name in output
    assert name in world.run("contacts", "find", to)[1]
    assert name in world.run("contacts", "list")[1]
    assert world.run("contacts", "add", number(), "Zawadi")[0] == 0
    nameless = {"_id": uuid.uuid4().hex, "type": "person", "phone": number()}
    world.couch.main.put(nameless)
    assert f"{nameless['phone']}  -  {nameless['_id']}\n" in world.run("contacts", "list")[1]
    assert len(world.run("contacts", "list", "--limit", "1")[1].splitlines()) == 1
    assert "is no phone number" in world.run("contacts", "add", "SAFARICOM", "x")[1]
    assert world.run("contacts", "add", number(), " ") == (1, "Error: NAME is empty; write whose number it is\n")
    received = world.receive(to, "Habari")
    eventually(lambda: (world.doc(received).get("contact") or {}).get("_id") == doc["_id"])
