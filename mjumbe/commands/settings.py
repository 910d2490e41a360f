"""`mjumbe settings`: what the admin decides about SMS."""

import json
import math
from pathlib import Path
from typing import Any

import click

from mjumbe import settings_document, settings_reference
from mjumbe.commands.base import Words, connect, prepare


@click.group()
def settings() -> None:
    """What the admin decides about SMS: the app settings."""


@settings.command("get")
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


@settings.command("set")
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


@settings.command("load")
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


@settings.command("reference")
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
