"""The `mjumbe` command."""

import sys

if sys.argv[1:2] == ["api"]:
    from gevent import monkey

    monkey.patch_all()  # before anything else is imported: see api/server.py

import json
import math
import os
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

import click

from mjumbe import log, settings_document, settings_reference
from mjumbe.cached_vault import CachedVault
from mjumbe.commands import Commands, Words, connect, open_vault, prepare, send_and_follow
from mjumbe.commands_contacts import contacts
from mjumbe.commands_gateways import gateways
from mjumbe.config import Config, check_authorities
from mjumbe.couch import Couch
from mjumbe.credentials import VaultKeys
from mjumbe.gateways import credential_names
from mjumbe.health import inspect
from mjumbe.stopping import stop_event

PASSED_ON = {"ignore_unknown_options": True, "help_option_names": []}


@click.group(cls=Commands)
@click.version_option(package_name="mjumbe")
def main() -> None:
    """An SMS aggregator on CouchDB. Processes read COUCH_URL, MJUMBE_VAULT_KEY, MJUMBE_DATA and MJUMBE_LOG."""


# ---- processes


@main.command()
@click.option("--demo", is_flag=True, help="With a simulated Africa's Talking, on a database that is thrown away.")
@click.option("--once", is_flag=True, help="With --demo: end when the demo message was answered and delivered.")
def up(demo: bool, once: bool) -> NoReturn:
    """All processes in one terminal: the embedded store unless COUCH_URL is set, the API, the sentinel."""
    from mjumbe.up import run  # noqa: PLC0415  # the other processes need none of it

    if once and not demo:
        raise click.UsageError("--once is for the demo message: say --demo as well")
    log.configure()
    check_authorities(os.environ)
    sys.exit(run(demo=demo, once=once))


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8000, show_default=True, help="0 takes a free one.")
@click.option("--workers", default=1, show_default=True, help="Processes; more than one needs more than one core.")
def api(host: str, port: int, workers: int) -> None:
    """The API: what services and programs post to."""
    from api.server import run  # noqa: PLC0415  # only this process needs Flask and gunicorn

    config, _ = connect()
    run(config, host, port, workers)


@main.command()
def sentinel() -> None:
    """The sentinel: follows the database and sends. A second one stands by."""
    from sentinel.memory import give_back_large_blocks  # noqa: PLC0415
    from sentinel.process import Sentinel  # noqa: PLC0415

    give_back_large_blocks()
    config, couch = connect()
    Sentinel(couch, CachedVault(couch, VaultKeys.load(config.vault_key, config.data))).run(stop_event())


@main.command(context_settings=PASSED_ON)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def simulator(arguments: tuple[str, ...]) -> NoReturn:
    """The services' side, on this machine, to try and to test with (--help: its options)."""
    from simulator.__main__ import main as run  # noqa: PLC0415

    sys.exit(run(list(arguments)))


@main.command(context_settings=PASSED_ON)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def embedded(arguments: tuple[str, ...]) -> NoReturn:
    """A small store that speaks CouchDB's protocol, for a machine without CouchDB (--help: its options)."""
    from embedded.__main__ import main as run  # noqa: PLC0415

    sys.exit(run(list(arguments)))


# ---- credentials


@main.group()
def credentials() -> None:
    """What services and mjumbe prove themselves with; kept encrypted in CouchDB."""


@credentials.command("set")
@click.argument("name")
@click.argument("value", required=False)
def set_credential(name: str, value: str | None) -> None:
    """Store VALUE under NAME (africastalking.com:outgoing); without VALUE it is asked for, or read from a pipe."""
    given = value or (sys.stdin.read() if not sys.stdin.isatty() else click.prompt("Value", hide_input=True))
    config, couch = connect()
    vault = open_vault(config, couch)
    prepare(couch)
    vault.set(name, given)
    click.echo(f"Stored {name}.")
    used = credential_names()
    if name not in used:
        click.echo(f"No service uses a credential {name}; they use {', '.join(used)}", err=True)


@credentials.command("list")
def list_credentials() -> None:
    """The names of what is stored; never a value."""
    config, couch = connect()
    for name in open_vault(config, couch).names():
        click.echo(name)


@credentials.command("delete")
@click.argument("name")
def delete_credential(name: str) -> None:
    """Remove what is stored under NAME."""
    config, couch = connect()
    if not open_vault(config, couch).delete(name):
        raise click.ClickException(f"there is no credential {name}; mjumbe credentials list shows what there is")
    click.echo(f"Deleted {name}.")


@credentials.command("rotate")
def rotate_credentials() -> None:
    """Encrypt everything again under the first key of MJUMBE_VAULT_KEY (or of the key file)."""
    config, couch = connect()
    count = open_vault(config, couch).rotate()
    if count:
        click.echo(f"Encrypted {count} {'credential' if count == 1 else 'credentials'} under the first key.")
    else:
        click.echo("Nothing to do: no credential is encrypted under another key than the first.")


# ---- settings


@main.group("settings")
def settings_() -> None:
    """What the admin decides about SMS: the app settings."""


@settings_.command("get")
@click.argument("path", default="")
def get_settings(path: str) -> None:
    """The settings, or what stands at PATH (sms.africas_talking.username)."""
    _, couch = connect()
    value: Any = settings_document.values(couch.main.get(settings_document.DOCUMENT_ID))
    for step in filter(None, path.split(".")):
        if not isinstance(value, dict) or step not in value:
            raise click.ClickException(f"{path} is not set")
        value = value[step]
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


@settings_.command("set")
@click.argument("path", type=Words())
@click.argument("value", type=Words())
def set_setting(path: str, value: str) -> None:
    """Set what stands at PATH to VALUE: JSON, or else a text. `mjumbe settings set sms.reply_to 22000`"""
    if not all(path.split(".")):
        raise click.ClickException(f"PATH is '{path}', with an empty name in it; write it as sms.reply_to")
    changes: Any = _read_value(path, value)
    for step in reversed(path.split(".")):
        changes = {step: changes}
    _merge_settings(changes)
    click.echo(f"Set {path}.")
    if not settings_reference.reads(path):
        like = settings_reference.meant(path)
        hint = f"was {like} meant?" if like else "docs/settings.md lists those that it reads"
        click.echo(f"mjumbe reads no setting {path}; {hint}", err=True)


@settings_.command("load")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def load_settings(file: Path) -> None:
    """Merge a JSON file into the settings, as CHT's PUT /api/v1/settings does."""
    try:
        changes = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise click.ClickException(f"{file} is no JSON: {error}") from None
    if not isinstance(changes, dict):
        raise click.ClickException(f"{file} holds no JSON object, as config/app_settings.json does")
    _merge_settings(changes)
    click.echo(f"Merged {file}.")


@settings_.command("reference")
def print_reference() -> None:
    """Every key, with type, default and meaning, as Markdown."""
    click.echo(settings_reference.reference(), nl=False)


def _read_value(path: str, value: str) -> Any:
    """JSON's value, or the text as it was written: also where a text is wanted and it would pass for a number."""
    try:
        read = json.loads(value)
    except ValueError:
        return value
    number = isinstance(read, int | float) and not isinstance(read, bool)
    infinite = isinstance(read, float) and not math.isfinite(read)  # too large for Python, and no JSON
    return value if infinite or (number and settings_reference.takes_text(path)) else read


def _merge_settings(changes: dict[str, Any]) -> None:
    _, couch = connect()
    prepare(couch)
    settings_document.change(couch.main, changes)


# ---- messages


@main.command()
@click.argument("to")
@click.argument("message", type=Words())
@click.option(
    "--wait", type=click.IntRange(min=0), default=60, show_default=True, help="Seconds to follow it; 0: not at all."
)
def send(to: str, message: str, wait: int) -> None:
    """Send MESSAGE to the number TO, and show what becomes of it."""
    if not message:
        raise click.ClickException("MESSAGE is empty; write the text to send")
    _, couch = connect()
    if not send_and_follow(couch, to, message, wait) and wait:
        sys.exit(1)


# ---- the house


@main.command()
def doctor() -> None:
    """Check everything, and say what to do for each part that is not well."""
    from api.health import spool  # noqa: PLC0415  # only this command looks at the API's disk
    from api.spool import Spool  # noqa: PLC0415
    from mjumbe.doctor import examine  # noqa: PLC0415

    config = Config.load(os.environ)
    log.configure()
    failed, names = 0, [database.name for database in Couch(config.couch_url).databases]
    for check in chain(examine(config), inspect([("spool", partial(spool, Spool(config.data), names))])):
        mark = click.style("  ok", fg="green") if check.ok else click.style("FAIL", fg="red")
        click.echo(f"{mark}  {check.name}: {check.says}")
        failed += not check.ok
    if failed:
        click.echo(f"Failed: {failed}. docs/troubleshooting.md says more about each.")
        sys.exit(1)


@main.command("migrate")
@click.option("--to", required=True, envvar="MJUMBE_MIGRATE_TO", help="As COUCH_URL; also read from MJUMBE_MIGRATE_TO.")
def migrate_(to: str) -> None:
    """Copy everything into another CouchDB, for instance from the embedded store. Can be started again."""
    from mjumbe.commands_migrate import connect_target, run  # noqa: PLC0415

    _, couch = connect()
    if not run(couch, connect_target(to)):
        sys.exit(1)


main.add_command(gateways)
main.add_command(contacts)

if __name__ == "__main__":
    main()
