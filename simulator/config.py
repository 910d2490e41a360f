"""How a simulator is started."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal

DEFAULT_RECORD_SIZE = 200_000


@dataclass(frozen=True)
class SimulatorConfig:
    """What the simulator is told at its start; what can change while it runs is in `control.Control`.

    Keys and URLs are kept out of `repr`, because the URLs carry a callback key.
    """

    host: str = "127.0.0.1"
    port: int = 8080  # 0 picks a free one
    username: str = "sandbox"
    keys: tuple[str, ...] = field(default=(), repr=False)  # none: any key that does not start with "wrong"
    short_code: str = "22000"  # the default receiver of what a phone sends, and a known sender
    senders: tuple[str, ...] = ("AFRICASTKNG",)  # further senders that `from` may name
    incoming_url: str | None = field(default=None, repr=False)
    reports_url: str | None = field(default=None, repr=False)
    opt_out_url: str | None = field(default=None, repr=False)
    subscription_url: str | None = field(default=None, repr=False)
    textbee_url: str | None = field(default=None, repr=False)
    viber_url: str | None = field(default=None, repr=False)
    rapidpro_url: str | None = field(default=None, repr=False)
    textbee_secret: str = field(default="textbee-secret", repr=False)  # signs TextBee's webhooks
    viber_token: str = field(default="viber-token", repr=False)  # signs Viber's
    rapidpro_key: str = field(default="rapidpro-key", repr=False)  # RapidPro shows it
    latency_ms: int = 0  # between accepting a request and answering it
    report_delay_ms: int = 500  # between accepting a message and its delivery report
    late_report_ms: int = 30_000  # the same for the numbers whose report comes late
    balance: Decimal = Decimal("1000000.00")  # KES
    record_size: int = DEFAULT_RECORD_SIZE  # requests, messages and callbacks remembered, of each
    callback_timeout_ms: int = 10_000
    callback_retries_ms: tuple[int, ...] = (500, 1_000, 2_000, 4_000)  # the waits before each further attempt
