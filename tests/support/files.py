"""Sending files as the client does, through the test client."""

from typing import Any

from tests.support.code import digest_of
from tests.support.stack import Answer, Caller


def begin(caller: Caller, job_id: str, name: str, content: bytes, **more: Any) -> Answer:
    """Announce a file."""
    body = {"name": name, "size_bytes": len(content), "digest": digest_of(content), **more}
    return caller.post(f"/jobs/{job_id}/artifacts", body)


def append(caller: Caller, url: str, offset: int, content: bytes) -> Answer:
    """Send a part of it."""
    path = url.partition("/api/v1")[2] or url
    return caller.call("PATCH", path, data=content, headers={"Upload-Offset": str(offset)})


def put(caller: Caller, job_id: str, name: str, content: bytes, **more: Any) -> dict[str, Any]:
    """Send a file in one part; the artifact."""
    begun = begin(caller, job_id, name, content, **more)
    assert begun.status == 201, begun.text
    sent = append(caller, begun.json["upload"]["url"], 0, content)
    assert sent.status == 200, sent.text
    found: dict[str, Any] = sent.json["artifact"]
    return found
