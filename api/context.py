"""What the views work with, wired together once by `app.create_app`."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import cast

from flask import current_app, request

from api.auth import User, Users
from api.deliveries import Deliveries
from api.errors import ApiError, BadRequestError, BusyError
from api.intake import Intake
from api.limiter import FailureLimit
from api.metrics import Metrics
from api.preparation import Preparation
from api.spool import Spool, SpoolError
from mjumbe import phone_numbers
from mjumbe.cached_vault import CachedVault
from mjumbe.couch import Couch
from mjumbe.live_settings import LiveSettings
from mjumbe.polling_phones import PollingPhones
from mjumbe.setup import Indexes

EXTENSION = "mjumbe"
PHONE_NUMBER = "a phone number, as +254711000111"  # what is expected where one is missing or wrong
INSPECTION_WAIT = 2.0  # seconds; while CouchDB hangs those who ask about it must not pile up


@dataclass(frozen=True, slots=True)
class Context:
    """One API process."""

    couch: Couch
    quick: Couch  # for what must be answered within seconds, also when CouchDB hangs
    indexes: Indexes
    vault: CachedVault
    settings: LiveSettings
    intake: Intake
    spool: Spool
    users: Users
    wrong_keys: FailureLimit
    deliveries: Deliveries
    phones: PollingPhones
    metrics: Metrics
    preparation: Preparation
    _inspecting: threading.Lock = field(default_factory=threading.Lock)

    def number(self, field: str, written: object) -> str:
        """`written` in E.164, by the settings' country. Raises BadRequestError, which names `field`."""
        number = phone_numbers.normalise(str(written), self.settings.fresh().default_country_code)
        if number is None:
            raise BadRequestError(field, PHONE_NUMBER)
        return number

    def no_message(self, message_uuid: str) -> ApiError:
        """The answer where a message is not found: what was accepted while CouchDB was away is there, and yet to go to
        it. Who was told that there is none would send it again."""
        with suppress(SpoolError):
            if self.spool.state().waiting.get(self.couch.main.name):
                return BusyError(
                    f"The message {message_uuid} may be among those that are yet to go to CouchDB; try again."
                )
        return ApiError(404, f"There is no message {message_uuid}.")

    @contextmanager
    def inspection(self) -> Iterator[None]:
        """Around what asks CouchDB much and may be asked by anybody: one at a time. Raises BusyError."""
        if not self._inspecting.acquire(timeout=INSPECTION_WAIT):
            raise BusyError("CouchDB is slow to answer, and is being asked already.")
        try:
            yield
        finally:
            self._inspecting.release()


def context() -> Context:
    """The context of the app that serves the current request."""
    return cast(Context, current_app.extensions[EXTENSION])


def admit(*roles: str) -> tuple[Context, User]:
    """The context, and the user who sent the current request: an admin, or one with one of `roles`.

    Raises as Users.require.
    """
    here = context()
    return here, here.users.require(request, roles)
