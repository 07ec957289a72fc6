"""Headers that every answer carries, unless its view said otherwise."""

from flask import Flask, Response

STRICT = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def install(app: Flask) -> None:
    """Add them to every answer, errors included."""
    app.after_request(_add)


def _add(response: Response) -> Response:
    for name, value in STRICT.items():
        response.headers.setdefault(name, value)
    return response
