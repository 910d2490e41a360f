"""The floor of every request: a Flask app that only answers, under the API's own server with its own settings.

`python -m bench.empty_route` serves on a free port; it needs no CouchDB.
"""

from gevent import monkey

monkey.patch_all()  # as the API's own processes do

import sys
import types

from flask import Flask

from api.server import run
from mjumbe.config import Config


def create_app(_config: Config) -> Flask:
    """One route, which stores nothing and answers as a callback's does."""
    app = Flask("empty")

    @app.post("/empty")
    def empty() -> dict[str, int]:
        return {"saved": 1}

    return app


def main() -> None:
    # The server makes its app by `api.app.create_app`: this one in its place, so that all else is the API's own.
    module = types.ModuleType("api.app")
    module.create_app = create_app  # type: ignore[attr-defined]
    sys.modules["api.app"] = module
    run(Config(couch_url="http://127.0.0.1:1/none"), "127.0.0.1", port=0, workers=1)  # CouchDB is never asked


if __name__ == "__main__":
    main()
