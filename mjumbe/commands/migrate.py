"""`mjumbe migrate` on the terminal: a progress bar for each database, then what became of the documents."""

from itertools import chain

import click
from rich.progress import Progress, TaskID

from mjumbe.couch import Couch, CouchError
from mjumbe.migrate import Copied, migrate

SHOWN = 20  # troubles of a database


def connect_target(url: str) -> Couch:
    """The CouchDB that --to names. Raises ClickException for one that cannot be, or does not let us in."""
    try:
        couch = Couch(url)
        couch.request("GET", "/_all_dbs")  # for server admins
    except (ValueError, CouchError) as error:
        # It takes whatever it is given for COUCH_URL's, which names another CouchDB here.
        raise click.ClickException(str(error).replace("COUCH_URL", "--to")) from None
    return couch


def run(source: Couch, target: Couch) -> bool:
    """Copy `source` into `target`; whether every document is there now. Raises as `migrate` does."""
    with Progress() as progress:
        bars: dict[str, TaskID] = {}

        def tell(name: str, done: int, total: int) -> None:
            if name not in bars:
                bars[name] = progress.add_task(name)
            progress.update(bars[name], completed=done, total=total)

        copied = migrate(source, target, tell)
    for database in copied:
        _report(database)
    if any(database.conflicts or database.refused for database in copied):
        return False
    click.echo(
        f"Everything is in {target.server_url}/{target.name}. Start mjumbe with COUCH_URL set to it and the same vault "
        "key; the users of CouchDB (roles sms, gateway) are to be made there again."
    )
    return True


def _report(database: Copied) -> None:
    click.echo(f"{database.database}: {database.written} copied, {database.same} were there already")
    conflicts = (f"{doc_id} is there with another content, and was left alone" for doc_id in database.conflicts)
    refused = (f"{doc_id} was refused: {reason}" for doc_id, reason in database.refused.items())
    troubles = list(chain(conflicts, refused))
    for trouble in troubles[:SHOWN]:
        click.echo(f"{database.database}: {trouble}")
    if len(troubles) > SHOWN:
        click.echo(f"{database.database}: and {len(troubles) - SHOWN} more")
