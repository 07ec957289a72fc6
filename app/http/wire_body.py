"""Bodies that nodes send: values of `trellis.wire`."""

from typing import Any, TypeVar

from flask import request

from trellis import wire
from trellis.errors import Field, Invalid

T = TypeVar("T")


def body_as(kind: type[T]) -> T:
    """The request's body as a wire value. Raises Invalid that names the first fault."""
    try:
        return wire.unpack(kind, request.get_json())
    except ValueError as error:
        pointer, _, message = str(error).partition(" ")
        raise Invalid(Field(pointer, message)) from error


def described(sent: str, answered: str, status: int = 200) -> dict[str, Any]:
    """For `blp.doc`: what a node sends and is answered, by the names of `trellis.wire` (see docs/reference/wire.json)."""
    shape = {"type": "object", "description": sent}
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": shape}}},
        "responses": {str(status): {"description": answered}},
    }
