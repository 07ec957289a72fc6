"""Code that was fetched, kept on the node by content: what several jobs of a project have in common comes once.

<home>/code/<project id>/<first two digits>/<digest>      a content
<home>/code/<project id>/manifests/<digest>               a manifest, as JSON

Only the node's own user can open it; jobs get copies.
"""

import json
import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path

from agent.layout import safe_name
from trellis.bundles.manifest import Manifest
from trellis.wire import pack, unpack

PIECE_BYTES = 1 << 20
_NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


class CodeCache:
    """At most about `limit_bytes`; what was used longest ago goes first. For one thread."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder = folder
        self._limit = limit_bytes
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self.held_bytes = 0

    def open(self) -> None:
        """Find out what an earlier daemon left. Raises OSError."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        found = []
        for folder, _, names in os.walk(self._folder):
            for name in names:
                path = os.path.join(folder, name)
                if name.startswith(".new"):  # it was being written when the power failed
                    os.unlink(path)
                    continue
                status = os.lstat(path)
                found.append((status.st_mtime, os.path.relpath(path, self._folder), status.st_size))
        for _, key, size in sorted(found):
            self._note(key, size)

    def find_manifest(self, project_id: str, digest: str) -> Manifest | None:
        """The manifest of that digest, if it is here and is that."""
        key = _manifest_key(project_id, digest)
        if key not in self._sizes:
            return None
        try:
            manifest = unpack(Manifest, json.loads((self._folder / key).read_bytes()))
            manifest.check()
        except (OSError, ValueError):
            self._forget(key)
            return None
        self._use(key)
        return manifest if manifest.digest == digest else None

    def keep_manifest(self, project_id: str, manifest: Manifest) -> None:
        """Keep a manifest that was checked. Raises OSError."""
        self._write(_manifest_key(project_id, manifest.digest), [json.dumps(pack(manifest)).encode()])

    def lacks(self, project_id: str, digests: Iterable[str]) -> list[str]:
        """Those of `digests` that are not here."""
        return [digest for digest in digests if _blob_key(project_id, digest) not in self._sizes]

    def keep(self, project_id: str, digest: str, pieces: Iterable[bytes]) -> None:
        """Keep a content. Raises OSError, and what taking `pieces` raises; then nothing is kept."""
        self._write(_blob_key(project_id, digest), pieces)

    def read(self, project_id: str, digest: str) -> Iterator[bytes]:
        """A content, in pieces. Raises OSError. Whoever takes it looks whether it is what its digest says."""
        key = _blob_key(project_id, digest)
        self._use(key)
        fd = os.open(self._folder / key, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            while piece := os.read(fd, PIECE_BYTES):
                yield piece
        finally:
            os.close(fd)

    def discard(self, project_id: str, digest: str) -> None:
        """Forget a content that is not what its digest says."""
        self._forget(_blob_key(project_id, digest))

    def trim(self) -> None:
        """Make it fit again."""
        while self.held_bytes > self._limit and self._sizes:
            self._forget(next(iter(self._sizes)))

    def _write(self, key: str, pieces: Iterable[bytes]) -> None:
        path = self._folder / key
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = path.parent / f".new-{os.getpid()}"
        size = 0
        fd = os.open(fresh, _NEW, 0o600)
        try:
            for piece in pieces:
                view = memoryview(piece)
                size += len(view)
                while view:
                    view = view[os.write(fd, view) :]
            os.rename(fresh, path)
        except BaseException:
            os.unlink(fresh)
            raise
        finally:
            os.close(fd)
        self._forget_size(key)
        self._note(key, size)

    def _use(self, key: str) -> None:
        self._sizes.move_to_end(key)
        os.utime(self._folder / key)

    def _note(self, key: str, size: int) -> None:
        self._sizes[key] = size
        self.held_bytes += size

    def _forget_size(self, key: str) -> None:
        self.held_bytes -= self._sizes.pop(key, 0)

    def _forget(self, key: str) -> None:
        self._forget_size(key)
        (self._folder / key).unlink(missing_ok=True)


def _manifest_key(project_id: str, digest: str) -> str:
    return f"{safe_name(project_id)}/manifests/{safe_name(digest)}"


def _blob_key(project_id: str, digest: str) -> str:
    return f"{safe_name(project_id)}/{digest[:2]}/{safe_name(digest)}"
