"""The vault: keys and passwords of the services, encrypted before they reach CouchDB.

An entry is a document of `<db>-vault`, `_id: "credential:<url-encoded id>"`, whose field `secret` is a Fernet token of
`{"id", "value"}`: the id inside keeps one entry's token from being passed off as another's. Entries that CHT wrote are
read too (4.x: field `password` in the same database; 3.x: CouchDB's configuration section `medic-credentials`), as
shared-libs/settings of medic/cht-core writes them. No message of this module ever shows a value.
"""

import base64
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from urllib.parse import quote, unquote

import structlog
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.padding import PKCS7

from mjumbe import states
from mjumbe.couch import ConflictError, Couch
from mjumbe.documents import Document
from mjumbe.edits import apply_edits
from mjumbe.private_files import make_private, private_draft

log = structlog.get_logger(__name__)

PREFIX = "credential:"
MAX_ID, MAX_VALUE = 256, 4096  # characters
CHT3_SECTION = "medic-credentials"
# CouchDB moved its cookie secret, CHT's encryption key, from the first section to the second in 3.2.
CHT4_SECRET_SECTIONS = ("couch_httpd_auth", "chttpd_auth")
WRITE_ROUNDS = 10

KEY_VARIABLE = "MJUMBE_VAULT_KEY"
KEY_FILE = "vault.key"
MIN_PASSPHRASE = 16
# The key must come out the same on every machine that is told the passphrase, before any of them has met the others,
# so there is no place for a random salt. What a salt is for, many passphrases attacked at once, is not our case: an
# attacker needs the database of one installation and then guesses at one passphrase, and scrypt makes each guess dear.
PASSPHRASE_SALT = b"mjumbe vault passphrase v1"

# What no key opens; a ValueError is a token with characters that are not ASCII, a TypeError or KeyError one that holds
# something else than ours.
UNREADABLE = (InvalidToken, ValueError, TypeError, KeyError)


class CredentialError(Exception):
    """A credential or the vault's key cannot be used; the message names it and what to do, never the value."""


class RefusedCredentialError(CredentialError):
    """What was given cannot be a credential: an empty or overlong id or value."""


Found = str | CredentialError | None
"""A credential's value, why it cannot be read, or None when there is none."""


# ---- the key


@dataclass(frozen=True)
class VaultKeys:
    """The keys of the vault: the first encrypts, all decrypt. `source` says where they come from, for messages."""

    source: str
    _fernets: tuple[Fernet, ...] = field(repr=False)

    @staticmethod
    def load(given: str | None, data_dir: str | Path) -> "VaultKeys":
        """The keys `given` in MJUMBE_VAULT_KEY, else those in `<data_dir>/vault.key`, made when it is not there.

        Either is a list, separated by commas (in the file also by lines). Each entry is a Fernet key, or a passphrase
        of at least 16 characters. Raises CredentialError.
        """
        if given and given.strip():
            return VaultKeys(KEY_VARIABLE, _fernets(given, KEY_VARIABLE))
        path = Path(data_dir) / KEY_FILE
        try:
            if not path.exists():
                _make_key_file(path)
            _close_to_others(path)
            content = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            raise CredentialError(
                f"the vault's key file {path} cannot be used ({reason}): let this user read it, and write in its "
                "directory, or put a copy of it back, or set MJUMBE_VAULT_KEY"
            ) from error
        return VaultKeys(str(path), _fernets(content.replace("\n", ","), str(path)))

    @staticmethod
    def find(given: str | None, data_dir: str | Path) -> "VaultKeys":
        """As `load`, but no key file is made: what was encrypted under a second one, nobody else could read."""
        path = Path(data_dir) / KEY_FILE
        if not (given and given.strip()) and not os.access(path, os.F_OK):  # Path.exists raises in a closed directory
            raise CredentialError(
                f"there is no key file {path}; set MJUMBE_DATA or MJUMBE_VAULT_KEY as the API and the sentinel have "
                "them (the first of them to start makes the file)"
            )
        return VaultKeys.load(given, data_dir)

    def seal(self, credential_id: str, value: str) -> str:
        """The token that holds `value`, good for this id only."""
        payload = json.dumps({"id": credential_id, "value": value}).encode()
        return self._fernets[0].encrypt(payload).decode("ascii")

    def open(self, credential_id: str, token: str) -> str:
        """The value in `token`. Raises CredentialError."""
        try:
            payload = json.loads(MultiFernet(self._fernets).decrypt(token))
            holder, value = payload["id"], payload["value"]
        except UNREADABLE:
            raise CredentialError(
                f"credential {credential_id} cannot be read with the key in {self.source}: add the key that it was "
                "written with to the list, or set the credential again"
            ) from None
        if holder != credential_id:
            raise CredentialError(f"credential {credential_id} holds the entry of {holder}: set it again")
        return str(value)

    def renewed(self, token: str) -> str | None:
        """`token` under the first key; None when it is already. Raises one of UNREADABLE when no key opens it."""
        try:
            self._fernets[0].decrypt(token)
        except UNREADABLE:
            return MultiFernet(self._fernets).rotate(token).decode("ascii")
        return None


def _fernets(listed: str, source: str) -> tuple[Fernet, ...]:
    entries = [entry.strip() for entry in listed.split(",") if entry.strip()]
    if not entries:
        raise CredentialError(
            f"{source} holds no key: put back the key that was there, or give a Fernet key or a passphrase and set all "
            "credentials again"
        )
    return tuple(_fernet(entry, f"{source}, entry {number}") for number, entry in enumerate(entries, 1))


def _fernet(entry: str, source: str) -> Fernet:
    try:
        return Fernet(entry)
    except ValueError:  # not 32 bytes in URL-safe base64: a passphrase
        pass
    if len(entry) < MIN_PASSPHRASE or not entry.isprintable():  # a broken disk leaves zeros in a key file
        raise CredentialError(
            f"{source} is neither a Fernet key nor a passphrase of at least {MIN_PASSPHRASE} characters"
        )
    derived = Scrypt(salt=PASSPHRASE_SALT, length=32, n=2**15, r=8, p=1).derive(entry.encode())
    return Fernet(base64.urlsafe_b64encode(derived))


def _make_key_file(path: Path) -> None:
    """Make the key file, complete from the moment it exists: of two processes starting at once, one's is used."""
    make_private(path.parent)
    with private_draft(path, Fernet.generate_key() + b"\n") as draft:
        try:
            os.link(draft, path)
        except FileExistsError:
            return  # the other process was first
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    log.info(f"Made a key for the credentials vault in {path}: keep a copy of it apart from the database's backups.")


def _close_to_others(path: Path) -> None:
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        path.chmod(0o600)
        log.warning(f"The vault's key file {path} could be read by others (mode {mode:04o}); its mode is 0600 now.")


# ---- the entries


class Vault:
    """The credentials of one CouchDB database. Methods raise UnavailableError when CouchDB is away."""

    def __init__(self, couch: Couch, keys: VaultKeys) -> None:
        self._couch = couch
        self._keys = keys

    def get(self, credential_id: str) -> str | None:
        """A credential's value, None when there is none. Raises CredentialError when it cannot be read."""
        return value_of(self.read([credential_id])[credential_id])

    def read(self, credential_ids: Iterable[str]) -> dict[str, Found]:
        """What there is of these credentials, by their ids. They cost CouchDB no more requests than one."""
        found: dict[str, Found] = dict.fromkeys(credential_ids)
        places = {credential_id: _doc_ids(credential_id) for credential_id in found if _is_id(credential_id)}
        docs = self._couch.vault.fetch(chain.from_iterable(places.values()))
        for credential_id, doc_ids in places.items():
            found[credential_id] = self._first([docs[doc_id] for doc_id in doc_ids if doc_id in docs], credential_id)
        missing = [credential_id for credential_id in places if found[credential_id] is None]
        configured = self._couch.config(CHT3_SECTION) if missing else {}
        return found | {credential_id: configured.get(credential_id) or None for credential_id in missing}

    def _first(self, docs: Iterable[Document], credential_id: str) -> Found:
        try:
            values = (self._value(credential_id, doc) for doc in sorted(docs, key=lambda doc: "secret" not in doc))
            return next((value for value in values if value is not None), None)
        except CredentialError as error:
            return error

    def set(self, credential_id: str, value: str) -> str:
        """Store a credential (without the spaces and line ends around it), and return what is stored.

        Raises RefusedCredentialError for an empty or overlong one.
        """
        credential_id, value = _checked(credential_id, value)
        for _ in range(WRITE_ROUNDS):
            doc, *others = [*self._documents(credential_id), {"_id": _doc_id(credential_id)}]
            doc.pop("password", None)  # CHT's field: it would hold the old value
            doc |= {"secret": self._keys.seal(credential_id, value), "updated": states.timestamp(states.now())}
            try:
                self._couch.vault.put(doc)
                self._remove(others)
            except ConflictError:
                continue
            return value
        raise _contended(credential_id)

    def delete(self, credential_id: str) -> bool:
        """Delete a credential wherever it is kept; False when there was none."""
        if not _is_id(credential_id):
            return False
        for _ in range(WRITE_ROUNDS):
            docs = self._documents(credential_id)
            configured = credential_id in self._couch.config(CHT3_SECTION)
            try:
                self._remove(docs)
            except ConflictError:
                continue
            if configured:
                path = f"/_node/_local/_config/{CHT3_SECTION}/{quote(credential_id, safe='')}"
                self._couch.request("DELETE", path)
            return bool(docs) or configured
        raise _contended(credential_id)

    def names(self) -> list[str]:
        """The ids of the vault's entries, sorted."""
        return sorted({_id_of(doc) for doc in self._all()})

    def rotate(self) -> int:
        """Encrypt anew under the first key what is under another; returns how many entries that were.

        Raises CredentialError when there are entries that no key opens, after the others were done.
        """

        def renew(doc: Document) -> bool:
            try:
                token = self._keys.renewed(str(doc["secret"])) if "secret" in doc else None
            except UNREADABLE:
                return False
            if token:
                doc["secret"] = token
            return bool(token)

        docs = {str(doc["_id"]): doc for doc in self._all()}
        outcome = apply_edits(self._couch.vault, dict.fromkeys(docs, renew), known=docs)
        problems = self.check()
        if problems:
            raise CredentialError("; ".join(problems))
        return sum(update.written for update in outcome.values())

    def check(self) -> list[str]:
        """A sentence for each entry that cannot be read."""
        problems = []
        for doc in self._all():
            try:
                self._value(_id_of(doc), doc)
            except CredentialError as error:
                problems.append(str(error))
        return problems

    def _documents(self, credential_id: str) -> list[Document]:
        return list(self._couch.vault.fetch(_doc_ids(credential_id)).values())

    def _all(self) -> list[Document]:
        docs = self._couch.vault.beginning_with(PREFIX)
        return [doc for doc in docs if "secret" in doc or "password" in doc]

    def _remove(self, docs: list[Document]) -> None:
        for doc in docs:
            if "_rev" in doc:
                self._couch.vault.delete(doc["_id"], doc["_rev"])

    def _value(self, credential_id: str, doc: Document) -> str | None:
        if doc.get("secret"):
            return self._keys.open(credential_id, str(doc["secret"]))
        if doc.get("password"):
            return self._cht_value(credential_id, str(doc["password"]))
        return None

    def _cht_value(self, credential_id: str, password: str) -> str:
        for section in CHT4_SECRET_SECTIONS:
            secret = self._couch.config(section).get("secret")
            value = decrypt_cht(password, secret) if secret else None
            if value is not None:
                return value
        raise CredentialError(
            f"credential {credential_id} was written by CHT and cannot be read with CouchDB's secret "
            f"({' or '.join(f'{section}/secret' for section in CHT4_SECRET_SECTIONS)}): set the credential again"
        )


def decrypt_cht(password: str, secret: str) -> str | None:
    """The value in CHT 4's `<iv hex>:<ciphertext hex>`, AES-256-CBC; None when `secret` does not open it.

    The key is `secret` in UTF-8, repeated until it has 32 bytes and cut there.
    """
    repeated = secret.encode() * 32
    try:
        iv, ciphertext = (bytes.fromhex(part) for part in password.split(":"))
        decryptor = Cipher(algorithms.AES(repeated[:32]), modes.CBC(iv)).decryptor()
        padded = decryptor.update(ciphertext) + decryptor.finalize()
        unpadder = PKCS7(128).unpadder()
        return (unpadder.update(padded) + unpadder.finalize()).decode()
    except ValueError:  # not hex, not whole blocks, or the padding or the text of another key
        return None


def _contended(credential_id: str) -> CredentialError:
    return CredentialError(f"credential {credential_id} is being changed by others all the time: try again")


def _doc_id(credential_id: str) -> str:
    return PREFIX + quote(credential_id, safe="")


def _doc_ids(credential_id: str) -> list[str]:
    """Where the credential may be: our document, and CHT's, which writes the id as it is."""
    theirs = [PREFIX + credential_id] if "%" not in credential_id else []  # `a%2Fb` would be our document of `a/b`
    return [_doc_id(credential_id), *theirs]


def value_of(found: Found) -> str | None:
    """The value. Raises the error that is in its place."""
    if isinstance(found, CredentialError):
        raise found
    return found


def _id_of(doc: Document) -> str:
    return unquote(str(doc["_id"]).removeprefix(PREFIX))


def _checked(credential_id: str, value: str) -> tuple[str, str]:
    credential_id, value = credential_id.strip(), value.strip()
    if not 1 <= len(credential_id) <= MAX_ID:
        raise RefusedCredentialError(f"a credential's id has {len(credential_id)} characters; expected 1 to {MAX_ID}")
    if not _is_id(credential_id):
        raise RefusedCredentialError(
            f"a credential's id is {credential_id!r}; expected printable characters, not . or .."
        )
    if not 1 <= len(value) <= MAX_VALUE:
        raise RefusedCredentialError(
            f"the value of credential {credential_id} has {len(value)} characters; expected 1 to {MAX_VALUE}"
        )
    return credential_id, value


def _is_id(credential_id: str) -> bool:
    """Whether there can be such a credential: CouchDB's configuration is asked by path, where dots lead elsewhere."""
    return 1 <= len(credential_id) <= MAX_ID and credential_id.isprintable() and credential_id not in (".", "..")
