"""What the views work with, wired together once by `app.create_app`."""

from dataclasses import dataclass
from typing import cast

from flask import current_app

from api.auth import Users
from api.deliveries import Deliveries
from api.intake import Intake
from api.limiter import FailureLimit
from api.metrics import Metrics
from api.preparation import Preparation
from mjumbe.config import Config
from mjumbe.couch import Couch
from mjumbe.credentials import CachedVault
from mjumbe.live_settings import LiveSettings

EXTENSION = "mjumbe"


@dataclass(frozen=True, slots=True)
class Context:
    """One API process."""

    config: Config
    couch: Couch
    vault: CachedVault
    settings: LiveSettings
    intake: Intake
    users: Users
    wrong_keys: FailureLimit
    deliveries: Deliveries
    metrics: Metrics
    preparation: Preparation


def context() -> Context:
    """The context of the app that serves the current request."""
    return cast(Context, current_app.extensions[EXTENSION])
