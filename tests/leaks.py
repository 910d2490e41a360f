"""Reads every line that the processes of a test run wrote, for the secrets that the tests used.

What tests send by `requests` is noted by itself: logins, keys, the texts and numbers of messages. Helpers that send in
other ways note theirs with `secret`, `text` and `number`. `tests/conftest.py` asks for the leaks when the session ends.
"""

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, urlsplit

import requests

SHORTEST_SECRET = 6
SHORTEST_TEXT = 10  # "HELP" and "delivered" are words of ours too
FEWEST_CHARACTERS = 3  # different ones: what fuzzing makes, as 0000000000, stands in logs by chance
LONGEST_WORD = 11  # fuzzing tries words of ours as keys: "service"
NUMBER_DIGITS = 9  # without country code or leading zero; masked numbers show three
LARGEST_BODY = 4 * 1024 * 1024
SHOWN = 300

KEY_FIELDS = frozenset({"key", "apikey", "password", "secret", "token"})
KEY_HEADERS = frozenset({"apikey", "x-api-key", "x-viber-auth-token", "cookie"})
TEXT_FIELDS = frozenset({"message", "text", "content"})
NUMBER_FIELDS = frozenset({"to", "from", "phone", "phonenumber", "sender", "recipient"})
# Whatever was noted: no line of a log has a number with its plus, or a header that logs in.
NEVER = (re.compile(r"(?<!\w)\+\d{9,15}(?!\w)"), re.compile(r"(?i)\b(?:basic|bearer) [a-z0-9+/_.=-]{12,}"))


class Used:
    """What tests used and no log may show."""

    def __init__(self) -> None:
        self._by_beginning: dict[str, set[str]] = {}

    def secret(self, value: str) -> str:
        """Note a key, a password, a passphrase; returns it."""
        self._note(value, SHORTEST_SECRET)
        return value

    def text(self, value: str) -> str:
        """Note a message's text; returns it."""
        self._note(value, SHORTEST_TEXT)
        return value

    def number(self, value: str) -> str:
        """Note a phone number, in whatever spelling it may be logged; returns it."""
        digits = re.sub(r"\D", "", value)
        if NUMBER_DIGITS <= len(digits) <= 15 and re.fullmatch(r"[+\d\s().-]+", value):
            self._note(digits[-NUMBER_DIGITS:], NUMBER_DIGITS)
        return value

    def _note(self, value: str, shortest: int) -> None:
        value = value.strip()
        if len(value) < shortest or len(set(value)) < FEWEST_CHARACTERS:
            return
        escaped = json.dumps(value)[1:-1]
        for written in {value, escaped, quote(value, errors="replace"), quote_plus(value, errors="replace")}:
            self._by_beginning.setdefault(written[:SHORTEST_SECRET], set()).add(written)

    def found(self, line: str) -> Iterator[str]:
        """What of it stands in the line."""
        for place in range(len(line) - SHORTEST_SECRET + 1):
            for value in self._by_beginning.get(line[place : place + SHORTEST_SECRET], ()):
                if line.startswith(value, place):
                    yield value
        for pattern in NEVER:
            yield from (match[0] for match in pattern.finditer(line))


def leaks_in(path: Path, used: Used) -> list[str]:
    """A line for each line of the file that shows something: file, line, and the line with what it shows hidden."""
    leaks = []
    for place, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        shown = set(used.found(line))
        if shown:
            hidden = line
            for value in sorted(shown, key=len, reverse=True):
                hidden = hidden.replace(value, "<SECRET>")
            leaks.append(f"{path}:{place}: {hidden[:SHOWN]}")
    return leaks


# ---- this run

used = Used()
outputs: dict[Path, None] = {}  # files that processes wrote, in order of their start
secret, text, number = used.secret, used.text, used.number


def leaks() -> list[str]:
    """The leaks in everything that this run's processes wrote."""
    return [leak for path in outputs for leak in leaks_in(path, used)]


@contextmanager
def deaf() -> Iterator[None]:
    """Note nothing meanwhile: what a fuzzer makes up as a text it also makes up as a path, which logs show."""
    global _deaf  # noqa: PLW0603
    _deaf = True
    try:
        yield
    finally:
        _deaf = False


_deaf = False


def listen() -> Callable[[], None]:
    """Note what is sent by `requests` from now on; returns what ends that."""
    send = requests.Session.send

    def noted(self: requests.Session, request: requests.PreparedRequest, **arguments: Any) -> requests.Response:
        if not _deaf:
            note(request)
        return send(self, request, **arguments)

    requests.Session.send = noted  # type: ignore[method-assign]

    def stop() -> None:
        requests.Session.send = send  # type: ignore[method-assign]

    return stop


def note(request: requests.PreparedRequest) -> None:
    """Note the secrets, texts and numbers in a request."""
    parts = urlsplit(request.url or "")
    for name, value in parse_qsl(parts.query):
        _note_field(name, value)
    for name, value in request.headers.items():
        written = value if isinstance(value, str) else value.decode("latin-1")
        if name.lower() == "authorization":
            _note_login(written)
        elif name.lower() in KEY_HEADERS:
            _note_key(written.partition("=")[2] or written if name.lower() == "cookie" else written)
    body = request.body
    if not isinstance(body, str | bytes) or len(body) > LARGEST_BODY:
        return
    content = body.decode("utf-8", "replace") if isinstance(body, bytes) else body
    if "/credentials/" in parts.path and request.method == "PUT":
        _note_key(content)
        return
    try:
        _note_inner("", json.loads(content))
    except (ValueError, RecursionError):
        for name, value in parse_qsl(content):
            _note_field(name, value)


def _note_login(value: str) -> None:
    scheme, _, encoded = value.partition(" ")
    _note_key(encoded)
    if scheme.lower() == "basic":
        try:
            _note_key(base64.b64decode(encoded).decode("utf-8", "replace").partition(":")[2])
        except (binascii.Error, ValueError):
            return


def _note_inner(name: str, value: Any) -> None:
    if isinstance(value, dict):
        for inner_name, inner in value.items():
            _note_inner(inner_name, inner)
    elif isinstance(value, list):
        for inner in value:
            _note_inner(name, inner)
    elif isinstance(value, str | int):
        _note_field(name, str(value))


def _note_field(name: str, value: str) -> None:
    name = name.lower()
    if name in KEY_FIELDS:
        _note_key(value)
    elif name in TEXT_FIELDS:
        text(value)
    elif name in NUMBER_FIELDS:
        for one in value.split(","):
            number(one)


def _note_key(value: str) -> None:
    if len(value) > LONGEST_WORD or not value.isalpha():
        secret(value)
