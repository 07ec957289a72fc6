"""Files as answers: in ranges (RFC 9110, section 14), never shown in place, named as they were saved."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus

from flask import Response, request
from werkzeug.exceptions import RequestedRangeNotSatisfiable


@dataclass(frozen=True, slots=True)
class Download:
    """What is to be answered: `read` gives the bytes from one offset to another; `digest` never changes with it."""

    name: str
    size_bytes: int
    digest: str
    read: Callable[[int, int], Iterator[bytes]]


def send(download: Download) -> Response:
    """All of it, or the one range that is asked for; nothing where the caller has it.

    Whatever a job saved is untrusted: it is always an attachment of no type that a browser would render, and the
    headers that every answer carries (`nosniff`, a policy that allows nothing) hold for it too.
    """
    etag = f'"{download.digest}"'
    headers = {"ETag": etag, "Accept-Ranges": "bytes", "Content-Security-Policy": "sandbox; default-src 'none'"}
    if request.if_none_match.contains_weak(download.digest):
        return Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
    start, end = _range_of(download, etag)
    status = HTTPStatus.OK if start is None else HTTPStatus.PARTIAL_CONTENT
    start = start or 0
    response = Response(download.read(start, end), status, headers, mimetype="application/octet-stream")
    if status is HTTPStatus.PARTIAL_CONTENT:
        response.headers["Content-Range"] = f"bytes {start}-{end - 1}/{download.size_bytes}"
    response.headers["Content-Length"] = str(end - start)
    response.headers.set("Content-Disposition", "attachment", filename=download.name.rpartition("/")[2])
    return response


def _range_of(download: Download, etag: str) -> tuple[int | None, int]:
    """From which byte to which, exclusive; None and all of it where no range, or several, are asked for."""
    asked = request.range
    fresh = request.headers.get("If-Range", etag) == etag
    if asked is None or asked.units != "bytes" or len(asked.ranges) != 1 or not fresh:
        return None, download.size_bytes
    found = asked.range_for_length(download.size_bytes)
    if found is None:
        raise RequestedRangeNotSatisfiable(download.size_bytes, "bytes", f"the file has {download.size_bytes} bytes")
    return found
