"""`mjumbe contacts`: the people whom messages come from and go to, as CHT's documents of type `person`."""

import click

from mjumbe import states
from mjumbe.commands.base import Words, connect, prepare, read_number
from mjumbe.couch import Couch
from mjumbe.documents import Document, milliseconds
from mjumbe.uuid7 import new_uuid


@click.group()
def contacts() -> None:
    """Who has which phone number."""


@contacts.command("list")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="How many, in the order of their numbers.",
)
def list_contacts(limit: int) -> None:
    """Everybody with a phone number."""
    _, couch = connect()
    for row in couch.main.view("mjumbe-contacts", "by_phone", include_docs=True, limit=limit):
        if row.doc:
            _show(row.doc)


@contacts.command("add")
@click.argument("phone")
@click.argument("name", type=Words())
def add_contact(phone: str, name: str) -> None:
    """Keep that PHONE is NAME's."""
    if not name.strip():
        raise click.ClickException("NAME is empty; write whose number it is")
    _, couch = connect()
    prepare(couch)
    number = read_number(couch, phone)
    found = _with_number(couch, number)
    if found:
        raise click.ClickException(f"{number} is {found[0].get('name')}'s ({found[0]['_id']})")
    doc = {"_id": new_uuid(), "type": "person", "name": name, "phone": number}
    couch.main.put({**doc, "reported_date": milliseconds(states.now())})
    _show(doc)


@contacts.command("find")
@click.argument("phone")
def find_contact(phone: str) -> None:
    """Whose number PHONE is."""
    _, couch = connect()
    number = read_number(couch, phone)
    found = _with_number(couch, number)
    if not found:
        raise click.ClickException(f"nobody has the number {number}; mjumbe contacts add {number} NAME adds them")
    for doc in found:
        _show(doc)


def _with_number(couch: Couch, number: str) -> list[Document]:
    rows = couch.main.view("mjumbe-contacts", "by_phone", key=number, include_docs=True)
    return [row.doc for row in rows if row.doc]


def _show(doc: Document) -> None:
    click.echo(f"{doc['phone']}  {doc.get('name') or '-'}  {doc['_id']}")
