"""A database from inside, where a test from outside would have to be lucky."""

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from embedded.engine.database import Database
from embedded.engine.writer import Transaction


def written(path: Path) -> int:
    with sqlite3.connect(path) as connection:
        return int(connection.execute("SELECT update_seq FROM counters").fetchone()[0])


def test_a_sequence_holds_that_a_reader_gave_out_before_the_event_loop_heard_of_the_commit(tmp_path: Path) -> None:
    """A feed that began anew for it read the whole database, for each of its calls perhaps."""
    path = tmp_path / "one.sqlite"

    async def run() -> None:
        with ThreadPoolExecutor() as threads:
            database = Database("one", path, threads, threads)
            writing = asyncio.ensure_future(database.write(Transaction.next_seq))
            await asyncio.sleep(0)  # the writer has it now
            while written(path) == 0:
                pass  # the event loop hears of nothing meanwhile
            assert database.counters.update_seq == 0
            assert database.parse_seq(database.seq_text(1)) == 1
            assert database.parse_seq(database.seq_text(2)) == 0, "of a later copy of this file"
            await writing
            await database.close()

    asyncio.run(run())
