"""`python -m embedded`: the embedded store by itself."""

from __future__ import annotations

import argparse
import os
import sqlite3
import sys
from pathlib import Path

from embedded.engine.store import DataInUse
from embedded.errors import disk_trouble
from embedded.server import CannotListen, serve

MOST_PORT = 65_535


def main(arguments: list[str] | None = None) -> int:
    """Read the command line and serve. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="mjumbe embedded", description="The part of CouchDB 3 that mjumbe uses.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=5984, help="port to listen on, 0 for any (default: %(default)s)")
    parser.add_argument("--data", type=Path, required=True, help="directory for the databases")
    parser.add_argument(
        "--admin",
        default=os.environ.get("COUCH_ADMIN"),
        help="name:password of the server admin (default: the environment's COUCH_ADMIN, which `ps` does not show)",
    )
    options = parser.parse_args(arguments)
    if not options.admin:
        parser.error("--admin name:password is needed")
    os.umask(0o077)  # what people wrote, and the hashes of passwords, are for the store's own user
    try:
        serve(options.host, options.port, options.data, options.admin)
    except (DataInUse, CannotListen, ValueError, OSError, sqlite3.Error) as error:
        print(f"The embedded store cannot start: {disk_trouble(error) or error}", file=sys.stderr)  # noqa: T201 - its only way to say so
        return 1
    return 0


def _port(text: str) -> int:
    """A port's number. Raises ArgumentTypeError."""
    if not (text.isascii() and text.isdecimal() and int(text) <= MOST_PORT):
        raise argparse.ArgumentTypeError(f"expected a port, 0 to {MOST_PORT}, got {text}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
