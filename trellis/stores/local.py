"""Files below one root folder."""

import errno
import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from trellis.stores.base import PART_BYTES, Stored, Written, segments

# Files on their way lie here, all in one place: what a killed process left is found without a walk.
BESIDE = ".parts"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class LocalStore:
    """A `Store` in a folder.

    A file appears under its key only when it is whole and on the disk: written beside, synced, renamed, and then the
    folder synced too, so that a key that was reported as stored outlives a loss of power. Below the root no symbolic
    link is followed.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def write(self, key: str, parts: Iterable[bytes]) -> Written:
        """Beside its place first, then renamed: a reader never sees half a file."""
        *folders, name = segments(key)
        digest, size = hashlib.sha256(), 0
        with self._folder([BESIDE], make=True) as beside, self._folder(folders, make=True) as folder:
            fresh = f"{name[:64]}.{secrets.token_hex(8)}"
            handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=beside)
            try:
                with os.fdopen(handle, "wb", buffering=0) as file:
                    for part in parts:
                        _write_all(handle, part)
                        digest.update(part)
                        size += len(part)
                    os.fsync(file.fileno())
                os.rename(fresh, name, src_dir_fd=beside, dst_dir_fd=folder)
            except BaseException:
                with suppress(FileNotFoundError):
                    os.unlink(fresh, dir_fd=beside)
                raise
            os.fsync(folder)
        return Written(size, digest.hexdigest())

    def read(self, key: str) -> Iterator[bytes]:
        """In parts of 1 MiB."""
        with os.fdopen(self._open(key), "rb", buffering=0) as file:
            while part := file.read(PART_BYTES):
                yield part

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        """One read, or the few that the kernel makes of it."""
        fd = self._open(key)
        try:
            blocks = []
            while length and (block := os.pread(fd, length, offset)):
                blocks.append(block)
                offset, length = offset + len(block), length - len(block)
            return b"".join(blocks)
        finally:
            os.close(fd)

    def head(self, key: str) -> int | None:
        """The file's size."""
        try:
            fd = self._open(key)
        except FileNotFoundError:
            return None
        try:
            return os.fstat(fd).st_size
        finally:
            os.close(fd)

    def find(self, prefix: str) -> Iterator[Stored]:
        """By walking the folder."""
        try:
            with self._folder(segments(prefix), make=False) as top:
                yield from _walk(top, prefix)
        except FileNotFoundError:
            return

    def folders(self, prefix: str) -> Iterator[str]:
        """The folders in that folder."""
        try:
            with self._folder(segments(prefix), make=False) as top, os.scandir(top) as found:
                names = [entry.name for entry in found if entry.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            return
        yield from (f"{prefix}/{name}" for name in names)

    def delete(self, key: str) -> None:
        """Remove the file."""
        *folders, name = segments(key)
        with suppress(FileNotFoundError), self._folder(folders, make=False) as folder:
            os.unlink(name, dir_fd=folder)

    def sweep(self, older_than_s: float, now: float) -> int:
        """Remove what writers left that were killed more than `older_than_s` before `now`; how many files that were."""
        removed = 0
        with suppress(FileNotFoundError), self._folder([BESIDE], make=False) as beside, os.scandir(beside) as found:
            for entry in found:
                if entry.stat(follow_symlinks=False).st_mtime < now - older_than_s:
                    os.unlink(entry.name, dir_fd=beside)
                    removed += 1
        return removed

    def locate(self, key: str) -> str:
        """The file's path as a URL."""
        return self._root.joinpath(*segments(key)).absolute().as_uri()

    def _open(self, key: str) -> int:
        *folders, name = segments(key)
        with self._folder(folders, make=False) as folder:
            try:
                return os.open(name, _FILE, dir_fd=folder)
            except OSError as error:
                if error.errno == errno.ELOOP:  # a link is not what was stored here
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), key) from error
                raise

    @contextmanager
    def _folder(self, names: list[str], *, make: bool) -> Iterator[int]:
        """A descriptor of the folder `names` below the root, each step without following a link."""
        if make:
            self._root.mkdir(parents=True, exist_ok=True)
        fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)  # the root itself may be a link
        try:
            for name in names:
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(name, 0o700, dir_fd=fd)
                below = os.open(name, _FOLDER, dir_fd=fd)
                os.close(fd)
                fd = below
            yield fd
        finally:
            os.close(fd)


def _write_all(fd: int, part: bytes) -> None:
    rest = memoryview(part)
    while rest:
        rest = rest[os.write(fd, rest) :]


def _walk(folder: int, prefix: str) -> Iterator[Stored]:
    with os.scandir(folder) as entries:
        found = list(entries)
    for entry in found:
        key = f"{prefix}/{entry.name}"
        with suppress(FileNotFoundError):  # it was deleted meanwhile: the others are still there
            if entry.is_dir(follow_symlinks=False):
                below = os.open(entry.name, _FOLDER, dir_fd=folder)
                try:
                    yield from _walk(below, key)
                finally:
                    os.close(below)
            elif entry.is_file(follow_symlinks=False):
                seen = entry.stat(follow_symlinks=False)
                yield Stored(key, seen.st_size, seen.st_mtime)
