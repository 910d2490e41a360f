"""The `mjumbe` command."""

import sys

if sys.argv[1:2] == ["api"]:
    from gevent import monkey

    monkey.patch_all()  # before anything else is imported: see api/server.py

import os
from functools import partial
from itertools import chain
from typing import NoReturn

import click

from mjumbe import log
from mjumbe.cached_vault import CachedVault
from mjumbe.commands.base import Commands, Words, connect, send_and_follow
from mjumbe.commands.contacts import contacts
from mjumbe.commands.credentials import credentials
from mjumbe.commands.gateways import gateways
from mjumbe.commands.settings import settings
from mjumbe.config import Config, check_authorities
from mjumbe.couch import Couch
from mjumbe.credentials import VaultKeys
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
    from mjumbe.commands.up import run  # noqa: PLC0415  # the other processes need none of it

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
    from mjumbe.commands.doctor import examine  # noqa: PLC0415

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
    from mjumbe.commands.migrate import connect_target, run  # noqa: PLC0415

    _, couch = connect()
    if not run(couch, connect_target(to)):
        sys.exit(1)


for group in (credentials, settings, gateways, contacts):
    main.add_command(group)

if __name__ == "__main__":
    main()
