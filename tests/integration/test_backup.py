"""A backup of a running store, made by the very commands of docs/small-server.md, and a store on the copy."""

import re
import shutil
import sqlite3
import subprocess
import threading
from pathlib import Path

import pytest

from mjumbe import setup
from mjumbe.couch import Couch, Database
from mjumbe.status import CHECKPOINT_ID
from tests.integration.conftest import StartStore
from tests.integration.processes import ADMIN, ROOT, Process, eventually

pytestmark = pytest.mark.skipif(shutil.which("sqlite3") is None, reason="needs the command sqlite3, as the page says")


def commands(data: Path, copy: Path) -> str:
    """The page's commands, with these directories for its own."""
    page = (ROOT / "docs" / "small-server.md").read_text()
    (block,) = re.findall(r"^    set -eu\n(?:    .*\n)+", page, re.MULTILINE)
    for name, path in ("data", data), ("copy", copy):
        block, found = re.subn(rf"^    {name}=.*", f"    {name}='{path}'", block, flags=re.MULTILINE)
        assert found == 1
    return block


# Each database is copied after some more has been written behind the copy of the one before.
SLOWLY = """
progress='{progress}'
sqlite3() {{
    command sqlite3 "$@"
    before=$(wc -c <"$progress")
    while [ "$(wc -c <"$progress")" -lt $((before + 3)) ]; do :; done
}}
"""


def medic(store: Process) -> Couch:
    return Couch(f"{store.url.replace('://', f'://{ADMIN[0]}:{ADMIN[1]}@')}/medic")


def place(database: Database) -> str:
    return str(database.info()["update_seq"])


def test_a_copy_that_is_made_while_messages_come_in(start_store: StartStore, tmp_path: Path) -> None:
    couch = medic(start_store(tmp_path / "data" / "couch"))
    setup.prepare(couch)
    written, stop, progress = list[str](), threading.Event(), tmp_path / "progress"

    def go_on() -> None:
        """As the API and the sentinel do: a message comes in, then the checkpoint moves behind it."""
        with progress.open("w", buffering=1) as lines:
            while not stop.is_set():
                doc_id = f"message-{len(written)}"
                couch.main.put({"_id": doc_id, "type": "data_record", "text": "x" * 5_000})
                checkpoint = couch.sentinel.get(CHECKPOINT_ID) or {}
                couch.sentinel.put({**checkpoint, "_id": CHECKPOINT_ID, "seq": place(couch.main)})
                written.append(doc_id)
                lines.write("\n")

    writer = threading.Thread(target=go_on)
    writer.start()
    try:
        eventually(lambda: len(written) > 50, 60)
        before = list(written)
        script = SLOWLY.format(progress=progress) + commands(tmp_path / "data", tmp_path / "copy")
        subprocess.run(["sh", "-c", script], check=True, timeout=60)
    finally:
        stop.set()
        writer.join()

    copied = medic(start_store(tmp_path / "copy" / "couch"))
    assert set(copied.main.fetch(before)) == set(before)
    checkpoint = copied.sentinel.get(CHECKPOINT_ID) or {}
    seq, token = checkpoint["seq"].split("-")
    newest, same_token = place(copied.main).split("-")
    assert (token, int(seq) <= int(newest)) == (same_token, True)
    for file in (tmp_path / "copy" / "couch" / "databases").glob("*.sqlite"):
        assert sqlite3.connect(file).execute("PRAGMA integrity_check").fetchall() == [("ok",)]
