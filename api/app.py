"""create_app(): the one place that wires the API together."""

import atexit
import os
import time

import structlog
from flask import Flask, Response, g
from flask.globals import request_ctx
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.routing import PathConverter

from api import (
    callbacks,
    cht_gateway,
    credentials,
    decisions,
    errors,
    gateways,
    health,
    messages,
    monitoring,
    openapi,
    opt_outs,
    settings,
    sms_service,
    subscriptions,
)
from api.auth import Users
from api.context import EXTENSION, Context, context
from api.copies import Copies
from api.deliveries import Deliveries
from api.headers import SECURITY_HEADERS, TLS_HEADERS
from api.intake import Intake
from api.limiter import FailureLimit
from api.metrics import Metrics
from api.preparation import Preparation
from api.spool import Spool
from mjumbe.cached_vault import CachedVault
from mjumbe.config import Config
from mjumbe.couch import Couch
from mjumbe.credentials import VaultKeys
from mjumbe.live_settings import LiveSettings
from mjumbe.polling_phones import PollingPhones
from mjumbe.setup import Indexes

BLUEPRINTS = (
    callbacks.blueprint,
    cht_gateway.blueprint,
    credentials.blueprint,
    settings.blueprint,
    messages.blueprint,
    decisions.blueprint,
    sms_service.blueprint,
    subscriptions.blueprint,
    opt_outs.blueprint,
    gateways.blueprint,
    health.blueprint,
    monitoring.blueprint,
    openapi.blueprint,
)
# Seconds that a start waits for a new CouchDB to be made ready; with CouchDB away it does not wait.
PREPARATION_WAIT = 10.0
QUICK_SECONDS = 2.0  # a callback may wait so long twice, for its key and to be stored: services give up after 5 s
LOGIN_SECONDS = 15.0  # CouchDB takes a third of a second over a password, and many at once take turns
LARGEST_BODY = 8 * 1024 * 1024  # where a view sets no limit of its own

log = structlog.get_logger()


class IdConverter(PathConverter):
    """An id that may have slashes within: one at its end belongs to the URL, where it counts as little as in others."""

    def to_python(self, value: str) -> str:
        """The id in a path."""
        return value.removesuffix("/")


def create_app(config: Config | None = None, couch: Couch | None = None) -> Flask:
    """The API as a WSGI app, with its threads started: call it after a fork, not before.

    Without arguments, as `flask` and WSGI servers call it, the environment configures it. CouchDB may be away. Raises
    ConfigError, ValueError (COUCH_URL) and CredentialError (the vault's key).
    """
    config = config or Config.load(os.environ)
    couch = couch or Couch(config.couch_url)
    here = _wire(config, couch)
    app = Flask("api", static_folder=None)
    app.extensions[EXTENSION] = here
    app.config["MAX_CONTENT_LENGTH"] = LARGEST_BODY
    app.json.compact = True  # type: ignore[attr-defined]
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.url_map.strict_slashes = False
    app.url_map.converters["id"] = IdConverter
    app.url_map.merge_slashes = False  # a redirect is an answer that no service follows
    errors.register(app)
    for blueprint in BLUEPRINTS:
        app.register_blueprint(blueprint)
    app.before_request(_started)
    app.after_request(_finished)
    if config.trusted_proxies:
        # Each proxy adds to X-Forwarded-For; X-Forwarded-Proto has one value, whichever of them wrote it.
        forwarded = {"x_for": config.trusted_proxies, "x_proto": 1, "x_host": 0}
        app.wsgi_app = ProxyFix(app.wsgi_app, **forwarded)  # type: ignore[method-assign]
    here.preparation.start(PREPARATION_WAIT)
    return app


def _wire(config: Config, couch: Couch) -> Context:
    # What a callback waits for must be quick, also when CouchDB hangs: then the spool takes over.
    quick = couch.impatient(QUICK_SECONDS)
    keys = VaultKeys.load(config.vault_key, config.data)
    copies = Copies(config.data, couch.name, keys)
    live = LiveSettings(quick.main, changed=copies.keep_settings)
    vault = CachedVault(quick, keys, changed=copies.keep_credential)
    copies.recall(vault, live)
    metrics = Metrics()
    spool = Spool(config.data)
    intake = Intake(metrics, spool, (quick.main, quick.callbacks))
    atexit.register(intake.close)
    return Context(
        couch=couch,
        quick=quick,
        indexes=Indexes(quick),
        vault=vault,
        settings=live,
        intake=intake,
        spool=spool,
        users=Users(couch.impatient(LOGIN_SECONDS), FailureLimit()),
        wrong_keys=FailureLimit(),
        deliveries=Deliveries(),
        phones=PollingPhones(couch),
        metrics=metrics,
        preparation=Preparation(couch, live, vault),
    )


def _started() -> None:
    g.started = time.perf_counter()


def _finished(response: Response) -> Response:
    """Security headers, counters, and the one log line of a request: without the query, where keys are."""
    asked = request_ctx.request  # the proxy would look for it at each use
    response.headers.extend(SECURITY_HEADERS)
    if asked.is_secure:
        response.headers.extend(TLS_HEADERS)
    seconds = time.perf_counter() - g.get("started", time.perf_counter())
    method, route = (asked.method, asked.url_rule.rule) if asked.url_rule else ("any", "none")
    context().metrics.request(method, route, response.status_code, seconds)
    log.info(
        "request",
        method=asked.method,
        path=asked.path,
        status=response.status_code,
        ms=round(seconds * 1000, 1),
        address=asked.remote_addr,
    )
    return response
