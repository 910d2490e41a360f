"""The vault as a process that lasts has it: remembered, for many readers, and for as long as CouchDB is away."""

import hmac
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from mjumbe.couch import Couch, CouchError, UnavailableError
from mjumbe.credentials import CredentialError, Vault, VaultKeys, value_of

MISMATCH_AGE = 1.0  # seconds: a remembered value this old is read again before a key is called wrong


@dataclass(frozen=True)
class _Known:
    value: str | None = field(repr=False)
    read_at: float


class CachedVault(Vault):
    """A vault that remembers: for `ttl` seconds, and for as long as CouchDB is away. For any number of threads."""

    def __init__(
        self,
        couch: Couch,
        keys: VaultKeys,
        ttl: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
        changed: Callable[[str, str | None], object] = lambda credential_id, value: None,
    ) -> None:
        """`changed` is told of each value that is not the one known before, None where there is none any more."""
        super().__init__(couch, keys)
        self._ttl = ttl
        self._clock = clock
        self._changed = changed
        self._known: dict[str, _Known] = {}
        self._reading = threading.Lock()

    def get(self, credential_id: str) -> str | None:
        """As Vault.get, up to `ttl` seconds old, older while CouchDB is away; raises only for what was never read."""
        return self._get(credential_id, self._ttl, wait=False)

    def remember(self, credential_ids: Iterable[str]) -> None:
        """Read these now, to know those that are there when CouchDB is away before anybody asked for them.

        Raises as Vault does, but not for one that cannot be read.
        """
        for credential_id in credential_ids:
            with suppress(CredentialError):
                if self.get(credential_id) is None:
                    self._known.pop(credential_id, None)

    def recall(self, values: Mapping[str, str]) -> None:
        """Know these values by their ids, from an earlier process, until they are read anew."""
        self._known |= {credential_id: _Known(value, -math.inf) for credential_id, value in values.items()}

    def matches(self, credential_id: str, given: str, made_of: Callable[[str], str] = str) -> bool:
        """Whether `given` is the credential's value, compared in constant time; False when there is none.

        `made_of` makes of the value what is compared in its place: a signature under it. What does not match the
        remembered value is compared with a fresh one, so that a changed key works at once in every process; this reads
        at most once a second, however many wrong keys are tried.
        """
        if _equal(self.get(credential_id), given, made_of):
            return True
        return _equal(self._get(credential_id, MISMATCH_AGE, wait=True), given, made_of)

    def set(self, credential_id: str, value: str) -> str:
        """As Vault.set."""
        with self._reading:
            stored = super().set(credential_id, value)
            self._know(credential_id.strip(), _Known(stored, self._clock()))
        return stored

    def delete(self, credential_id: str) -> bool:
        """As Vault.delete."""
        with self._reading:
            deleted = super().delete(credential_id)
            self._know(credential_id, _Known(None, self._clock()))
        return deleted

    def _get(self, credential_id: str, max_age: float, wait: bool) -> str | None:
        """One thread reads at a time. Meanwhile the others answer from memory, unless they `wait` for the newest."""
        known = self._known.get(credential_id)
        if known and self._clock() - known.read_at <= max_age:
            return known.value
        if not self._reading.acquire(blocking=wait or known is None):
            return known.value if known else None
        try:
            return self._read(credential_id, max_age)
        finally:
            self._reading.release()

    def _read(self, credential_id: str, max_age: float) -> str | None:
        known, now = self._known.get(credential_id), self._clock()
        if known and now - known.read_at <= max_age:  # another thread read while this one waited
            return known.value
        try:
            # With all others that are known: each of them would be a request of its own in a moment.
            found = self.read({credential_id, *self._known})
        except (UnavailableError, CouchError):
            if known is None:
                raise
            # Asked again after max_age, not at every request.
            self._known |= {each: replace(held, read_at=self._clock()) for each, held in self._known.items()}
            return known.value
        for each, value in found.items():
            if not isinstance(value, CredentialError):
                self._know(each, _Known(value, now))
        return value_of(found[credential_id])

    def _know(self, credential_id: str, known: _Known) -> None:
        before = self._known.get(credential_id, _Known(None, -math.inf))
        self._known[credential_id] = known
        if before.value != known.value:
            self._changed(credential_id, known.value)


def _equal(value: str | None, given: str, made_of: Callable[[str], str]) -> bool:
    if value is None:
        return False
    return hmac.compare_digest(made_of(value).encode(), given.encode(errors="surrogatepass"))
