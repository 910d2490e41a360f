"""`mjumbe gateways`: how the SMS services stand, and trying one out."""

import sys

import click

from mjumbe.commands.base import connect, open_vault, send_and_follow
from mjumbe.gateways import NAMES, viber
from mjumbe.gateways.base import Check, Wiring
from mjumbe.live_settings import LiveSettings
from mjumbe.overview import TEST_TEXT, GatewayOverview, check, overview
from mjumbe.polling_phones import PollingPhones

FOLLOWED_SECONDS = 60


@click.group(invoke_without_command=True)
@click.pass_context
def gateways(context: click.Context) -> None:
    """How the SMS services stand: their place, what is missing, why one is held, and what they carried today."""
    if context.invoked_subcommand is None:
        config, couch = connect()
        vault = open_vault(config, couch)
        _show(overview(couch, LiveSettings(couch.main).refresh(), vault.get))


def _show(services: list[GatewayOverview]) -> None:
    """A table of all services, narrow enough for any terminal, then what there is to say of each."""
    from rich.console import Console  # noqa: PLC0415  # the long-running processes need none of it
    from rich.table import Table  # noqa: PLC0415

    table = Table("service", "place", "state", "balance")
    for each in services:
        table.add_row(each.name, str(each.place or ""), _state(each), each.status.balance or "")
    Console().print(table)
    for each in services:
        _explain(each)


def _state(service: GatewayOverview) -> str:
    if service.configured:
        return "held" if service.held else "ready"
    return "not configured" if service.enabled else "switched off"


def _explain(service: GatewayOverview) -> None:
    for trouble in service.missing:
        click.echo(f"{service.name}: {trouble}")
    if service.held:
        click.echo(f"{service.name}: held since {service.status.since}: {service.status.reason}")
    for what, at in (("success", service.status.last_success), ("failure", service.status.last_failure)):
        if at:
            click.echo(f"{service.name}: last {what} at {at}")
    if service.today:
        today = ", ".join(f"{count} {state}" for state, count in sorted(service.today.items()))
        click.echo(f"{service.name}: today {today}")
    for what, url in service.callback_urls.items():
        click.echo(f"{service.name}: {what} at {url}")


@gateways.command("test")
@click.argument("name", type=click.Choice(NAMES))
@click.argument("number", required=False)
def test(name: str, number: str | None) -> None:
    """Ask the service NAME whether it takes our credentials; with NUMBER, send one message by it and follow that."""
    config, couch = connect()
    _report(check(name, PollingPhones(couch), LiveSettings(couch.main).refresh(), open_vault(config, couch).get))
    if number and not send_and_follow(couch, number, TEST_TEXT, FOLLOWED_SECONDS, via=name):
        sys.exit(1)


@gateways.command("webhook")
@click.argument("name", type=click.Choice([viber.NAME]))
def webhook(name: str) -> None:
    """Tell Viber where to post the bot's events: to this server, at its public_url."""
    config, couch = connect()
    wiring = Wiring(LiveSettings(couch.main).refresh(), open_vault(config, couch).get)
    _report(viber.set_webhook(wiring))


def _report(check: Check) -> None:
    """What a service said. Ends the process when it is no success."""
    click.echo(check.says)
    if not check.ok:
        sys.exit(1)
