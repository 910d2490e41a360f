"""The switches: partial changes, what is refused, and what is never shown."""

from typing import Any

import pytest

from simulator.config import SimulatorConfig
from simulator.control import BadField, Control, changed, mask_url


@pytest.mark.parametrize(
    ("changes", "attribute", "value"),
    [
        ({"latency_ms": 50}, "latency_ms", 50),
        ({"error_rate": 0.25}, "error_rate", 0.25),
        ({"error_rate": 1}, "error_rate", 1),
        ({"error_status": 503}, "error_status", 503),
        ({"down": True}, "down", True),
        ({"answer_body": ""}, "answer_body", ""),
        ({"answer_body": None}, "answer_body", None),
        ({"report_steps": ["Sent", "Success"]}, "report_steps", ("Sent", "Success")),
        ({"reports_url": "https://example.org/r?key=k"}, "reports_url", "https://example.org/r?key=k"),
        ({"reports_url": None}, "reports_url", None),
    ],
)
def test_changed(changes: dict[str, Any], attribute: str, value: Any) -> None:
    assert getattr(changed(Control(), changes), attribute) == value


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"latency_ms": -1}, "latency_ms"),
        ({"latency_ms": "50"}, "latency_ms"),
        ({"latency_ms": True}, "latency_ms"),
        ({"latency_ms": 600_001}, "latency_ms"),
        ({"error_rate": 1.01}, "error_rate"),
        ({"error_rate": None}, "error_rate"),
        ({"error_rate": float("nan")}, "error_rate"),
        ({"error_status": 200}, "error_status"),
        ({"down": 1}, "down"),
        ({"answer_body": {}}, "answer_body"),
        ({"report_steps": "Success"}, "report_steps"),
        ({"report_steps": [""]}, "report_steps"),
        ({"incoming_url": "ftp://example.org/"}, "incoming_url"),
        ({"incoming_url": "http://"}, "incoming_url"),
        ({"incoming_url": "http://example.org/in?key=***"}, "incoming_url"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_changed_refuses(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(BadField) as caught:
        changed(Control(), changes)
    assert caught.value.field == field
    assert caught.value.expected


def test_only_what_is_named_changes() -> None:
    control = changed(Control(latency_ms=7, down=True), {"down": False})
    assert control == Control(latency_ms=7)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://h/in?key=s3cret", "http://h/in?key=***"),
        ("http://h/in?a=1&KEY=s3cret&b=2", "http://h/in?a=1&KEY=***&b=2"),
        ("http://h/in?monkey=1", "http://h/in?monkey=1"),
        ("http://user:s3cret@h/in", "http://user:***@h/in"),
    ],
)
def test_mask_url(url: str, shown: str) -> None:
    assert mask_url(url) == shown


def test_secrets_are_in_no_representation() -> None:
    config = SimulatorConfig(keys=("s3cret",), incoming_url="http://h/?key=s3cret")
    control = Control.at_start(config)
    assert "s3cret" not in repr(config) + repr(control) + str(control.shown())
