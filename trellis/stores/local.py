"""Files below one root folder."""

import hashlib
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from trellis.stores.base import Written

PART_BYTES = 1 << 20
_SEGMENT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")


class LocalStore:
    """A `Store` in a folder. A file appears under its key only when it is whole and on the disk."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def write(self, key: str, parts: Iterable[bytes]) -> Written:
        """Beside its place first, then renamed: a reader never sees half a file."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        digest, size = hashlib.sha256(), 0
        handle, beside = tempfile.mkstemp(dir=path.parent, prefix=".part-")
        try:
            with os.fdopen(handle, "wb") as file:
                for part in parts:
                    file.write(part)
                    digest.update(part)
                    size += len(part)
                file.flush()
                os.fsync(file.fileno())
            Path(beside).replace(path)
        except BaseException:
            with suppress(FileNotFoundError):
                Path(beside).unlink()
            raise
        return Written(size, digest.hexdigest())

    def read(self, key: str) -> Iterator[bytes]:
        """In parts of 1 MiB."""
        with self._path(key).open("rb") as file:
            while part := file.read(PART_BYTES):
                yield part

    def delete(self, key: str) -> None:
        """Remove the file."""
        self._path(key).unlink(missing_ok=True)

    def locate(self, key: str) -> str:
        """The file's path as a URL."""
        return self._path(key).absolute().as_uri()

    def _path(self, key: str) -> Path:
        segments = key.split("/")
        if not all(_SEGMENT.fullmatch(segment) for segment in segments):
            raise ValueError(f"{key!r} is not a safe key")
        return self._root.joinpath(*segments)
