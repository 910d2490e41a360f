"""The server's part that fails outside the app, where a test from outside would have to break gunicorn."""

import socket
from typing import Any, cast

from structlog.testing import capture_logs

from api.server import OPTIONS


def test_what_fails_outside_the_app_is_logged_by_its_kind_and_place_alone() -> None:
    """The words of an error repeat what was sent: a message's text, or a key."""
    words = "what was sent"
    ours, client = socket.socketpair()
    with ours, client, capture_logs() as logs:
        try:
            raise ValueError(words)
        except ValueError as error:
            OPTIONS["worker_class"].handle_error(cast(Any, None), None, ours, ("192.0.2.1", 4711), error)
        assert client.recv(100).startswith(b"HTTP/1.1 500 ")
    [said] = logs
    assert (said["kind"], said["address"]) == ("ValueError", "192.0.2.1")
    assert "test_server.py" in said["exception"]
    assert words not in str(said)
