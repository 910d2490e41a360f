"""Messages as programs read them, whatever wrote their documents."""

from typing import Any

import pytest

from api.records import Message, record

MOMENT, WRITTEN = 1767225600000, "2026-01-01T00:00:00.000Z"
REFUSED = {"reason": "denied"}  # as CHT writes details


@pytest.mark.parametrize(
    ("facts", "shown"),
    [
        ({"due": MOMENT}, {"due": WRITTEN}),
        ({"due": WRITTEN}, {"due": WRITTEN}),
        ({"due": "29/12/2026"}, {"due": "29/12/2026"}),
        ({"state_details": REFUSED}, {"state_details": '{"reason": "denied"}'}),
        ({"gateway_ref": 4711, "cost": 0.8}, {"gateway_ref": "4711", "cost": "0.8"}),
        ({"parts": "2"}, {"parts": None}),
        (
            {"state_history": [{"state": "denied", "timestamp": MOMENT, "state_details": REFUSED, "by": "x"}]},
            {
                "history": [
                    {"state": "denied", "timestamp": WRITTEN, "state_details": '{"reason": "denied"}', "by": "x"}
                ]
            },
        ),
        ({"messages": [{"uuid": "u1", "to": 254711000001, "message": 5}]}, {"to": "254711000001", "message": "5"}),
    ],
)
def test_a_record_is_as_it_is_described(facts: dict[str, Any], shown: dict[str, Any]) -> None:
    task = {"messages": [{"uuid": "u1", "to": "+254711000001", "message": "x"}], "state": "denied", **facts}
    found = record({"_id": "d1", "tasks": [task]}, "u1")
    assert found is not None
    Message.model_validate(found, strict=True)
    assert {name: found[name] for name in shown} == shown


def test_an_incoming_one_too() -> None:
    sms = {"message": None, "to": 22000, "gateway_ref": 12, "gateway": "x", "cost": {"KES": 1}}
    found = record({"_id": "d1", "type": "data_record", "from": 254711000001, "sms_message": sms}, "d1")
    assert found is not None
    Message.model_validate(found, strict=True)
    assert (found["from"], found["to"], found["gateway_ref"]) == ("254711000001", "22000", "12")
