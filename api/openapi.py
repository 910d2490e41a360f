"""The API described: each view says what it takes and answers, OpenAPI 3.1 and a page to read are made from that."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, TypeVar

from flask import Blueprint, Flask, current_app, jsonify, render_template
from flask.typing import ResponseReturnValue
from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema

Security = Literal["user", "callback_key"]
Media = str
View = TypeVar("View", bound=Callable[..., ResponseReturnValue])

REF = "#/components/schemas/{model}"
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"

SECURITY_SCHEMES = {
    "basic": {"type": "http", "scheme": "basic", "description": "Name and password of a CouchDB user."},
    "cookie": {"type": "apiKey", "in": "cookie", "name": "AuthSession", "description": "CouchDB's session cookie."},
    "callback_key": {
        "type": "apiKey",
        "in": "query",
        "name": "key",
        "description": "The service's incoming credential, in the callback URL that is entered in its dashboard.",
    },
}
REQUIREMENTS: Mapping[Security, list[dict[str, list[str]]]] = {
    "user": [{"basic": []}, {"cookie": []}],
    "callback_key": [{"callback_key": []}],
}


class Error(BaseModel):
    """Every answer that is no success."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "error": "bad_request",
                    "reason": "id: expected a value; it is missing or empty",
                    "field": "id",
                    "expected": "a value; it is missing or empty",
                }
            ]
        }
    )
    error: str = Field(description="One word for programs.")
    reason: str = Field(description="A sentence for people.")
    field: str | None = Field(default=None, description="What in the request is missing or wrong.")
    expected: str | None = Field(default=None, description="What should be there.")


@dataclass(frozen=True, slots=True)
class Operation:
    """One call as its view describes it."""

    summary: str
    description: str
    tag: str
    security: Security | None
    body: type[BaseModel] | None
    form: type[BaseModel] | None
    text: str | None  # what a plain-text body holds
    query: type[BaseModel] | None
    answers: Mapping[int, type[BaseModel] | Media]  # a model, or the media type of what is no JSON
    errors: tuple[int, ...] = field(default=())


OPERATIONS: dict[Callable[..., Any], Operation] = {}


def describe(
    summary: str,
    description: str = "",
    *,
    tag: str,
    security: Security | None = None,
    body: type[BaseModel] | None = None,
    form: type[BaseModel] | None = None,
    text: str | None = None,
    query: type[BaseModel] | None = None,
    answers: Mapping[int, type[BaseModel] | Media],
    errors: tuple[int, ...] = (),
) -> Callable[[View], View]:
    """Decorates a view; `errors` are those beside what security and a body bring by themselves."""

    def decorate(view: View) -> View:
        OPERATIONS[view] = Operation(summary, description, tag, security, body, form, text, query, answers, errors)
        return view

    return decorate


def package_version() -> str:
    """This release's version."""
    try:
        return version("mjumbe")
    except PackageNotFoundError:
        return "unknown"


def build(app: Flask) -> dict[str, Any]:
    """The OpenAPI 3.1 document of every described view in `app`."""
    operations = [operation for view in app.view_functions.values() if (operation := OPERATIONS.get(view))]
    paths: dict[str, dict[str, Any]] = {}
    for rule in app.url_map.iter_rules():
        operation = OPERATIONS.get(app.view_functions[rule.endpoint])
        if operation:
            path = re.sub(r"<(?:[^:<>]+:)?([^<>]+)>", r"{\1}", rule.rule)
            for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
                paths.setdefault(path, {})[method.lower()] = _operation(operation, sorted(rule.arguments))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "mjumbe",
            "version": package_version(),
            "description": "SMS in and out over CouchDB, through SMS services and Android phones.",
        },
        "paths": dict(sorted(paths.items())),
        "components": {"schemas": _schemas(operations), "securitySchemes": SECURITY_SCHEMES},
    }


def _schemas(operations: list[Operation]) -> dict[str, Any]:
    models: set[type[BaseModel]] = {Error}
    for operation in operations:
        candidates = (operation.body, operation.form, *operation.answers.values())
        models |= {model for model in candidates if isinstance(model, type)}
    ordered = sorted(models, key=lambda model: model.__name__)
    _, definitions = models_json_schema([(model, "validation") for model in ordered], ref_template=REF)
    schemas: dict[str, Any] = _without_null_defaults(definitions["$defs"])
    return dict(sorted(schemas.items()))


def _without_null_defaults(described: Any) -> Any:
    """`described` without `"default": null`, which says nothing: generators of typed clients take a field with a
    default for one that is always there, and would have every message name its `due`, `uuid` and `premium`."""
    if isinstance(described, dict):
        return {
            key: _without_null_defaults(inner)
            for key, inner in described.items()
            if not (key == "default" and inner is None)
        }
    return [_without_null_defaults(inner) for inner in described] if isinstance(described, list) else described


def _operation(operation: Operation, path_arguments: list[str]) -> dict[str, Any]:
    described: dict[str, Any] = {"summary": operation.summary, "tags": [operation.tag]}
    if operation.description:
        described["description"] = operation.description
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in path_arguments
    ]
    parameters += _query_parameters(operation.query)
    if parameters:
        described["parameters"] = parameters
    content = _request_content(operation)
    if content:
        described["requestBody"] = {"required": True, "content": content}
    if operation.security:
        described["security"] = REQUIREMENTS[operation.security]
    described["responses"] = {
        str(status): _response(status, answer)
        for status, answer in sorted({**dict.fromkeys(_errors(operation), Error), **operation.answers}.items())
    }
    return described


def _errors(operation: Operation) -> set[int]:
    errors = set(operation.errors)
    if operation.security == "user":
        errors |= {401, 403, 429, 503}
    if operation.security == "callback_key":
        errors |= {403, 429, 503}
    if operation.body or operation.form or operation.text:
        errors |= {400, 413}
    return errors


def _request_content(operation: Operation) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if operation.form:
        content[FORM] = {"schema": _reference(operation.form)}
        content["multipart/form-data"] = {"schema": _reference(operation.form)}
        content[JSON] = {"schema": _reference(operation.form)}
    if operation.body:
        content[JSON] = {"schema": _reference(operation.body)}
    if operation.text:
        content["text/plain"] = {"schema": {"type": "string", "description": operation.text}}
    return content


def _query_parameters(query: type[BaseModel] | None) -> list[dict[str, Any]]:
    schema = query.model_json_schema() if query else {}
    return [
        {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", ()),
            "description": inner.get("description", ""),
            "schema": _without_null_defaults({key: inner[key] for key in inner if key not in ("description", "title")}),
        }
        for name, inner in schema.get("properties", {}).items()
    ]


def _response(status: int, answer: type[BaseModel] | Media) -> dict[str, Any]:
    described: dict[str, Any] = {"description": HTTPStatus(status).phrase}
    if isinstance(answer, str):
        described["content"] = {answer: {"schema": {"type": "string"}}}
    else:
        described["content"] = {JSON: {"schema": _reference(answer)}}
    if status in (429, 503) and answer is Error:
        described["headers"] = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}
    return described


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": REF.format(model=model.__name__)}


blueprint = Blueprint(
    "openapi", __name__, template_folder="templates", static_folder="static", static_url_path="/api/static"
)


class OpenApiDocument(BaseModel):
    """An OpenAPI 3.1 document."""

    model_config = ConfigDict(extra="allow")
    openapi: str


@blueprint.get("/api/openapi.json")
@describe("This description, for programs", tag="documentation", answers={200: OpenApiDocument})
def openapi_document() -> ResponseReturnValue:
    """The OpenAPI document."""
    return jsonify(build(current_app))


@blueprint.get("/api/docs")
@describe("This description, for people", tag="documentation", answers={200: "text/html"})
def docs_page() -> ResponseReturnValue:
    """The OpenAPI document as a page."""
    spec = build(current_app)
    tags: dict[str, list[tuple[str, str, dict[str, Any]]]] = {}
    for path, methods in spec["paths"].items():
        for method, operation in methods.items():
            tags.setdefault(operation["tags"][0], []).append((method.upper(), path, operation))
    return render_template("docs.html", spec=spec, tags=dict(sorted(tags.items())))
