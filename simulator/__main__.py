"""`python -m simulator`: an Africa's Talking, a TextBee, a Viber and a RapidPro on this machine."""

from __future__ import annotations

import argparse
import errno
import socket
import sys
from decimal import Decimal, InvalidOperation

from simulator.config import SimulatorConfig
from simulator.control import BadField
from simulator.server import serve

MOST_PORT = 65_535


def main(arguments: list[str] | None = None) -> int:
    """Serve until stopped. Returns 0, or 1 with the reason on stderr when the simulator cannot start."""
    config = _config(arguments)
    try:
        serve(config)
    except OSError as error:
        wrong_host = isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL
        advice = f"choose another {'--host' if wrong_host else '--port'}"
        where = f"{config.host}:{config.port}"
        print(f"simulator: cannot listen on {where}: {error.strerror}; {advice}", file=sys.stderr)  # noqa: T201
        return 1
    except BadField as error:
        print(f"simulator: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _config(arguments: list[str] | None) -> SimulatorConfig:
    defaults = SimulatorConfig()
    parser = argparse.ArgumentParser("mjumbe simulator", description=__doc__)
    add = parser.add_argument
    add("--host", default=defaults.host)
    add("--port", type=_port, default=defaults.port, help="0 picks a free one")
    add("--username", default=defaults.username)
    add("--key", action="append", dest="keys", default=[], help="an accepted apiKey; may be repeated")
    add("--short-code", default=defaults.short_code)
    add("--sender", action="append", dest="senders", default=[], help="a further sender that `from` may name")
    for kind in ("incoming", "reports", "opt-out", "subscription", "textbee", "viber", "rapidpro"):
        add(f"--{kind}-url", metavar="URL", help=f"where to post {kind} callbacks; with ?key= where that proves them")
    add("--textbee-secret", default=defaults.textbee_secret, help="what TextBee's webhooks are signed with")
    add("--viber-token", default=defaults.viber_token, help="what Viber's webhooks are signed with")
    add("--rapidpro-key", default=defaults.rapidpro_key, help="what RapidPro shows with what it posts")
    add("--latency-ms", type=int, default=defaults.latency_ms)
    add("--report-delay-ms", type=int, default=defaults.report_delay_ms)
    add("--late-report-ms", type=int, default=defaults.late_report_ms)
    add("--balance", type=_money, default=defaults.balance, help="in KES")
    add("--record-size", type=int, default=defaults.record_size, help="requests, messages and callbacks remembered")
    values = vars(parser.parse_args(arguments))
    values["keys"] = tuple(values["keys"])
    values["senders"] = (*defaults.senders, *values["senders"])
    return SimulatorConfig(**values)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) <= MOST_PORT):
        raise argparse.ArgumentTypeError(f"expected a port, 0 to {MOST_PORT}, got {text}")
    return int(text)


def _money(text: str) -> Decimal:
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite():
        raise argparse.ArgumentTypeError(f"expected an amount such as 1785.50, got {text!r}")
    return amount


if __name__ == "__main__":
    sys.exit(main())
