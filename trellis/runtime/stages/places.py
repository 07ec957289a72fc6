"""Where files lie: paths below the roots of the job, and URLs through fsspec. Lists them, and brings them near."""

import bz2
import gzip
import lzma
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

import fsspec
import pyarrow.parquet as pq
import zstandard

from trellis.runtime.stages.connectors import COMPRESSIONS, Files, suffixes_of
from trellis.runtime.stages.egress import Refused
from trellis.runtime.stages.faults import StageFailed
from trellis.runtime.stages.spec import Surroundings

_BLOCK_BYTES = 1 << 20
# Text that packs better than a hundredfold is no text that somebody wrote; below so many bytes it does no harm.
_MOST_RATIO = 100
_HARMLESS_BYTES = 64 << 20
_MOST_FILES = 100_000
_MOST_CAUSES = 20


@dataclass(frozen=True, slots=True)
class Found:
    """One file: `name` in its place, how large, and a mark that changes when its content does."""

    name: str
    size_bytes: int
    mark: str
    modified_at: float = 0.0


class Place:
    """The files that a connector names. Every method raises StageFailed for what can't be reached or may not be."""

    def __init__(self, files: Files, around: Surroundings) -> None:
        self.files, self._around = files, around
        self._path = _path_of(files.url)
        if files.local:
            self._path = str(confine(self._path, around.roots))
        self.system = _file_system(files, around)

    @property
    def path(self) -> str:
        """As its file system names it."""
        return self._path

    def list(self) -> list[Found]:
        """What is there now, by name."""
        with saying(self.files.url):
            if self.files.scheme in {"http", "https"}:
                return [self._found(self.files.url, self.system.info(self.files.url))]
            if not any(sign in self._path for sign in "*?["):
                return [self._found(self._path, self.system.info(self._path))] if self.system.exists(self._path) else []
            entries = self.system.glob(self._path, detail=True)
        files = [self._found(name, about) for name, about in sorted(entries.items()) if about["type"] != "directory"]
        if len(files) > _MOST_FILES:
            raise StageFailed(f"{self.files.url} names {len(files)} files: at most {_MOST_FILES} are read at once")
        return files

    def near(self, found: Found, folder: Path, most_bytes: int) -> Path:
        """The file as a plain one of this machine: where it is, or fetched and unpacked below `folder`."""
        packed = COMPRESSIONS.get(suffixes_of(found.name)[1], "")
        if self.files.local and not packed:
            path = confine(found.name, self._around.roots)
            _bound_parquet(path, self.files, most_bytes)
            return path
        ending = suffixes_of(found.name)[0] or f".{self.files.format}"
        target = folder / f"fetched-{sum(1 for _ in folder.iterdir()):06d}{ending}"
        with saying(found.name), self.system.open(found.name, "rb") as source, target.open("wb") as sink:
            _copy(_Counted(source), packed, sink, most_bytes, found.name)
        _bound_parquet(target, self.files, most_bytes)
        return target

    def _found(self, name: str, about: dict[str, Any]) -> Found:
        if self.files.local:
            confine(name, self._around.roots)
        modified = about.get("mtime", about.get("LastModified", about.get("updated", "")))
        mark = str(about.get("ETag") or about.get("etag") or modified)
        stamp = modified if isinstance(modified, int | float) else getattr(modified, "timestamp", lambda: 0.0)()
        return Found(name, int(about.get("size") or 0), mark, float(stamp))


def confine(path: str | Path, roots: tuple[Path, ...]) -> Path:
    """The path without links in it, below one of the roots. Raises StageFailed."""
    try:
        real = (roots[0] / path).resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise StageFailed(f"{path} is no usable path: {error}") from error
    if not any(real.is_relative_to(root.resolve()) for root in roots):
        allowed = ", ".join(str(root) for root in roots)
        raise StageFailed(f"{path} leads out of what the job may read: paths lie below {allowed}")
    return real


@contextmanager
def saying(what: str) -> Iterator[None]:
    """Say of which place an error is."""
    try:
        yield
    except _errors() as error:
        _refused(error)
        reason = " ".join(str(error).split())[:500] or type(error).__name__
        raise StageFailed(f"{what}: {reason}") from error


def _errors() -> tuple[type[Exception], ...]:
    """What the libraries behind a place raise, those that are loaded."""
    found = [OSError, ValueError, EOFError, zstandard.ZstdError, lzma.LZMAError]
    for module, name in (("aiohttp", "ClientError"), ("botocore.exceptions", "BotoCoreError")):
        if module in sys.modules:
            found.append(getattr(sys.modules[module], name))
    return tuple(found)


def _refused(error: BaseException) -> None:
    """Where the guard stopped it, that is what there is to say, whatever a library made of it."""
    cause: BaseException | None = error
    for _ in range(_MOST_CAUSES):
        if isinstance(cause, Refused):
            raise cause
        cause = (cause.__cause__ or cause.__context__) if cause else None


def _path_of(url: str) -> str:
    if url.lower().startswith("file://"):
        return unquote(urlsplit(url).path)
    if url.lower().startswith(("http://", "https://")) or "://" not in url:
        return url
    return url.split("://", 1)[1]


def _file_system(files: Files, around: Surroundings) -> Any:
    named = {name: around.secret(variable) for name, variable in files.credentials}
    endpoint = {"endpoint_url": files.endpoint_url} if files.endpoint_url else {}
    # Without credentials a place is public: nobody asks the machine or its metadata service who it is.
    options: dict[str, dict[str, Any]] = {
        "s3": {**named, **endpoint, "anon": not named, "skip_instance_cache": True, "use_listings_cache": False},
        "gs": {
            "token": named.get("token", "anon"),
            **endpoint,
            "skip_instance_cache": True,
            "use_listings_cache": False,
        },
        "http": {
            "skip_instance_cache": True,
            "headers": {"Authorization": f"Bearer {named['token']}"} if "token" in named else {},
        },
        "file": {},
    }
    kind = {"": "file", "gcs": "gs", "https": "http"}.get(files.scheme, files.scheme)
    try:
        return fsspec.filesystem(kind, **options[kind])
    except ImportError as error:
        raise StageFailed(f"{kind}:// needs a package that is not installed: pip install 'trellis[{kind}]'") from error


class _Counted:
    """Counts what is read from a file, so that what it unfolds to can be measured against it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.count = file, 0

    def read(self, size: int = -1) -> bytes:
        """As the file's own."""
        block = self._file.read(size)
        self.count += len(block)
        return block

    def readable(self) -> bool:
        """As the file's own."""
        return True

    def seekable(self) -> bool:
        """Nothing is read twice."""
        return False


def _copy(source: _Counted, packed: str, sink: IO[bytes], most_bytes: int, name: str) -> None:
    unpacked = _unpacked(source, packed)
    written = 0
    while block := unpacked.read(_BLOCK_BYTES):
        written += len(block)
        if written > most_bytes:
            raise StageFailed(f"{name} is larger than {most_bytes} bytes: raise `most_bytes` if that is right")
        if packed and written > _HARMLESS_BYTES and written > source.count * _MOST_RATIO:
            raise StageFailed(f"{name} unfolds to more than {_MOST_RATIO} times its size: that is no data but a trap")
        sink.write(block)


def _unpacked(source: Any, packed: str) -> Any:
    if packed == "gzip":
        return gzip.GzipFile(fileobj=source)
    if packed == "bz2":
        return bz2.BZ2File(source)
    if packed == "xz":
        return lzma.LZMAFile(source)
    if packed == "zstd":
        return zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(source, read_across_frames=True)
    return source


def _bound_parquet(path: Path, files: Files, most_bytes: int) -> None:
    if files.format != "parquet":
        return
    with saying(str(path)):
        about = pq.read_metadata(path)
    unfolded = sum(about.row_group(number).total_byte_size for number in range(about.num_row_groups))
    if unfolded > most_bytes:
        raise StageFailed(
            f"{path.name} unfolds to {unfolded} bytes, more than {most_bytes}: raise `most_bytes` if right"
        )
