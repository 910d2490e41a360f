"""`python -m api`: the API alone; `mjumbe api` is the same with help."""

from gevent import monkey

monkey.patch_all()  # before anything else is imported: see api/server.py

import argparse
import os
import sys

from api import server
from mjumbe import log
from mjumbe.config import Config
from mjumbe.credentials import CredentialError


def main() -> None:
    """Serve as the arguments and the environment say."""
    parser = argparse.ArgumentParser(prog="python -m api")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    parser.add_argument("--workers", type=int, default=server.WORKERS)
    arguments = parser.parse_args()
    try:
        config = Config.load(os.environ)
        log.configure(config.log)
        server.run(config, arguments.host, arguments.port, arguments.workers)
    except (ValueError, CredentialError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
