"""`mjumbe doctor`: every check that docs/troubleshooting.md lists, each with what to do when it fails.

No database, no key file and no message comes of it.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

import requests

from mjumbe import credentials, health, states
from mjumbe.config import Config
from mjumbe.couch import CONNECT_TIMEOUT, Couch, CouchError, Row, UnavailableError
from mjumbe.credentials import CredentialError, Vault, VaultKeys
from mjumbe.documents import MOST_WORDS, find_task, milliseconds
from mjumbe.gateways import PHONE_GATEWAY, SERVICES
from mjumbe.gateways.base import Wiring
from mjumbe.health import Check, House, Said
from mjumbe.http_sessions import plain_session
from mjumbe.live_settings import LiveSettings
from mjumbe.settings_document import DOCUMENT_ID, values
from mjumbe.settings_reference import misspelt
from mjumbe.setup import Indexes
from mjumbe.states import State, Task
from mjumbe.text import shortened

OLDEST_COUCHDB = 3
READ_SECONDS = 15.0  # a doctor does not wait for a view to be built
CLOCK_SECONDS = 30.0
LEAST_FREE = 500 * 1024 * 1024  # bytes
OVERDUE = timedelta(hours=1)
MOST_COUNTED = 1_000
FOR_THE_PHONE = ("assigned", "bound")  # in the view `mjumbe/due`


def examine(config: Config) -> Iterator[Check]:
    """Every check, one after the other: the machine, CouchDB, mjumbe's own parts, the services, the messages."""
    yield from health.inspect(_checks(config))


def _checks(config: Config) -> Iterator[tuple[str, Callable[[], Said]]]:
    mode = _key_mode(config)  # before the vault is opened, which closes the file to others
    house = house_of(config)
    yield "disk", partial(_disk, config.data)
    yield "vault key", partial(_key, config, mode)
    shared = {name: partial(check, house) for name, check in health.CHECKS.items()}
    yield "couchdb", shared.pop("couchdb")  # first, for the others are not asked when it is away
    yield "version", partial(_version, house.couch)
    yield "admin", partial(_admin, house.couch)
    yield "clock", partial(_clock, house.couch)
    yield from shared.items()
    names = _services(house)
    for name in names:
        yield name, partial(_answers, house, name)
    yield "setting names", partial(_setting_names, house)
    yield "public url", partial(_public_url, house)
    yield "callback keys", partial(_callback_keys, house, names)
    yield "overdue", partial(_overdue, house)
    yield "in doubt", partial(_in_doubt, house)
    yield "with phones", partial(_with_phones, house)


def house_of(config: Config) -> House:
    """What the checks look at. Without a vault key nothing is made: what needs one says so."""
    couch = Couch(config.couch_url, READ_SECONDS)
    indexes, settings = Indexes(couch), LiveSettings(couch.main)
    try:
        vault = Vault(couch, VaultKeys.find(config.vault_key, config.data))
    except CredentialError as error:
        trouble = error

        def fail(*_: str) -> NoReturn:
            raise trouble

        return House(couch, indexes, settings, fail, fail)
    return House(couch, indexes, settings, vault.get, vault.check)


# ---- the machine, and CouchDB as a server


def _is_there(path: Path) -> bool:
    """Whether there is such a file, as far as this user may look; Path.exists raises where that is not far enough."""
    return os.access(path, os.F_OK)


def _disk(data: Path) -> Said:
    there = next(folder for folder in (data.absolute(), *data.absolute().parents) if _is_there(folder))
    try:
        with tempfile.TemporaryFile(dir=there):  # rights do not tell that a broken disk is closed to everybody
            pass
    except OSError as error:
        says = f"MJUMBE_DATA ({data}) cannot be written ({error.strerror}): run this as the user who runs mjumbe"
        advice = "if that user cannot either, chown it, or see to the disk"
        return False, f"{says}; {advice}: callbacks are spooled there."
    free = shutil.disk_usage(there).free
    says = f"{free / 1024**3:.1f} GB are free where MJUMBE_DATA ({data}) is"
    if free < LEAST_FREE:
        return False, f"{says}; free some: callbacks are spooled there while CouchDB is away."
    return True, f"{says}."


def _key_mode(config: Config) -> int | None:
    """The mode of the vault's key file; None when there is none, or it is not used."""
    path = config.data / credentials.KEY_FILE
    return None if config.vault_key or not _is_there(path) else path.stat().st_mode & 0o777


def _key(config: Config, mode: int | None) -> Said:
    path = config.data / credentials.KEY_FILE
    if config.vault_key:
        return True, "The vault's key is in MJUMBE_VAULT_KEY."
    if mode is None:
        return False, f"There is no vault key: neither MJUMBE_VAULT_KEY nor the file {path}; is MJUMBE_DATA right?"
    if mode & 0o077:
        return False, f"The vault's key file {path} could be read by others (mode {mode:04o}); chmod 600 it."
    if not os.access(path, os.R_OK):
        return False, f"The vault's key file {path} belongs to somebody else; run this as the user who runs mjumbe."
    return True, f"The vault's key file {path} is closed to others; keep a copy apart from the database's backups."


def _version(couch: Couch) -> Said:
    version = str(couch.welcome().get("version"))
    major = version.partition(".")[0]
    if not major.isdecimal() or int(major) < OLDEST_COUCHDB:
        return False, f"CouchDB is {version}; mjumbe needs {OLDEST_COUCHDB} or newer."
    return True, f"CouchDB is {version}."


def _admin(couch: Couch) -> Said:
    context = couch.request("GET", "/_session").get("userCtx", {})
    if "_admin" not in (context.get("roles") or ()):
        return False, f"The user {context.get('name')} in COUCH_URL is no server admin; name one who is."
    return True, f"The user {context.get('name')} in COUCH_URL is a server admin."


def _clock(couch: Couch) -> Said:
    """By the Date header, whose second is the finest that it has."""
    with plain_session() as session:
        try:
            header = session.get(couch.server_url, timeout=(CONNECT_TIMEOUT, READ_SECONDS)).headers.get("Date", "")
            apart = (datetime.now(UTC) - parsedate_to_datetime(header)).total_seconds()
        except requests.exceptions.RequestException:
            return False, health.AWAY
        except (ValueError, TypeError):
            return False, "Not known: what answers at COUCH_URL says no time."
    if abs(apart) > CLOCK_SECONDS:
        return False, f"This machine's clock is {apart:+.0f} s from CouchDB's; let both follow a time server."
    return True, "This machine's clock and CouchDB's agree."


# ---- the services


def _services(house: House) -> list[str]:
    """The services in use that we call; none while that cannot be known, which other checks say."""
    try:
        return [name for name in house.settings.refresh().sms.order if name in SERVICES]
    except (UnavailableError, CouchError):
        return []


def _answers(house: House, name: str) -> Said:
    """The service takes our credentials, by its cheapest call."""
    definition = SERVICES[name]
    check = definition.build(Wiring(house.settings.refresh(), house.credential)).check()
    if check.ok:
        return True, health.sentence(check.says)
    section = f"sms.{name.replace('-', '_')}"
    return False, health.sentence(
        f"{check.says.rstrip('.')}; are the credential {definition.outgoing_credential} and the settings {section} "
        f"right, and can this machine reach the service? docs/{name}.md says more"
    )


def _setting_names(house: House) -> Said:
    sms = values(house.couch.main.get(DOCUMENT_ID)).get("sms")
    found = misspelt(sms) if isinstance(sms, dict) else {}
    if found:
        listed = "; ".join(f"{name} (was {meant} meant?)" for name, meant in found.items())
        return False, f"Nothing reads {listed}: correct these names in the settings, or take them out."
    return True, "No setting looks misspelt."


def _public_url(house: House) -> Said:
    url = house.settings.refresh().public_url
    if not url:
        return False, "public_url is not set; set it to this server's address from outside, for the callback URLs."
    if urlsplit(url).scheme != "https":
        return False, f"public_url is {url}: callbacks with people's messages need https."
    return True, f"The services reach this server at {url}."


def _callback_keys(house: House, names: list[str]) -> Said:
    house.settings.refresh()  # raises while CouchDB does not tell which services are in use
    needed = {name: SERVICES[name].callbacks for name in names}
    missing = {
        name: callbacks.credential
        for name, callbacks in needed.items()
        if callbacks and not house.credential(callbacks.credential)
    }
    if missing:
        listed = "; ".join(f"{name}: PUT one to /api/v1/credentials/{key}" for name, key in missing.items())
        return False, f"Callbacks are refused for want of a credential: {listed}."
    return True, "Every service in use has what proves its callbacks."


# ---- the messages


def _overdue(house: House) -> Said:
    until = milliseconds(states.now() - OVERDUE)
    waiting = {state: _due(house, [state], [state, until]) for state in ("scheduled", "pending", *FOR_THE_PHONE)}
    rows = [row for found in waiting.values() for row in found]
    if not rows:
        return True, "No message is due for more than an hour."
    count = f"{_number(len(rows), 'message has', 'messages have')} been due for more than an hour"
    for_the_phone = sum(len(waiting[state]) for state in FOR_THE_PHONE)
    if for_the_phone:
        return False, f"{count}, {for_the_phone} of them for the phone gateway ({PHONE_GATEWAY}): does it poll?"
    bound = [shortened(row.value["via"], MOST_WORDS) for row in rows if row.value["via"]]
    if bound:
        names = ", ".join(sorted(set(bound)))
        return False, f"{count}, {len(bound)} of them for {names} alone: `mjumbe gateways` says what that lacks."
    return False, f"{count}; see above whether the sentinel runs and a service takes messages."


def _in_doubt(house: House) -> Said:
    """What was held once stays so, whatever the settings say now."""
    rows = _due(house, ["in-doubt"], ["in-doubt", {}], docs=True)
    held = sum(_is_held(find_task(row.doc or {}, str(row.value["uuid"])) or {}) for row in rows)
    if held:
        says = _number(held, "message may have been sent and is held", "messages may have been sent and are held")
        return False, (
            f"{says} (sms.in_doubt); find such with "
            "GET /api/v1/messages?state=forwarded-to-gateway, and ask the service or the people."
        )
    if not rows:
        return True, "No message is in doubt."
    again = _number(
        len(rows),
        "message may have been sent already, and is sent again by itself",
        "messages may have been sent already, and are sent again by themselves",
    )
    return True, f"{again} (sms.in_doubt)."


def _is_held(task: Task) -> bool:
    """Whether a message in doubt waits for a person, and is not with a service again."""
    return states.of(task) is State.FORWARDED_TO_GATEWAY and not task.get("claim")


def _with_phones(house: House) -> Said:
    """What phones were given and said nothing of; by when it was due, which is before it was given."""
    until = milliseconds(states.now() - OVERDUE)
    given: list[object] = [State.FORWARDED_TO_GATEWAY]
    count = sum(row.value["service"] == PHONE_GATEWAY for row in _due(house, given, [*given, until]))
    if not count:
        return True, "No phone has kept a message to itself for more than an hour."
    given_away = _number(
        count, "message that was due more than an hour ago is", "messages that were due more than an hour ago are"
    )
    return False, (
        f"{given_away} with phones that keep silent about that: do these "
        "poll? If a phone is lost, POST /api/v1/messages/<uuid>/settle sends its messages again; "
        "GET /api/v1/messages?state=forwarded-to-gateway lists them."
    )


def _number(count: int, one: str, more: str) -> str:
    return f"{count} {one if count == 1 else more}"


def _due(house: House, start: list[object], end: list[object], *, docs: bool = False) -> list[Row]:
    """The due view's rows, as far as MOST_COUNTED."""
    view = house.couch.main.view_with_docs if docs else house.couch.main.view
    return view("mjumbe", "due", start_key=start, end_key=end, limit=MOST_COUNTED)
