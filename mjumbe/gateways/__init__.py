"""The SMS services: one module each, listed here."""

from collections.abc import Callable, Mapping

from mjumbe.gateways import africas_talking, rapidpro, textbee, viber
from mjumbe.gateways.base import Callbacks, Definition
from mjumbe.settings import Settings

PHONE_GATEWAY = "medic-gateway"  # CHT's Android app: it polls /api/sms, nothing calls it

SERVICES: Mapping[str, Definition] = {
    module.DEFINITION.name: module.DEFINITION for module in (africas_talking, textbee, viber, rapidpro)
}
"""The services that we call, by the name that `sms.outgoing_service` has for them."""

NAMES = (*SERVICES, PHONE_GATEWAY)
"""All services, the polling one too."""

CALLBACKS: Mapping[str, Callbacks] = {
    definition.callbacks.slug: definition.callbacks for definition in SERVICES.values() if definition.callbacks
}
"""What they post to us, by the slug in `/api/v1/sms/<slug>/…`."""


def credential_names() -> list[str]:
    """The credentials that the services use, in order."""
    outgoing = {definition.outgoing_credential for definition in SERVICES.values()}
    return sorted(outgoing | callback_credentials())


def callback_credentials() -> set[str]:
    """The credentials that prove what the services post to us."""
    return {callbacks.credential for callbacks in CALLBACKS.values()}


def is_enabled(name: str, settings: Settings) -> bool:
    """Whether the settings let this service be used."""
    return name not in SERVICES or SERVICES[name].section(settings).enabled


def switched_off(name: str) -> str:
    """What is said of a service that is not enabled."""
    return f"it is switched off by sms.{name.replace('-', '_')}.enabled"


def missing(name: str, settings: Settings, credential: Callable[[str], str | None]) -> list[str]:
    """What keeps a service from being used, as sentences that say what to do; empty when it is configured."""
    if name == PHONE_GATEWAY:
        return []
    definition = SERVICES[name]
    found = definition.missing(settings)
    if not is_enabled(name, settings):
        found.append(switched_off(name))
    if not credential(definition.outgoing_credential):
        found.append(f"no API key; PUT it to /api/v1/credentials/{definition.outgoing_credential}")
    return found
