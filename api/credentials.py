"""The credentials of the services: set, deleted and named by admins, shown to nobody."""

import structlog
from flask import Blueprint, request
from flask.typing import ResponseReturnValue
from pydantic import BaseModel, ConfigDict, Field

from api.bodies import raw_body
from api.context import admit
from api.errors import ApiError, BadRequestError
from api.openapi import describe
from mjumbe.credentials import MAX_VALUE, RefusedCredentialError

VALUE_BYTES = 4 * MAX_VALUE  # UTF-8

log = structlog.get_logger()
blueprint = Blueprint("credentials", __name__)


class Ok(BaseModel):
    """Done."""

    ok: bool = True


class CredentialNames(BaseModel):
    """The ids of all credentials; their values are never shown."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"credentials": ["africastalking.com:incoming", "africastalking.com:outgoing"]}]
        }
    )
    credentials: list[str]


class CredentialSet(BaseModel):
    """A credential that is there."""

    id: str
    set: bool = Field(description="Always true.")


@blueprint.get("/api/v1/credentials")
@describe("The names of the credentials", tag="credentials", security="user", answers={200: CredentialNames})
def names() -> ResponseReturnValue:
    """What is in the vault, without values."""
    here, _ = admit()
    return {"credentials": here.vault.names()}


@blueprint.get("/api/v1/credentials/<id:credential_id>")
@describe(
    "Whether a credential is set", tag="credentials", security="user", answers={200: CredentialSet}, errors=(404,)
)
def show(credential_id: str) -> ResponseReturnValue:
    """Whether it is there; never its value."""
    here, _ = admit()
    if here.vault.get(credential_id) is None:
        raise _unknown(credential_id)
    return {"id": credential_id, "set": True}


@blueprint.put("/api/v1/credentials/<id:credential_id>")
@describe(
    "Set a credential",
    "It is encrypted before it reaches CouchDB, and works at once. Spaces and line ends around it are cut off.",
    tag="credentials",
    security="user",
    text="The credential.",
    answers={200: Ok},
)
def put(credential_id: str) -> ResponseReturnValue:
    """The body, whatever it is called, is the value."""
    here, user = admit()
    try:
        value = raw_body(request, VALUE_BYTES).decode("utf-8")
    except UnicodeDecodeError:
        raise BadRequestError("body", "the credential in UTF-8") from None
    try:
        here.vault.set(credential_id, value)
    except RefusedCredentialError as error:
        expected = f"the credential, 1 to {MAX_VALUE} characters"
        raise ApiError(400, str(error), field="body", expected=expected) from None
    log.info("credential set", credential=credential_id, by=user.name)
    return {"ok": True}


@blueprint.delete("/api/v1/credentials/<id:credential_id>")
@describe("Delete a credential", tag="credentials", security="user", answers={200: Ok}, errors=(404,))
def delete(credential_id: str) -> ResponseReturnValue:
    """Wherever it is kept, CHT's places too."""
    here, user = admit()
    if not here.vault.delete(credential_id):
        raise _unknown(credential_id)
    log.info("credential deleted", credential=credential_id, by=user.name)
    return {"ok": True}


def _unknown(credential_id: str) -> ApiError:
    return ApiError(404, f"There is no credential {credential_id}.")
