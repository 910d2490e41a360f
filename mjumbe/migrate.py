"""Copies mjumbe's four databases into another CouchDB: from the embedded store to a real one, for instance.

Documents go without their history, and their ids stay, so a copy that was cut short goes on where it was. What is there
already is never written over.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from mjumbe import health, setup, states
from mjumbe.conflicts import settle
from mjumbe.couch import ConflictError, Couch, Database
from mjumbe.documents import Document
from mjumbe.health import SILENT_SECONDS
from mjumbe.status import CHECKPOINT_ID, LEADER_ID

AT_ONCE = 500
READ_ALL = "0"  # the sequence before all changes


class MigrationError(ValueError):
    """The databases cannot be copied now; the message says what to do."""


@dataclass(slots=True)
class Copied:
    """What became of one database's documents."""

    database: str
    written: int = 0
    same: int = 0  # that were there already
    conflicts: list[str] = field(default_factory=list)  # ids of those that are there with another content
    refused: dict[str, str] = field(default_factory=dict)  # why the target did not take a document, by id


Progress = Callable[[str, int, int], None]
"""Told after each batch: the database's name, how many documents are done, how many there are."""


def migrate(source: Couch, target: Couch, tell: Progress = lambda name, done, total: None) -> list[Copied]:
    """Copy everything that is in `source` into `target`, whose databases are made where they are missing.

    Raises MigrationError while a sentinel leads on either side, and when there is nothing to copy from;
    UnavailableError.
    """
    if (source.server_url, source.name) == (target.server_url, target.name):
        raise MigrationError(f"{target.server_url}/{target.name} is where the documents are; name another CouchDB")
    missing = [database.name for database in source.databases if not health.exists(database)]
    if missing:
        raise MigrationError(f"{source.server_url} has no database {', '.join(missing)}; is COUCH_URL right?")
    _demand_rest(source)
    for database in target.databases:
        database.create()
    _demand_rest(target)
    copied = [_copy(*pair, tell) for pair in zip(source.databases, target.databases, strict=True)]
    _hand_over(source, target)
    setup.prepare(target)
    return copied


def _demand_rest(couch: Couch) -> None:
    """A sentinel at work on either side would send what the other one sends, too."""
    status = health.leader(couch)
    age = health.heartbeat_age(status, states.now()) if status and not status.released else None
    if age is not None and age < SILENT_SECONDS:
        raise MigrationError(
            f"a sentinel is at work on {couch.server_url}/{couch.name}; stop it and the API, then start this again"
        )


def _copy(source: Database, target: Database, tell: Progress) -> Copied:
    copied = Copied(source.name)
    # What `setup.prepare` makes there, and the lease of a sentinel that is not.
    made_anew = {LEADER_ID, *(f"_design/{design.name}" for design in setup.read_designs())}
    total = int(source.info()["doc_count"])
    done = 0
    for docs in _batches(source):
        _copy_batch([doc for doc in docs if doc["_id"] not in made_anew], target, copied)
        done += len(docs)
        tell(source.name, done, max(done, total))
    return copied


def _batches(database: Database) -> Iterator[list[Document]]:
    after = ""
    while docs := database.beginning_with("", after, AT_ONCE):
        settle(database, docs)
        yield docs
        after = docs[-1]["_id"]


def _copy_batch(docs: Sequence[Document], target: Database, copied: Copied) -> None:
    wanted = {doc["_id"]: _content(doc) for doc in docs}
    present = target.fetch(wanted)
    for doc_id, doc in present.items():
        if _content(doc) == wanted.pop(doc_id):
            copied.same += 1
        else:
            copied.conflicts.append(doc_id)
    for saved in target.bulk(list(wanted.values())):
        if saved.rev:
            copied.written += 1
        elif saved.conflict:
            copied.conflicts.append(saved.id)
        else:
            copied.refused[saved.id] = f"{saved.error}: {saved.reason}"


def _content(doc: Mapping[str, Any]) -> Document:
    return {name: value for name, value in doc.items() if name not in ("_rev", "_conflicts")}


def _hand_over(source: Couch, target: Couch) -> None:
    """The new sentinel reads all changes once; what the old one did is marked in the documents."""
    checkpoint = source.sentinel.get(CHECKPOINT_ID)
    if checkpoint and target.sentinel.get(CHECKPOINT_ID) is None:
        with suppress(ConflictError):
            target.sentinel.put({**_content(checkpoint), "seq": READ_ALL})
