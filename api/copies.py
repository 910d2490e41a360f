"""Copies of what callbacks are checked and read by, for an API that starts while CouchDB is away.

After a power cut the services post on while CouchDB still starts, or its machine does not. What was last read of the
callbacks' credentials and of the settings is in `<MJUMBE_DATA>/copies`, one file each, sealed under the vault's key.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import structlog

from api.disk import elsewhere
from mjumbe import gateways
from mjumbe.cached_vault import CachedVault
from mjumbe.credentials import CredentialError, VaultKeys
from mjumbe.live_settings import LiveSettings
from mjumbe.private_files import make_private, private_draft

DIRECTORY = "copies"
SETTINGS = "settings"

log = structlog.get_logger()


class Copies:
    """The copies of one database's. Processes may share them: each file is replaced as a whole."""

    def __init__(self, data: Path, database: str, keys: VaultKeys) -> None:
        self._directory = data / DIRECTORY
        self._database = database
        self._keys = keys

    def recall(self, vault: CachedVault, settings: LiveSettings) -> None:
        """Tell both what they knew in an earlier process, until they have read it anew."""
        values = self._read(SETTINGS)
        if values is not None:
            settings.recall(json.loads(values))
        known = {name: self._read(name) for name in gateways.callback_credentials()}
        vault.recall({name: value for name, value in known.items() if value is not None})

    def keep_settings(self, values: Mapping[str, Any]) -> None:
        """Keep settings that are in force now."""
        self._keep(SETTINGS, json.dumps(values))

    def keep_credential(self, credential_id: str, value: str | None) -> None:
        """Keep a credential as it is now, if callbacks are checked by it; None when there is none any more."""
        if credential_id in gateways.callback_credentials():
            self._keep(credential_id, value)

    def _keep(self, name: str, value: str | None) -> None:
        """A copy that cannot be kept is only logged: what it is a copy of is in CouchDB."""
        path = self._path(name)
        try:
            if value is None:
                path.unlink(missing_ok=True)
            elif value != self._read(name):
                token = self._keys.seal(self._sealed_as(name), value)
                elsewhere(lambda: _replace(path, token))
        except OSError as error:
            log.warning("no copy for a start without CouchDB", of=name, reason=f"{path}: {error.strerror}")

    def _read(self, name: str) -> str | None:
        path = self._path(name)
        try:
            return self._keys.open(self._sealed_as(name), path.read_text(encoding="ascii"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, CredentialError):  # damaged, or of another key: made anew when CouchDB is read
            log.warning("a copy for a start without CouchDB cannot be read", of=name, file=str(path))
            return None

    def _path(self, name: str) -> Path:
        return self._directory / quote(self._sealed_as(name), safe="")

    def _sealed_as(self, name: str) -> str:
        return f"{self._database}/{name}"


def _replace(path: Path, token: str) -> None:
    make_private(path.parent)
    with private_draft(path, token.encode()) as draft:
        draft.replace(path)
