"""Bodies that nodes send: values of `trellis.wire`."""

from typing import TypeVar

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
