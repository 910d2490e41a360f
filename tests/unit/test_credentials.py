"""The vault: what it stores, CHT's formats (vectors made with openssl), and its keys.

The CHT vectors: key = the secret in UTF-8, repeated and cut to 32 bytes, in hex;
    printf '%s' "$value" | openssl enc -aes-256-cbc -K "$key" -iv 000102030405060708090a0b0c0d0e0f | xxd -p -c 1000
"""

import base64
import json
import os
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from structlog.testing import capture_logs

from mjumbe.credentials import (
    CredentialError,
    RefusedCredentialError,
    VaultKeys,
    decrypt_cht,
)
from tests.unit.vault import FIRST_KEY, INCOMING, MemoryCouch, keys, vault_of

DOC_ID = "credential:africastalking.com%3Aincoming"
OTHER_KEY = base64.urlsafe_b64encode(b"2" * 32).decode()
IV = "000102030405060708090a0b0c0d0e0f"


@pytest.fixture
def couch() -> MemoryCouch:
    return MemoryCouch()


# ---- entries


def test_what_is_set_is_read_and_only_the_holder_of_the_key_reads_it(couch: MemoryCouch) -> None:
    vault = vault_of(couch)
    assert vault.get(INCOMING) is None
    assert vault.set(INCOMING, " yui–opm \n") == "yui–opm"
    assert vault.get(INCOMING) == "yui–opm"
    doc = couch.vault.docs[DOC_ID]
    assert doc.keys() == {"_id", "_rev", "secret", "updated"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", doc["updated"])
    assert "yui" not in json.dumps(doc)
    assert json.loads(Fernet(FIRST_KEY).decrypt(doc["secret"])) == {"id": INCOMING, "value": "yui–opm"}
    vault.set(INCOMING, "second")
    assert vault.get(INCOMING) == "second"
    assert vault.names() == [INCOMING]


@pytest.mark.parametrize("credential_id", ["rapidpro", "a/b c", "ufunguo é", "100%", "a%2Fb"])
def test_any_id(couch: MemoryCouch, credential_id: str) -> None:
    vault = vault_of(couch)
    vault.set(credential_id, "value")
    assert vault.get(credential_id) == "value"
    assert vault.names() == [credential_id]
    assert vault.check() == []
    assert vault.delete(credential_id) is True
    assert vault.get(credential_id) is None


def test_ids_that_look_encoded_are_ids_of_their_own(couch: MemoryCouch) -> None:
    vault = vault_of(couch)
    vault.set("a/b", "1")
    assert vault.get("a%2Fb") is None
    assert vault.delete("a%2Fb") is False
    vault.set("a%2Fb", "2")
    assert (vault.get("a/b"), vault.get("a%2Fb")) == ("1", "2")


REFUSED = [
    (INCOMING, "", f"the value of credential {INCOMING} has 0 characters; expected 1 to 4096"),
    (INCOMING, " \n", f"the value of credential {INCOMING} has 0 characters; expected 1 to 4096"),
    (INCOMING, "hunter2" * 700, f"the value of credential {INCOMING} has 4900 characters; expected 1 to 4096"),
    (" ", "x", "a credential's id has 0 characters; expected 1 to 256"),
    ("x" * 257, "x", "a credential's id has 257 characters; expected 1 to 256"),
    ("..", "x", "a credential's id is '..'; expected printable characters, not . or .."),
    ("a\nb", "x", "a credential's id is 'a\\nb'; expected printable characters, not . or .."),
]


@pytest.mark.parametrize(("credential_id", "value", "message"), REFUSED)
def test_what_cannot_be_a_credential_is_refused(
    couch: MemoryCouch, credential_id: str, value: str, message: str
) -> None:
    with pytest.raises(RefusedCredentialError) as caught:
        vault_of(couch).set(credential_id, value)
    assert str(caught.value) == message
    assert not couch.vault.docs


def test_an_entry_is_good_for_its_own_id_only(couch: MemoryCouch) -> None:
    vault = vault_of(couch)
    vault.set("weak", "known to many")
    couch.vault.docs[DOC_ID] = {**couch.vault.docs["credential:weak"], "_id": DOC_ID}
    with pytest.raises(CredentialError, match=f"credential {INCOMING} holds the entry of weak: set it again"):
        vault.get(INCOMING)


def test_a_write_that_meets_another_is_repeated(couch: MemoryCouch) -> None:
    vault = vault_of(couch)
    vault.set(INCOMING, "first")
    couch.vault.interfere = 3
    vault.set(INCOMING, "second")
    assert vault.get(INCOMING) == "second"
    couch.vault.interfere = 1000
    with pytest.raises(CredentialError, match=f"credential {INCOMING} is being changed by others"):
        vault.set(INCOMING, "third")


# ---- CHT's entries

CHT_VECTORS = [
    ("c0uchdb-secret", "at-key-12345", "2b007634cba563bb94b51752104b33d0"),
    (
        "c0uchdb-secret",
        "ufunguo wa siri – é",
        "fb72efa1a75fae694201142ca1a8ea49ecad553a129eb94fdb20277a515030ce",
    ),
    (
        "c0uchdb-secret",
        "0123456789abcdef",
        "6b8d74c0d09f2f357eee350df9153f17b0eb98e3dcbc405fa1cc3d4472253d33",
    ),
    ("0123456789abcdef0123456789abcdefXYZ", "at-key-12345", "11cfdca168bb11a8f316284ee6e30214"),
    ("kàtambula", "at-key-12345", "bb06e2fde082d60c876a5bafd9c1e367"),
    (
        "kàtambula",
        "0123456789abcdef",
        "705cd6a7bf6373d5f3fa98f9d4476a78634c46fe90ac3a01e8ac2b96d35efda2",
    ),
]


@pytest.mark.parametrize(("secret", "value", "ciphertext"), CHT_VECTORS)
def test_cht_ciphertexts(secret: str, value: str, ciphertext: str) -> None:
    assert decrypt_cht(f"{IV}:{ciphertext}", secret) == value
    assert decrypt_cht(f"{IV}:{ciphertext}", "another secret") is None


@pytest.mark.parametrize("password", ["", ":", "x:y", IV, f"{IV}:", f"{IV}:00", f"00:{'00' * 16}", f"{IV}:{IV}:{IV}"])
def test_what_is_no_cht_ciphertext(password: str) -> None:
    assert decrypt_cht(password, "c0uchdb-secret") is None


CHT_PASSWORD = f"{IV}:{CHT_VECTORS[0][2]}"


@pytest.mark.parametrize("section", ["couch_httpd_auth", "chttpd_auth"])
@pytest.mark.parametrize("doc_id", [DOC_ID, f"credential:{INCOMING}"])
def test_cht_4_entries_are_read_replaced_and_deleted(couch: MemoryCouch, doc_id: str, section: str) -> None:
    couch.configuration["couch_httpd_auth", "secret"] = "left from before the upgrade"
    couch.configuration[section, "secret"] = "c0uchdb-secret"
    couch.vault.docs[doc_id] = {"_id": doc_id, "_rev": "1-a", "password": CHT_PASSWORD}
    vault = vault_of(couch)
    assert vault.get(INCOMING) == "at-key-12345"
    assert vault.names() == [INCOMING]
    assert vault.check() == []
    vault.set(INCOMING, "new")
    assert vault.get(INCOMING) == "new"
    assert couch.vault.docs.keys() == {doc_id}
    assert "password" not in couch.vault.docs[doc_id]
    assert vault.delete(INCOMING) is True
    assert not couch.vault.docs


def test_ours_comes_before_chts_and_both_become_one(couch: MemoryCouch) -> None:
    couch.configuration["couch_httpd_auth", "secret"] = "c0uchdb-secret"
    raw_id = f"credential:{INCOMING}"
    vault = vault_of(couch)
    vault.set(INCOMING, "ours")
    couch.vault.docs[raw_id] = {"_id": raw_id, "_rev": "1-a", "password": CHT_PASSWORD}
    assert vault.get(INCOMING) == "ours"
    vault.set(INCOMING, "newer")
    assert couch.vault.docs.keys() == {DOC_ID}


def test_a_cht_4_entry_under_a_lost_secret_is_named(couch: MemoryCouch) -> None:
    couch.vault.docs[DOC_ID] = {"_id": DOC_ID, "_rev": "1-a", "password": CHT_PASSWORD}
    vault = vault_of(couch)
    sentence = (
        f"credential {INCOMING} was written by CHT and cannot be read with CouchDB's secret "
        "(couch_httpd_auth/secret or chttpd_auth/secret): set the credential again"
    )
    for secret in (None, "another"):
        if secret:
            couch.configuration["chttpd_auth", "secret"] = secret
        with pytest.raises(CredentialError) as caught:
            vault.get(INCOMING)
        assert str(caught.value) == sentence
        assert vault.check() == [sentence]


def test_cht_3_configuration_is_read_last_and_deleted(couch: MemoryCouch) -> None:
    vault = vault_of(couch)
    couch.configuration["medic-credentials", INCOMING] = "from CHT 3"
    assert vault.get(INCOMING) == "from CHT 3"
    vault.set(INCOMING, "ours")
    assert vault.get(INCOMING) == "ours"
    assert vault.delete(INCOMING) is True
    assert vault.get(INCOMING) is None
    assert vault.delete(INCOMING) is False
    couch.configuration["medic-credentials", INCOMING] = "there alone"
    assert vault.delete(INCOMING) is True
    assert vault.get(INCOMING) is None


def test_names_are_those_of_what_holds_a_credential_in_order(couch: MemoryCouch) -> None:
    vault = vault_of(couch)
    couch.vault.docs["credential:empty"] = {"_id": "credential:empty", "_rev": "1-x"}
    couch.vault.docs["credential:of/cht"] = {"_id": "credential:of/cht", "_rev": "1-x", "password": "x"}
    for name in ("z", "b/c", "a", "k"):
        vault.set(name, "1")
    assert vault.names() == ["a", "b/c", "k", "of/cht", "z"]


# ---- keys


@pytest.mark.parametrize("credential_id", ["", ".", "..", "a\0b", "x" * 257])
def test_what_cannot_be_an_id_is_not_asked_for(couch: MemoryCouch, credential_id: str) -> None:
    """CouchDB's configuration is asked by path to delete it there: `..` would be all of it."""
    couch.configuration["medic-credentials", credential_id] = "x"
    assert vault_of(couch).get(credential_id) is None
    assert vault_of(couch).delete(credential_id) is False


def test_rotation(couch: MemoryCouch) -> None:
    old = vault_of(couch, OTHER_KEY)
    old.set("a", "1")
    old.set("b", "2")
    both = vault_of(couch, FIRST_KEY, OTHER_KEY)
    both.set("c", "3")
    assert [both.get(name) for name in "abc"] == ["1", "2", "3"]
    assert both.rotate() == 2
    assert both.rotate() == 0
    new = vault_of(couch, FIRST_KEY)
    assert [new.get(name) for name in "abc"] == ["1", "2", "3"]
    assert new.check() == []


def test_entries_under_a_lost_key_are_named_and_the_others_rotated(couch: MemoryCouch) -> None:
    vault_of(couch, Fernet.generate_key().decode()).set("lost", "hunter2")
    vault_of(couch, OTHER_KEY).set("b", "2")
    vault = vault_of(couch, FIRST_KEY, OTHER_KEY)
    sentence = (
        "credential lost cannot be read with the key in MJUMBE_VAULT_KEY: add the key that it was written with to the "
        "list, or set the credential again"
    )
    assert vault.check() == [sentence]
    with pytest.raises(CredentialError, match="credential lost cannot be read"):
        vault.rotate()
    assert vault_of(couch, FIRST_KEY).get("b") == "2"


ODD_SECRETS: list[Any] = ["gAAAAAgarbage", "ünïcode", "\ud800", 17, ["a"], {"a": 1}, True]


@pytest.mark.parametrize("secret", [*ODD_SECRETS, b"no JSON", b"[]", b"17", b'{"id": "odd"}'])
def test_an_odd_entry_is_named_like_one_under_a_lost_key_and_the_others_go_on(couch: MemoryCouch, secret: Any) -> None:
    """Bytes stand for what the key did encrypt."""
    if isinstance(secret, bytes):
        secret = Fernet(FIRST_KEY).encrypt(secret).decode()
    vault_of(couch, OTHER_KEY).set("b", "2")
    couch.vault.docs["credential:odd"] = {"_id": "credential:odd", "_rev": "1-a", "secret": secret}
    vault = vault_of(couch, FIRST_KEY, OTHER_KEY)
    [sentence] = vault.check()
    assert sentence.startswith("credential odd cannot be read with the key in MJUMBE_VAULT_KEY")
    with pytest.raises(CredentialError, match="credential odd cannot be read"):
        vault.get("odd")
    with pytest.raises(CredentialError, match="credential odd cannot be read"):
        vault.rotate()
    assert vault_of(couch, FIRST_KEY).get("b") == "2"
    assert couch.vault.docs["credential:odd"]["secret"] == secret


def test_a_passphrase_gives_the_same_key_everywhere() -> None:
    passphrase = "kuku wangu hutaga mayai"
    token = keys(passphrase).seal("a", "1")
    assert keys(FIRST_KEY, f" {passphrase} ").open("a", token) == "1"
    with pytest.raises(CredentialError):
        keys(passphrase + "!").open("a", token)


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ("short", "MJUMBE_VAULT_KEY, entry 1 is neither a Fernet key nor a passphrase of at least 16 characters"),
        (f"{FIRST_KEY},short", "MJUMBE_VAULT_KEY, entry 2 is neither"),
        (" , ", "MJUMBE_VAULT_KEY holds no key"),
    ],
)
def test_unusable_keys_are_refused_without_showing_them(listed: str, message: str) -> None:
    with pytest.raises(CredentialError, match=message) as caught:
        keys(listed)
    assert "short" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "vault.key holds no key: put back the key that was there"),
        (bytes(45), "vault.key, entry 1 is neither a Fernet key nor a passphrase"),
    ],
    ids=["empty", "zeros"],
)
def test_a_key_file_of_which_a_broken_disk_left_nothing_is_refused(
    content: bytes, message: str, tmp_path: Path
) -> None:
    """Zeros would make a key that anybody can guess."""
    (tmp_path / "vault.key").write_bytes(content)
    with pytest.raises(CredentialError, match=message):
        VaultKeys.load(None, tmp_path)


def test_keys_do_not_show_in_their_representation(couch: MemoryCouch) -> None:
    assert repr(keys()) == "VaultKeys(source='MJUMBE_VAULT_KEY')"


def test_the_key_file_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "new"
    token = VaultKeys.load(None, folder).seal("a", "1")
    path = folder / "vault.key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert VaultKeys.load(" ", str(folder)).open("a", token) == "1"
    assert [found.name for found in folder.iterdir()] == ["vault.key"]


def test_a_new_key_is_synced_before_it_has_its_name_and_then_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is encrypted under it outlives a power cut that the key must not be lost in."""
    synced: list[tuple[Path, bool]] = []

    def sync(descriptor: int) -> None:
        synced.append((Path(f"/proc/self/fd/{descriptor}").readlink(), (tmp_path / "vault.key").exists()))

    monkeypatch.setattr(os, "fsync", sync)
    VaultKeys.load(None, tmp_path)
    (draft, had_its_name), directory = synced
    assert (draft.parent, had_its_name) == (tmp_path, False)
    assert directory == (tmp_path, True)


def test_a_passphrase_opens_what_it_ever_sealed() -> None:
    """On every machine, in every later version: who changes how a key is made of it loses all credentials."""
    token = (
        "gAAAAABrC7-cJun9-pFtd7OAs1LAppeEBFvY75-l8TE2Oc_l49_o18oiH81gqFGLSkQ3i4h5AV5ZU_0E"
        "V4470yYRoPfPzyGo-JxelssWGJe-P72yQLTxPUU="
    )
    assert keys("the passphrase of a village").open("a", token) == "1"


def test_a_second_line_in_the_key_file_still_decrypts(tmp_path: Path) -> None:
    token = VaultKeys.load(None, tmp_path).seal("a", "1")
    path = tmp_path / "vault.key"
    path.write_text(f"{FIRST_KEY}\n{path.read_text()}\n")
    assert VaultKeys.load(None, tmp_path).open("a", token) == "1"


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
def test_a_key_file_open_to_others_is_closed_with_a_warning(tmp_path: Path, mode: int) -> None:
    VaultKeys.load(None, tmp_path)
    path = tmp_path / "vault.key"
    path.chmod(mode)
    with capture_logs() as logged:
        VaultKeys.load(None, tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry["log_level"] for entry in logged] == ["warning"]
    assert f"could be read by others (mode {mode:04o})" in logged[0]["event"]


@pytest.mark.parametrize("content", [b"", b"short\n", b"\xff\xfe"])
def test_a_damaged_key_file_is_not_replaced(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "vault.key"
    path.write_bytes(content)
    with pytest.raises(CredentialError, match=re.escape(str(path))):
        VaultKeys.load(None, tmp_path)
    assert path.read_bytes() == content


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CredentialError, match=r"file/data/vault\.key cannot be used \(.*\): let this user read it"):
        VaultKeys.load(None, tmp_path / "file" / "data")


def test_a_key_file_that_another_process_made_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = VaultKeys.load(None, tmp_path).seal("a", "1")
    monkeypatch.setattr(Path, "exists", lambda self: False)  # it was not there when this one looked
    assert VaultKeys.load(None, tmp_path).open("a", token) == "1"


def test_processes_that_start_at_once_agree_on_one_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda self: False)  # each believes to be the first
    barrier = threading.Barrier(8)
    loaded: list[VaultKeys] = []

    def start() -> None:
        barrier.wait()
        loaded.append(VaultKeys.load(None, tmp_path))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    token = loaded[0].seal("a", "1")
    assert [key.open("a", token) for key in loaded] == ["1"] * 8
    assert [found.name for found in tmp_path.iterdir()] == ["vault.key"]
