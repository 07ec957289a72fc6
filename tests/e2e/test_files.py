"""Files and logs over real connections, that break."""

import hashlib
import os
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.support.platform import Platform
from tests.support.services import wait_until
from trellis.nouns.artifacts import Description
from trellis.transport import Call, path

SAVES = """
from trellis import runtime
open("w", "w").write("weights")
runtime.save_artifact("w", "w.bin", type="model", metadata={"epoch": 3})
print("saved")
"""


def cut(platform: Platform, where: str, token: str, content: bytes, sent: int) -> None:
    """Announce all of the content, send so much of it, and hang up."""
    address = urlsplit(platform.client.url)
    with socket.create_connection((address.hostname or "", address.port or 80), timeout=10) as sock:
        head = f"PATCH {urlsplit(where).path} HTTP/1.1\r\nHost: {address.netloc}\r\nAuthorization: Bearer {token}\r\n"
        sock.sendall(f"{head}Upload-Offset: 0\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content[:sent])


def test_what_a_job_saved_and_what_was_put_there_is_fetched_again(platform: Platform, tmp_path: Path) -> None:
    client = platform.client
    job = client.jobs.submit(script=SAVES, script_name="a.py", environment={"MY_TOKEN": "saved-by-nobody"})
    assert client.jobs.wait(job, timeout=60).state == "succeeded"
    (kept,) = client.jobs.artifacts(job, type="model")
    assert (kept.name, kept.metadata, kept.replica_id is not None) == ("w.bin", {"epoch": 3}, True)
    assert client.artifacts.download(job, kept, tmp_path / "w").read_text() == "weights"

    content = os.urandom(3_000_000)
    (tmp_path / "big.bin").write_bytes(content)
    began = _begin(client, job.id, content)
    cut(platform, began["url"], str(client._transport._credential.token(lambda *_: {})), content, 1_000_000)
    where = path("jobs", job.id, "artifacts", "uploads", began["id"])
    wait_until(lambda: client._transport.json(Call("GET", where))["received_bytes"] == 1_000_000, 20, "what arrived")
    heard: list[int] = []
    put = client.artifacts.put(job, tmp_path / "big.bin", Description("eval/big.bin"), progress=heard.append)
    assert heard[0] > 1_000_000, "it went on where it broke off"
    assert client.artifacts.download(job, put, tmp_path / "back").read_bytes() == content
    with httpx.stream("GET", put.url, headers={"Authorization": "Bearer wrong"}) as refused:
        assert refused.status_code == 401
    client.artifacts.remove(job, put)
    assert [one.name for one in client.jobs.artifacts(job)] == ["w.bin"]


def _begin(client: Any, job_id: str, content: bytes) -> Any:
    body = {"name": "eval/big.bin", "size_bytes": len(content), "digest": hashlib.sha256(content).hexdigest()}
    return client._transport.json(Call("POST", path("jobs", job_id, "artifacts"), body=body))["upload"]
