"""Errors as problem+json (RFC 9457). Nothing else in the platform knows a status code."""

import logging
import secrets
from http import HTTPStatus
from typing import Any

from flask import Flask, Response, g, has_app_context, json, request
from marshmallow import ValidationError
from sqlalchemy.exc import DataError, IntegrityError
from werkzeug.exceptions import HTTPException

from app.http.schema import to_invalid
from trellis import errors
from trellis.errors import TrellisError

log = logging.getLogger(__name__)

# Found by walking a class's bases, so the nearest ancestor named here decides.
STATUS: dict[type[TrellisError], int] = {
    errors.TooLarge: 413,
    errors.Invalid: 422,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.QuotaExceeded: 403,
    errors.StoreFull: 507,
    errors.RateLimited: 429,
    errors.Unavailable: 503,
    TrellisError: 500,
}


def status_of(error: TrellisError) -> int:
    """The HTTP status of an error."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def as_problem(error: TrellisError, instance: str = "") -> dict[str, Any]:
    """The body that says it: type title status detail instance code errors trace_id."""
    return {
        "type": f"urn:trellis:error:{error.code}",
        "title": error.title,
        "status": status_of(error),
        "detail": error.detail,
        "instance": instance,
        "code": error.code,
        "errors": [{"pointer": field.pointer, "message": field.message} for field in error.fields],
        "trace_id": error.trace_id or trace_id(),
    }


def trace_id() -> str:
    """What ties an answer to the lines of the log about it."""
    if not has_app_context():
        return secrets.token_hex(8)
    if "trace_id" not in g:
        g.trace_id = secrets.token_hex(8)
    return str(g.trace_id)


def respond(error: TrellisError) -> Response:
    """The error as a response, with the headers its status asks for."""
    body = as_problem(error, request.path)
    response = Response(json.dumps(body), status=body["status"], mimetype="application/problem+json")
    if body["status"] == HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = 'Bearer realm="trellis"'
    if retry_after := getattr(error, "retry_after_s", None):
        response.headers["Retry-After"] = str(max(1, round(retry_after)))
    return response


def install(app: Flask) -> None:
    """Every error that leaves a view becomes a problem; one we did not foresee says nothing but its trace id."""
    app.register_error_handler(TrellisError, respond)
    app.register_error_handler(ValidationError, lambda error: respond(to_invalid(error)))
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(IntegrityError, _constraint)
    app.register_error_handler(DataError, lambda _: respond(errors.Invalid(detail="a value can't be stored")))
    app.register_error_handler(Exception, _unforeseen)


def _http(error: HTTPException) -> Response:
    # flask-smorest turns schema faults into a 422 that carries marshmallow's error.
    cause = error.__cause__ or getattr(error, "exc", None)
    if isinstance(cause, ValidationError):
        return respond(to_invalid(cause))
    response = respond(_from_werkzeug(error))
    if error.code not in (None, 400, 401, 403, 404, 413, 422, 429, 503):
        body = json.loads(response.get_data()) | {
            "type": "about:blank", "status": error.code, "title": error.name, "code": "http",
        }  # fmt: skip
        response.set_data(json.dumps(body))
        response.status_code = error.code or 500
    if (valid := getattr(error, "valid_methods", None)) is not None:
        response.headers["Allow"] = ", ".join(valid)
    return response


def _from_werkzeug(error: HTTPException) -> TrellisError:
    detail = error.description or error.name
    if error.code in (400, 422):
        return errors.Invalid(detail=detail)
    if error.code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return errors.TooLarge(detail="the body is larger than this server takes")
    if error.code == HTTPStatus.NOT_FOUND:
        return errors.NotFound("there is nothing at this address; an id in it must be a UUID, as it was answered")
    kinds = {401: errors.Unauthenticated, 403: errors.Forbidden, 429: errors.RateLimited, 503: errors.Unavailable}  # fmt: skip
    return kinds.get(error.code or 500, TrellisError)(detail)


def _constraint(error: IntegrityError) -> Response:
    # A rule that looked first and lost a race ends here: the schema's constraint is the judge.
    log.warning("constraint refused a write: trace %s: %s", trace_id(), type(error.orig).__name__)
    return respond(errors.Conflict("another request changed this at the same moment: read again, then retry"))


def _unforeseen(error: Exception) -> Response:
    log.error("unforeseen error, trace %s", trace_id(), exc_info=error)
    return respond(TrellisError())
