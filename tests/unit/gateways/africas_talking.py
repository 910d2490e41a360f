"""Africa's Talking with a key, for the tests of what it sends and what it fetches."""

from typing import Any

from mjumbe import settings
from mjumbe.gateways.africas_talking import AfricasTalking
from mjumbe.gateways.base import Wiring

KEY = "atsk_0123456789abcdef"


def gateway(key: str | None = KEY, **changes: Any) -> AfricasTalking:
    values = {"sms": {"africas_talking": {"username": "mtandao"}}}
    return AfricasTalking(Wiring(settings.parse(settings.merge(values, changes)), lambda _: key))
