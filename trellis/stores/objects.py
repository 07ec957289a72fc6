"""Stores of objects: S3 and what speaks its language, and Google's, through fsspec."""

import hashlib
import importlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from trellis.stores.base import PART_BYTES, Stored, Written, segments

# What a part of an upload weighs: S3 takes no smaller ones but the last, and 10,000 at most.
_BLOCK_BYTES = 16 << 20
# The module behind a scheme, the extra that brings it, and what it raises that is no OSError: no network, no credentials.
_BEHIND = {
    "s3": ("s3fs", "S3FileSystem", "s3", (("botocore.exceptions", "BotoCoreError"), ("botocore.exceptions", "ClientError"))),
    "gs": (
        "gcsfs", "GCSFileSystem", "gcs",
        (("gcsfs.retry", "HttpError"), ("google.auth.exceptions", "GoogleAuthError"), ("aiohttp", "ClientError")),
    ),
}  # fmt: skip
SCHEMES = tuple(_BEHIND)


class ObjectStore:
    """A `Store` in a bucket. An upload becomes an object when its last part is in: no reader sees half of one.

    Credentials are those that the process's environment holds the way the provider says (`AWS_ACCESS_KEY_ID`, an
    instance's role, `GOOGLE_APPLICATION_CREDENTIALS`); they are never part of a URL.
    """

    def __init__(self, scheme: str, root: str, **options: Any) -> None:
        """`root` is `bucket` or `bucket/prefix`; `options` go to fsspec's file system as they are.

        Raises: ModuleNotFoundError, naming the extra, where it is not installed.
        """
        module, kind, extra, faults = _BEHIND[scheme]
        try:
            system = getattr(importlib.import_module(module), kind)
            self._faults = tuple(getattr(importlib.import_module(where), name) for where, name in faults)
        except ModuleNotFoundError as error:
            message = f"stores at {scheme}:// need {module}: pip install 'trellis[{extra}]'"
            raise ModuleNotFoundError(message, name=error.name) from error
        self._files = system(use_listings_cache=False, skip_instance_cache=True, **options)
        self._scheme, self._root = scheme, root

    def write(self, key: str, parts: Iterable[bytes]) -> Written:
        """In parts; an upload that fails is given up, and leaves no object."""
        with self._as_os_errors():
            return self._write(key, parts)

    def _write(self, key: str, parts: Iterable[bytes]) -> Written:
        digest, size = hashlib.sha256(), 0
        file = self._files.open(self._path(key), "wb", block_size=_BLOCK_BYTES, autocommit=False)
        try:
            for part in parts:
                file.write(part)
                digest.update(part)
                size += len(part)
            file.close()
            file.commit()
        except BaseException:
            file.discard()
            file.closed = True  # else it would flush what it holds when it is collected
            raise
        return Written(size, digest.hexdigest())

    def read(self, key: str) -> Iterator[bytes]:
        """In parts of 1 MiB, fetched ahead by fsspec."""
        with self._as_os_errors(), self._files.open(self._path(key), "rb") as file:
            while part := file.read(PART_BYTES):
                yield part

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        """One request."""
        if length == 0:
            return b""
        with self._as_os_errors():
            found: bytes = self._files.cat_file(self._path(key), start=offset, end=offset + length)
        return found

    def head(self, key: str) -> int | None:
        """One request."""
        try:
            with self._as_os_errors():
                return int(self._files.info(self._path(key))["size"])
        except FileNotFoundError:
            return None

    def find(self, prefix: str) -> Iterator[Stored]:
        """Page by page."""
        try:
            with self._as_os_errors():
                found = self._files.find(self._path(prefix), detail=True)
        except FileNotFoundError:
            return
        for path, entry in found.items():
            modified = entry.get("LastModified") or entry["mtime"]
            yield Stored(path.removeprefix(f"{self._root}/"), int(entry["size"]), modified.timestamp())

    def folders(self, prefix: str) -> Iterator[str]:
        """Page by page, by common prefixes."""
        try:
            with self._as_os_errors():
                found = self._files.ls(self._path(prefix), detail=True)
        except FileNotFoundError:
            return
        for entry in found:
            if entry["type"] == "directory":
                yield entry["name"].rstrip("/").removeprefix(f"{self._root}/")

    def delete(self, key: str) -> None:
        """One request; S3 calls it no error where there is nothing."""
        try:
            with self._as_os_errors():
                self._files.rm_file(self._path(key))
        except FileNotFoundError:
            return

    def locate(self, key: str) -> str:
        """The object's URL."""
        return f"{self._scheme}://{self._path(key)}"

    @contextmanager
    def _as_os_errors(self) -> Iterator[None]:
        try:
            yield
        except self._faults as error:
            raise OSError(f"{self._scheme}://{self._root}: {error}") from error

    def _path(self, key: str) -> str:
        return "/".join([self._root, *segments(key)])
