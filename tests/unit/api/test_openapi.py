"""The API's description: complete, and whole in itself."""

import json
import re
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from api.errors import CODES
from api.openapi import OPERATIONS, build


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        inner = {found for one in value.values() for found in references(one)}
        return inner | ({value["$ref"]} if isinstance(value.get("$ref"), str) else set())
    if isinstance(value, list):
        return {found for one in value for found in references(one)}
    return set()


def test_every_view_is_described(app: Flask) -> None:
    rules = [rule for rule in app.url_map.iter_rules() if not rule.endpoint.endswith(".static")]
    assert [rule.rule for rule in rules if app.view_functions[rule.endpoint] not in OPERATIONS] == []
    paths = build(app)["paths"]
    assert {re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule) for rule in rules} == set(paths)


def test_each_operation_says_what_it_needs(app: Flask) -> None:
    spec = build(app)
    assert json.loads(json.dumps(spec)) == spec
    assert references(spec) == {f"#/components/schemas/{name}" for name in spec["components"]["schemas"]}
    for path, methods in spec["paths"].items():
        for method, operation in methods.items():
            assert operation["summary"] and operation["tags"], (path, method)
            assert any(status.startswith("2") for status in operation["responses"])
            named = {one["name"] for one in operation.get("parameters", ()) if one["in"] == "path"}
            assert named == set(re.findall(r"{(\w+)}", path))
            for requirement in operation.get("security", ()):
                assert set(requirement) <= set(spec["components"]["securitySchemes"])


def test_examples_are_what_they_are_examples_of(app: Flask) -> None:
    described = [
        model
        for operation in OPERATIONS.values()
        for model in (operation.body, operation.form, *operation.answers.values())
        if isinstance(model, type)
    ]
    examples = [(model, one) for model in described for one in model.model_json_schema().get("examples", ())]
    assert len(examples) > 3
    for model, example in examples:
        model.model_validate(example)


def test_security(app: Flask) -> None:
    paths = build(app)["paths"]
    assert paths["/api/v1/sms/africastalking/incoming-messages"]["post"]["security"] == [{"callback_key": []}]
    assert paths["/api/v1/settings"]["put"]["security"] == [{"basic": []}, {"cookie": []}]
    assert "security" not in paths["/healthz"]["get"]
    assert {"401", "403", "503"} <= set(paths["/api/v1/messages"]["post"]["responses"])


def test_no_field_that_may_be_left_out_has_null_for_a_default(app: Flask) -> None:
    """Typed clients, openapi-typescript's for one, demand what has a default."""
    assert '"default": null' not in json.dumps(build(app))
    assert build(app)["components"]["schemas"]["NewMessage"]["required"] == ["message", "to"]


def test_aliases_are_what_callers_write(app: Flask) -> None:
    spec = build(app)
    query = {one["name"] for one in spec["paths"]["/api/v1/messages"]["get"]["parameters"]}
    assert query == {"phone", "state", "from", "to", "limit", "bookmark"}
    assert "from" in spec["components"]["schemas"]["Message"]["properties"]
    assert "medic-gateway" in spec["components"]["schemas"]["GatewayGreeting"]["properties"]


def test_the_page_is_made_without_couchdb(client: FlaskClient) -> None:
    page = client.get("/api/docs")
    assert page.status_code == 200
    assert "POST" in page.text and "/api/sms" in page.text
    assert "the credential <code>africastalking.com:incoming</code>" in page.text and "`" not in page.text


@pytest.mark.parametrize(
    ("method", "path", "statuses"),
    [
        ("post", "/api/v1/messages", {"202", "400", "401", "403", "409", "413", "415", "429", "503"}),
        ("post", "/api/v1/messages/{message_uuid}/settle", {"200", "400", "404", "409", "415"}),
        ("post", "/api/v1/messages/{message_uuid}/cancel", {"200", "404", "409"}),
        ("post", "/api/v1/gateways/{name}/test", {"200", "400", "404", "415"}),
        ("post", "/api/v1/sms/africastalking/incoming-messages", {"200", "400", "403", "413", "429", "503"}),
    ],
)
def test_what_callers_must_expect_is_said(app: Flask, method: str, path: str, statuses: set[str]) -> None:
    assert statuses <= set(build(app)["paths"][path][method]["responses"])


def test_every_documented_error_has_a_word(app: Flask) -> None:
    operations = [operation for path in build(app)["paths"].values() for operation in path.values()]
    answers = [answer for operation in operations for answer in operation["responses"].items()]
    statuses = {int(status) for status, answer in answers if "#/components/schemas/Error" in references(answer)}
    assert 409 in statuses
    assert statuses <= set(CODES)
