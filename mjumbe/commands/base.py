"""What the modules of the `mjumbe` command share."""

import errno
import os
from typing import Any

import click

from mjumbe import documents, log, phone_numbers, setup, states
from mjumbe.config import Config, ConfigError
from mjumbe.couch import Couch, CouchError, NotFoundError, UnavailableError
from mjumbe.credentials import CredentialError, Vault, VaultKeys
from mjumbe.follow import FINAL, follow, hand_over
from mjumbe.live_settings import LiveSettings
from mjumbe.settings import SettingsError
from mjumbe.states import State

FULL = (errno.ENOSPC, errno.EDQUOT)


class Commands(click.Group):
    """Says what went wrong in a sentence, without a traceback, for the errors that an operator can mend."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except NotFoundError as error:
            raise click.ClickException(f"{error} Does COUCH_URL end with the right database?") from None
        except (ConfigError, CredentialError, SettingsError, UnavailableError, CouchError, ValueError) as error:
            raise click.ClickException(str(error)) from None
        except OSError as error:
            if error.errno not in FULL:  # a reader that went away, for instance, ends a command without a word
                raise
            where = error.filename or "where the output goes"
            raise click.ClickException(
                f"nothing can be written to {where} ({error.strerror}); free some space"
            ) from None


class Words(click.ParamType[str]):
    """A text that is kept. What a terminal that is not set to UTF-8 makes of an é is none, and CouchDB takes none."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """`value` as it is. Fails for what is no UTF-8."""
        try:
            value.encode()
        except UnicodeEncodeError:
            self.fail(f"{value!a} is not written in UTF-8; set the terminal, and LANG, to it", param, ctx)
        return str(value)


def connect() -> tuple[Config, Couch]:
    """The process's configuration and its CouchDB, logging set up."""
    config = Config.load(os.environ)
    log.configure()
    return config, Couch(config.couch_url)


def open_vault(config: Config, couch: Couch) -> Vault:
    """The vault with the key that the API and the sentinel have. Raises CredentialError where there is none."""
    return Vault(couch, VaultKeys.find(config.vault_key, config.data))


def prepare(couch: Couch) -> None:
    """Make what is missing in CouchDB; databases are not made silently: COUCH_URL may have a wrong name for them."""
    made = setup.prepare(couch)
    if made:
        click.echo(
            f"Made the databases {', '.join(made)} on {couch.server_url}. If mjumbe has others there already, "
            "COUCH_URL ends with a wrong name.",
            err=True,
        )


def read_number(couch: Couch, written: str) -> str:
    """A number in E.164, by the settings' country. Raises ClickException for what is none."""
    number = phone_numbers.normalise(written, LiveSettings(couch.main).refresh().default_country_code)
    if number is None:
        raise click.ClickException(f"{written} is no phone number; write it as +254711000111")
    return number


def send_and_follow(couch: Couch, to: str, text: str, wait: float, **facts: Any) -> bool:
    """Write a message's document, and show what becomes of it for `wait` seconds; whether it was delivered by then."""
    prepare(couch)
    doc = hand_over(couch.main, read_number(couch, to), text, **facts)
    # By this id GET /api/v1/messages/<uuid> knows it, not by its document's.
    click.echo(f"Handed over as {documents.message_of(doc['tasks'][0])['uuid']}.")
    if not wait or follow(couch.main, doc["_id"], wait, _say):
        return bool(wait)
    stored = couch.main.get(doc["_id"]) or doc
    if states.of(stored["tasks"][0]) not in FINAL:
        click.echo(f"Not delivered after {wait:g} s; {_what_it_waits_for(stored['tasks'][0])}")
    return False


def _what_it_waits_for(task: dict[str, Any]) -> str:
    """The history's own sentence, where the message stays due for a reason that is the message's own."""
    if states.of(task) is State.PENDING and task.get("state_details"):
        return f"it stays due: {task['state_details']}. Services that are held, and why, shows `mjumbe gateways`."
    return "it goes on by itself. What holds messages up says `mjumbe doctor`."


def _say(entry: dict[str, Any]) -> None:
    details = f"  {entry['state_details']}" if entry.get("state_details") else ""
    click.echo(f"{entry['timestamp']}  {entry['state']}{details}")
