"""Making CouchDB ready in the background, so that the API starts, and answers 503, while CouchDB is away."""

import threading

import structlog

from mjumbe import gateways, setup
from mjumbe.cached_vault import CachedVault
from mjumbe.couch import Couch, CouchError, UnavailableError
from mjumbe.live_settings import LiveSettings

PAUSES = (0.5, 1.0, 2.0, 5.0)  # seconds between attempts; the last repeats

log = structlog.get_logger()


class Preparation:
    """Runs `setup.prepare` until it has succeeded, and reads what callbacks need while CouchDB is away later."""

    def __init__(self, couch: Couch, settings: LiveSettings, vault: CachedVault) -> None:
        self._couch = couch
        self._settings = settings
        self._vault = vault
        self._tried = threading.Event()
        self._done = threading.Event()
        self.problem: str | None = None  # why the last attempt failed

    def start(self, wait: float) -> None:
        """Begin, and wait until the first attempt is over, `wait` seconds at most: a new index can take hours."""
        threading.Thread(target=self._run, name="preparation", daemon=True).start()
        self._tried.wait(wait)

    @property
    def done(self) -> bool:
        return self._done.is_set()

    def _run(self) -> None:
        attempts = 0
        while not self._attempt():
            self._tried.set()
            self._done.wait(PAUSES[min(attempts, len(PAUSES) - 1)])
            attempts += 1
        self._done.set()
        self._tried.set()

    def _attempt(self) -> bool:
        try:
            setup.prepare(self._couch)
            self._settings.refresh()
            self._vault.remember(gateways.callback_credentials())
        except (UnavailableError, CouchError) as error:
            if str(error) != self.problem:
                log.warning("CouchDB is not ready, trying again", reason=str(error))
            self.problem = str(error)
            return False
        log.info("CouchDB is ready", database=self._couch.name)
        self.problem = None
        return True
