"""The SMS services: one module each, listed here."""

from collections.abc import Callable, Mapping

from mjumbe.gateways import africas_talking
from mjumbe.gateways.base import Callbacks, Gateway, Http
from mjumbe.settings import ServiceSettings, Settings

PHONE_GATEWAY = "medic-gateway"  # CHT's Android app: it polls /api/sms, nothing calls it

CALLBACKS: Mapping[str, Callbacks] = {callbacks.slug: callbacks for callbacks in (africas_talking.CALLBACKS,)}
"""By the slug in `/api/v1/sms/<slug>/…`."""

OUTGOING_CREDENTIALS: Mapping[str, str] = {africas_talking.NAME: africas_talking.OUTGOING_CREDENTIAL}
"""The services that we call, each with the credential that sending needs."""


def section(name: str, settings: Settings) -> ServiceSettings:
    """The settings of a service that we call."""
    return {africas_talking.NAME: settings.sms.africas_talking}[name]


def missing(name: str, settings: Settings, credential: Callable[[str], str | None]) -> list[str]:
    """What keeps a service from being used, as sentences that say what to do; empty when it is configured."""
    if name == PHONE_GATEWAY:
        return []
    if name not in OUTGOING_CREDENTIALS:
        return [f"mjumbe does not send by {name}; choose another sms.outgoing_service"]
    found = []
    if not section(name, settings).enabled:
        found.append(f"it is switched off in sms.{name.replace('-', '_')}.enabled")
    if name == africas_talking.NAME and not settings.sms.africas_talking.username:
        found.append("sms.africas_talking.username is not set; PUT it in /api/v1/settings")
    if not credential(OUTGOING_CREDENTIALS[name]):
        found.append(f"no API key; PUT it to /api/v1/credentials/{OUTGOING_CREDENTIALS[name]}")
    return found


def build(name: str, settings: Settings, credential: Callable[[str], str | None], fence: Callable[[], None]) -> Gateway:
    """The gateway `name` as the settings describe it. Raises KeyError for a service that nothing here calls."""
    if name == africas_talking.NAME:
        account = settings.sms.africas_talking
        return africas_talking.AfricasTalking(
            username=account.username,
            base_url=account.base_url,
            sender=settings.sms.reply_to or None,
            key=lambda: credential(africas_talking.OUTGOING_CREDENTIAL),
            http=Http(
                connect_timeout=account.connect_timeout,
                read_timeout=account.read_timeout,
                pool=account.concurrency,
                fence=fence,
            ),
        )
    raise KeyError(name)
