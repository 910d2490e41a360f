"""`mjumbe credentials`: what services and mjumbe prove themselves with."""

import sys

import click

from mjumbe.commands.base import connect, open_vault, prepare
from mjumbe.gateways import credential_names


@click.group()
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
