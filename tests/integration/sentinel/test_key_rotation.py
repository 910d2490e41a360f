"""The vault's key is replaced while messages come and go, and what happens when the old one is removed too early."""

import os
import subprocess
import sys
from pathlib import Path

from mjumbe.cached_vault import CachedVault
from mjumbe.credentials import CredentialError, VaultKeys
from tests import leaks
from tests.integration.processes import ROOT, VAULT_KEY, Process, eventually
from tests.integration.sentinel.world import INCOMING_KEY, OUTGOING_KEY, SOON, World, number

NEW_KEY = leaks.secret("the passphrase that comes after")
CREDENTIALS = {"africastalking.com:incoming": INCOMING_KEY, "africastalking.com:outgoing": OUTGOING_KEY}


def rotate(world: World) -> "subprocess.CompletedProcess[str]":
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MJUMBE_", "COUCH_"))}
    return subprocess.run(
        [sys.executable, "-m", "mjumbe.cli", "credentials", "rotate"],
        check=False,
        cwd=ROOT,
        env=clean | world.environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def restart(world: World, api: Process, sentinel: Process, keys: str) -> tuple[Process, Process]:
    """The API and the sentinel, one after the other, with these keys; the API at the port that the service knows."""
    world.environment["MJUMBE_VAULT_KEY"] = keys
    api.stop()
    api = world.start_api(api.port)
    sentinel.stop()
    return api, world.start_sentinel()


def both_ways(world: World, words: str) -> None:
    """A callback is taken, and a message is sent and reported."""
    incoming = world.receive(number(), f"{words}, says somebody")
    assert world.doc(incoming)["sms_message"]["message"] == f"{words}, says somebody"
    world.until(world.write(number(), f"{words}, say we"), "delivered")


def opens(world: World, keys: str) -> bool:
    """Whether these keys alone open every credential."""
    vault = CachedVault(world.couch, VaultKeys.load(keys, Path("/nonexistent")))
    try:
        return {name: vault.get(name) for name in CREDENTIALS} == CREDENTIALS
    except CredentialError:
        return False


def test_the_key_is_replaced_while_messages_come_and_go(own_world: World) -> None:
    world = own_world
    api, sentinel = world.api, world.start_sentinel()
    both_ways(world, "under the old key")

    api, sentinel = restart(world, api, sentinel, f"{NEW_KEY},{VAULT_KEY}")
    both_ways(world, "under both, not rotated")
    assert (opens(world, VAULT_KEY), opens(world, NEW_KEY)) == (True, False)

    done = rotate(world)
    assert (done.returncode, done.stdout) == (0, "Encrypted 2 credentials under the first key.\n"), done.stderr
    both_ways(world, "under both, rotated")
    assert (opens(world, VAULT_KEY), opens(world, NEW_KEY)) == (False, True)
    assert rotate(world).stdout == "Nothing to do: no credential is encrypted under another key than the first.\n"

    api, sentinel = restart(world, api, sentinel, NEW_KEY)
    both_ways(world, "under the new key")


def test_a_key_removed_too_early_is_said_and_nothing_is_lost(own_world: World) -> None:
    world = own_world
    world.environment["MJUMBE_VAULT_KEY"] = NEW_KEY
    done = rotate(world)
    assert done.returncode == 1
    assert "africastalking.com:incoming cannot be read with the key in MJUMBE_VAULT_KEY" in done.stderr
    for secret in (NEW_KEY, VAULT_KEY, *CREDENTIALS.values()):
        assert secret not in done.stdout + done.stderr
    assert opens(world, VAULT_KEY)


def test_a_sentinel_without_the_new_key_says_so_once(own_world: World) -> None:
    world = own_world
    world.environment["MJUMBE_VAULT_KEY"] = NEW_KEY
    sentinel = world.start_sentinel()
    held = "for the sentinel, credential africastalking.com:outgoing cannot be read with the key in MJUMBE_VAULT_KEY"
    beats = set()

    def has_looked_again() -> bool:
        status = world.status()
        assert status is not None and (world.held() or "").startswith(held)
        beats.add(status.heartbeat)
        return len(beats) == 3

    eventually(has_looked_again, SOON)
    assert sentinel.log().count("a credential cannot be read") == 1


def test_a_command_makes_no_key_beside_the_one_in_use(own_world: World, tmp_path: Path) -> None:
    """Run in another directory, or by another user: what it stored, neither the API nor the sentinel could read."""
    elsewhere = {"MJUMBE_VAULT_KEY": "", "MJUMBE_DATA": str(tmp_path / "data")}
    code, says = own_world.run("credentials", "set", "africastalking.com:incoming", INCOMING_KEY, **elsewhere)
    assert code == 1
    assert says.startswith(
        f"Error: there is no key file {tmp_path}/data/vault.key; set MJUMBE_DATA or MJUMBE_VAULT_KEY"
    )
    assert not (tmp_path / "data").exists()
    assert opens(own_world, VAULT_KEY)
