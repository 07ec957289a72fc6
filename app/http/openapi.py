"""The API described (OpenAPI 3.1), and a page to read the description with; no asset comes from another host."""

import re
from importlib.resources import files
from typing import Any

from flask import Response, json, send_from_directory
from flask_smorest import Api

from app.http.problems import STATUS
from app.http.transaction import TransactionalFlask, outside, public
from trellis.errors import NotFound

ASSETS = {"swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png"}
_CONVERTER = re.compile(r"<(?:[^:<>]+:)?([^<>]+)>")
# Swagger UI styles its elements inline; scripts come from our own files alone.
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Trellis API</title>
<link rel="stylesheet" href="/docs/assets/swagger-ui.css"><link rel="icon" href="/docs/assets/favicon-32x32.png">
</head><body><div id="docs"></div>
<script src="/docs/assets/swagger-ui-bundle.js"></script><script src="/docs/start.js"></script></body></html>
"""
_START = """SwaggerUIBundle({url: "/api/v1/openapi.json", dom_id: "#docs", deepLinking: true, validatorUrl: null});
"""
_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code", "trace_id"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "code": {"type": "string", "description": "stable; what programs compare"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "pointer": {"type": "string", "description": "JSON pointer (RFC 6901) into the request"},
                    "message": {"type": "string"},
                },
            },
        },
        "trace_id": {"type": "string", "description": "also in the server's log"},
    },
}
_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "schema": {"type": "string", "maxLength": 200},
    "description": "the same key with the same request has one effect and gets one answer, for a day",
}
_IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "schema": {"type": "string"},
    "description": "the ETag you were given; another version answers 409 stale_version",
}


def install(app: TransactionalFlask, api: Api, prefix: str) -> None:
    """Serve the description and its page. Call once every blueprint is registered."""
    body = json.dumps(describe(app, api))

    def openapi() -> Response:
        """Describe this API."""
        return Response(body, mimetype="application/json", headers={"Cache-Control": "no-cache"})

    def page() -> Response:
        """Show the description."""
        return Response(_PAGE, mimetype="text/html", headers={"Content-Security-Policy": _PAGE_POLICY})

    def start() -> Response:
        """Start the page."""
        return Response(_START, mimetype="text/javascript")

    app.add_url_rule(f"{prefix}/openapi.json", "openapi", outside(public(openapi)))
    app.add_url_rule("/docs", "docs", outside(public(page)))
    app.add_url_rule("/docs/start.js", "docs_start", outside(public(start)))
    app.add_url_rule("/docs/assets/<name>", "docs_asset", outside(public(_asset)))


def describe(app: TransactionalFlask, api: Api) -> dict[str, Any]:
    """The OpenAPI document, completed with what holds for every operation."""
    document: dict[str, Any] = api.spec.to_dict()
    components = document.setdefault("components", {})
    components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT or API key"}}
    components.setdefault("schemas", {})["Problem"] = _PROBLEM
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    components["responses"] = {"Problem": {"description": "What went wrong (RFC 9457)", "content": content}}
    document["security"] = [{"bearer": []}]
    for rule in app.url_map.iter_rules():
        path = document["paths"].get(_CONVERTER.sub(r"{\1}", rule.rule), {})
        for method in (rule.methods or set()) & {name.upper() for name in path}:
            _complete(path[method.lower()], rule.endpoint, method, app.marks_of(rule.endpoint, method))
    return document


def _complete(operation: dict[str, Any], endpoint: str, method: str, marks: frozenset[str]) -> None:
    operation["operationId"] = f"{endpoint.replace('.', '_')}_{method.lower()}"
    refused = {str(status): {"$ref": "#/components/responses/Problem"} for status in sorted(set(STATUS.values()))}
    operation["responses"] = {
        status: answer for status, answer in operation["responses"].items() if str(status)[0] in "23"
    } | refused
    parameters = operation.setdefault("parameters", [])
    if "public" in marks:
        operation["security"] = []
    elif method == "POST":
        parameters.append(_KEY)
    elif method in ("PATCH", "PUT"):
        parameters.append(_IF_MATCH)


def _asset(name: str) -> Response:
    """A file of Swagger UI, from the installed package."""
    if name not in ASSETS:
        raise NotFound("there is no such asset")
    response = send_from_directory(str(files("flask_swagger_ui") / "dist"), name)
    response.headers["Cache-Control"] = "public, max-age=86400"
    return response
