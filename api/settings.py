"""The app settings: read and changed by admins, as CHT's tools do it."""

from typing import Any

import structlog
from flask import Blueprint, jsonify, request
from flask.typing import ResponseReturnValue
from pydantic import BaseModel, ConfigDict, Field

from api.bodies import json_object
from api.context import admit
from api.errors import ApiError, BadRequestError
from api.openapi import Error, describe
from mjumbe import settings_document
from mjumbe.settings import Problem, SettingsError
from mjumbe.settings_document import DOCUMENT_ID, values

SETTINGS_BYTES = 8 * 1024 * 1024  # CHT's settings hold all forms and can be megabytes
DEEPEST = 100  # levels: what is much deeper can be stored, but not copied, so that it could not be changed again
# CHT takes any text in the query for a yes; its own tool cht-conf writes `replace=1`.
OFF = ("", "false", "0", "no")
CHT_CONF = "/medic/_design/medic/_rewrite"  # cht-conf writes `medic`, whatever the database is called

log = structlog.get_logger()
blueprint = Blueprint("settings", __name__)


class AppSettings(BaseModel):
    """The app settings; docs/settings.md lists the keys that mjumbe reads. CHT's others are kept as they are."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [{"sms": {"outgoing_service": "africas-talking", "africas_talking": {"username": "sandbox"}}}]
        },
    )


class WrappedSettings(BaseModel):
    """The app settings as cht-conf reads them."""

    settings: AppSettings


class Greeting(BaseModel):
    """Here is what takes settings."""

    ok: bool = True


class SettingsChange(BaseModel):
    """How the given settings change those that are there; `overwrite` wins."""

    overwrite: bool = Field(default=False, description="What is given becomes all there is.")
    replace: bool = Field(default=False, description="Each top-level key that is given takes the old one's place.")


class SettingsChanged(BaseModel):
    """The settings are stored."""

    success: bool = True
    updated: bool = Field(description="Whether they differ from what was there.")


class SettingsProblem(BaseModel):
    """One wrong setting."""

    path: str
    expected: str
    value: Any = Field(default=None, description="What was given; left out for what may be a secret.")


class SettingsRefused(Error):
    """Nothing was changed: the old settings stay."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "error": "bad_request",
                    "reason": "Nothing was changed: sms.duplicate_limit is 50; expected a whole number from 1 to 20.",
                    "field": "sms.duplicate_limit",
                    "expected": "a whole number from 1 to 20",
                    "problems": [
                        {"path": "sms.duplicate_limit", "expected": "a whole number from 1 to 20", "value": 50}
                    ],
                }
            ]
        }
    )
    problems: list[SettingsProblem]


@blueprint.get("/api/v1/settings")
@describe("The app settings", tag="settings", security="user", answers={200: AppSettings})
def show() -> ResponseReturnValue:
    """The settings as the document has them."""
    here, _ = admit()
    return jsonify(values(here.couch.main.get(DOCUMENT_ID)))


@blueprint.get("/medic/")
@describe("Greet cht-conf, which asks here first", tag="settings", security="user", answers={200: Greeting})
def greet() -> ResponseReturnValue:
    """By a user's rights cht-conf tells its own what is wrong with the password."""
    admit()
    return {"ok": True}


@blueprint.get(f"{CHT_CONF}/app_settings/medic")
@describe("The app settings, for cht-conf", tag="settings", security="user", answers={200: WrappedSettings})
def show_wrapped() -> ResponseReturnValue:
    """What `cht backup-app-settings` keeps."""
    here, _ = admit()
    return jsonify(settings=values(here.couch.main.get(DOCUMENT_ID)))


@blueprint.put("/api/v1/settings")
@blueprint.put(f"{CHT_CONF}/update_settings/medic")  # cht upload-app-settings
@describe(
    "Change the app settings",
    "By default objects are merged key by key; lists and plain values are replaced. In force at once, in other "
    "processes after two seconds; no restart.",
    tag="settings",
    security="user",
    body=AppSettings,
    query=SettingsChange,
    answers={200: SettingsChanged, 400: SettingsRefused},
)
def change() -> ResponseReturnValue:
    """CHT's merge, `overwrite=true` and `replace=true`."""
    here, user = admit()
    given = json_object(request, SETTINGS_BYTES)
    if _is_deeper(given, DEEPEST):
        raise BadRequestError("body", f"objects and lists within each other at most {DEEPEST} deep")
    overwrite, replace = (request.args.get(name, "").lower() not in OFF for name in ("overwrite", "replace"))
    try:
        updated = settings_document.change(here.couch.main, given, overwrite=overwrite, replace=replace)
    except SettingsError as error:
        raise _refused(error.problems) from None
    here.settings.refresh()
    if updated:
        log.info("settings changed", by=user.name, keys=sorted(given), overwrite=overwrite, replace=replace)
    return {"success": True, "updated": updated}


def _is_deeper(value: object, levels: int) -> bool:
    """Whether objects and lists stand within each other more than `levels` deep."""
    layer = [value]
    for _ in range(levels + 1):
        inner: list[object] = []
        for each in layer:
            if isinstance(each, dict | list):
                inner += each.values() if isinstance(each, dict) else each
        layer = inner
    return bool(layer)


def _refused(problems: list[Problem]) -> ApiError:
    listed = [
        {"path": problem.path, "expected": problem.expected}
        | ({"value": problem.value} if problem.value is not None else {})
        for problem in problems
    ]
    reason = f"Nothing was changed: {'; '.join(map(str, problems))}."
    return ApiError(400, reason, field=problems[0].path, expected=problems[0].expected, problems=listed)
