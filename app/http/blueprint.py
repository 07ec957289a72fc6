"""flask-smorest's Blueprint, reading bodies strictly, and with types."""

from collections.abc import Callable
from typing import Any, TypeVar

import flask_smorest
from flask import Request
from marshmallow import Schema
from webargs.flaskparser import FlaskParser
from werkzeug.exceptions import UnsupportedMediaType

from app.http.strict_json import loads

V = TypeVar("V", bound=Callable[..., Any])
AnySchema = Schema | type[Schema]


class StrictParser(FlaskParser):
    """A body is JSON and says so; none at all is an empty object; unknown parameters are refused as fields are."""

    DEFAULT_UNKNOWN_BY_LOCATION = {**FlaskParser.DEFAULT_UNKNOWN_BY_LOCATION, "query": None}  # noqa: RUF012

    def load_json(self, req: Request, schema: Schema) -> Any:
        """The body's value. Raises Invalid, or UnsupportedMediaType for another kind of body."""
        body = req.get_data(cache=True)
        if not body:
            return {}
        if not req.is_json:
            raise UnsupportedMediaType("send a body of Content-Type application/json")
        return loads(body)


class Blueprint(flask_smorest.Blueprint):  # type: ignore[misc]  # the library has no types
    """A domain's endpoints."""

    ARGUMENTS_PARSER = StrictParser()

    def arguments(self, schema: AnySchema, *, location: str = "json", **options: Any) -> Callable[[V], V]:
        """Hand the view what `schema` made of the body (or of the address's parameters: `location="query"`)."""
        made = schema() if isinstance(schema, type) else schema  # once, not at each request
        decorate: Callable[[V], V] = super().arguments(made, location=location, **options)
        return decorate

    def response(self, status_code: int, schema: AnySchema | None = None, **options: Any) -> Callable[[V], V]:
        """Answer with what the view returns, written by `schema`."""
        decorate: Callable[[V], V] = super().response(status_code, schema, **options)
        return decorate

    def doc(self, **description: Any) -> Callable[[V], V]:
        """Describe a view in the OpenAPI document, in that document's own words."""
        decorate: Callable[[V], V] = super().doc(**description)
        return decorate

    def route(self, rule: str, **options: Any) -> Callable[[V], V]:
        """Mount a view at a path below the blueprint's prefix."""
        decorate: Callable[[V], V] = super().route(rule, **options)
        return decorate
