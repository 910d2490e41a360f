"""The server's configuration, `/_node/_local/_config`: sections of keys with text values, kept in one JSON file."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def _read(path: Path) -> Any:
    """The sections. Raises ValueError for a file that is damaged."""
    try:
        sections = json.loads(path.read_text())
        if not isinstance(sections, dict) or not all(isinstance(section, dict) for section in sections.values()):
            raise ValueError("no object of objects")
    except ValueError as error:
        raise ValueError(
            f"its file {path} is damaged ({error}): put a copy back, or remove it; all then log in again, and what CHT "
            "encrypted with its secret cannot be read any more"
        ) from None
    return sections


class Config:
    """Read at start, written whole at every change: to a new file, synced, then renamed over the old one."""

    def __init__(self, path: Path) -> None:
        """Raises ValueError when the file is damaged."""
        self._path = path
        self._sections: dict[str, dict[str, str]] = _read(path) if path.exists() else {}
        # Cookies signed before a restart stay valid, and what others derived from the secret can still be read:
        # CHT encrypts its credentials with it, and looks for it under its older name.
        secret = self.get("chttpd_auth", "secret") or secrets.token_hex(16)
        changed = False
        for section, key, value in (
            ("couchdb", "uuid", secrets.token_hex(16)),
            ("chttpd_auth", "secret", secret),
            ("couch_httpd_auth", "secret", secret),
        ):
            if self.get(section, key) is None:
                self._sections.setdefault(section, {})[key] = value
                changed = True
        if changed:
            self._save()

    def all(self) -> Mapping[str, Mapping[str, str]]:
        """Every section."""
        return self._sections

    def section(self, name: str) -> Mapping[str, str]:
        """One section; an unknown one is empty."""
        return self._sections.get(name, {})

    def get(self, section: str, key: str) -> str | None:
        """One value."""
        return self.section(section).get(key)

    def number(self, section: str, key: str, default: int) -> int:
        """One value that is a whole number."""
        value = self.get(section, key)
        return int(value) if value is not None and value.isdecimal() else default

    def put(self, section: str, key: str, value: str) -> str:
        """Set a value; returns the old one, or an empty text."""
        old = self.get(section, key) or ""
        self._sections.setdefault(section, {})[key] = value
        self._save()
        return old

    def delete(self, section: str, key: str) -> str | None:
        """Remove a value; returns it, or None if there was none."""
        old = self._sections.get(section, {}).pop(key, None)
        if old is not None:
            if not self._sections[section]:
                del self._sections[section]
            self._save()
        return old

    def _save(self) -> None:
        new = self._path.with_suffix(".new")
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(self._sections, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
