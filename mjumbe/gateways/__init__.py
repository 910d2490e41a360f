"""The SMS services: one module each, listed here."""

from collections.abc import Callable, Mapping

from mjumbe.gateways import africas_talking
from mjumbe.gateways.base import Callbacks, Gateway, Http
from mjumbe.settings import Settings

PHONE_GATEWAY = "medic-gateway"  # CHT's Android app: it polls /api/sms, nothing calls it

CALLBACKS: Mapping[str, Callbacks] = {callbacks.slug: callbacks for callbacks in (africas_talking.CALLBACKS,)}
"""By the slug in `/api/v1/sms/<slug>/…`."""

OUTGOING_CREDENTIALS: Mapping[str, str] = {africas_talking.NAME: africas_talking.OUTGOING_CREDENTIAL}
"""By service: the credential that sending needs."""


def build(name: str, settings: Settings, credential: Callable[[str], str | None], fence: Callable[[], None]) -> Gateway:
    """The gateway `name` as the settings describe it. Raises KeyError for a service that nothing here sends by."""
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
