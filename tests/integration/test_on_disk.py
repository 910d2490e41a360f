"""What lies on this machine's disk is for the user of the processes only, whatever their umask."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.spool import Spool
from mjumbe.couch import Couch
from tests.integration.conftest import StartApi, StartStore


@pytest.fixture(autouse=True)
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    """The modes of a folder and of all that is in it, by name."""
    return {str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.rglob("*"))}


def test_the_key_file(start_api: StartApi, couch_url: str, couch: Couch, tmp_path: Path) -> None:
    assert start_api(couch_url, MJUMBE_DATA=str(tmp_path / "data"), MJUMBE_VAULT_KEY="").url
    assert modes(tmp_path / "data") == {".": 0o700, "vault.key": 0o600}


def test_the_spool(tmp_path: Path) -> None:
    assert Spool(tmp_path / "data").add("medic", [{"_id": "x"}]) == [True]
    assert modes(tmp_path / "data") == {".": 0o700, "spool.sqlite": 0o600}


def test_the_embedded_store(start_store: StartStore, tmp_path: Path) -> None:
    assert start_store(tmp_path / "data").url
    found = modes(tmp_path / "data")
    assert "databases/_users.sqlite" in found
    assert {mode & 0o077 for mode in found.values()} == {0}
