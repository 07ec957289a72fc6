"""Directories of code for tests."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trellis.bundles.manifest import Entry, Manifest
from trellis.bundles.parcels import wrap
from trellis.wire import pack

if TYPE_CHECKING:  # a test of the node alone needs no server
    from tests.support.stack import Answer, Caller


def digest_of(content: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(content).hexdigest()


def an_entry(path: str = "a.py", content: bytes = b"print()", **changes: Any) -> Entry:
    """A file."""
    values = {"path": path, "size_bytes": len(content), "digest": digest_of(content)}
    return Entry(**{**values, **changes})


def a_manifest(files: Mapping[str, bytes] | None = None, *links: Entry) -> Manifest:
    """A directory of these files."""
    entries = [an_entry(path, content) for path, content in (files or {"a.py": b"print()"}).items()]
    return Manifest.of([*entries, *links])


def parcels(*contents: bytes) -> bytes:
    """A body of these contents."""
    return b"".join(b"".join(wrap(digest_of(content), len(content), [content])) for content in contents)


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Make a directory of these files."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def put(caller: "Caller", files: Mapping[str, bytes], **body: Any) -> "Answer":
    """Ask for a directory to be kept."""
    return caller.put("/bundles", {**pack(a_manifest(files)), **body})


def send(caller: "Caller", *contents: bytes, project: str = "") -> "Answer":
    """Send these contents."""
    return caller.call("PUT", "/bundles/blobs", data=parcels(*contents), query_string={"project": project})


def a_bundle(caller: "Caller", files: Mapping[str, bytes]) -> dict[str, Any]:
    """A directory that is kept, as the API answers it."""
    assert send(caller, *files.values()).status == 200
    made: dict[str, Any] = put(caller, files).json["bundle"]
    return made
