"""Files and directories that only the user of this process may read."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def make_private(directory: Path) -> None:
    """Make a directory, and those above it that are missing, for this user alone. One that is there stays as it is."""
    if not directory.parent.is_dir():
        make_private(directory.parent)
    directory.mkdir(mode=0o700, exist_ok=True)


@contextmanager
def private_draft(path: Path, content: bytes) -> Iterator[Path]:
    """A file beside `path`, whole and on disk, to be renamed or linked to it: removed at the end where it was not."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield draft
    finally:
        draft.unlink(missing_ok=True)
