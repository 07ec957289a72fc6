"""`client.artifacts`: files beside a job's results, sent and fetched so that what breaks off goes on."""

import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypedDict, Unpack

from trellis.answers import Artifact, Job, answer
from trellis.errors import Conflict, Field, Invalid, Unavailable
from trellis.nouns.paging import pages
from trellis.transport import Call, Transport, path

# One request carries so much: what is lost where a connection breaks without a word is no more than that.
PART_BYTES = 64 << 20
_PIECE_BYTES = 1 << 20
# A transfer that gets nowhere this often in a row, each time after the transport's own tries, is given up.
_FRUITLESS = 5
# The server reads a large file once more before it answers to its last bytes.
_CHECK_BYTES_S = 20_000_000
# Names come from whoever saved the files: none of them may lead out of the folder that they are fetched to.
_PART_OF_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*", re.ASCII)
_DIGEST = re.compile(r'"([0-9a-f]{64})"')
_PARTIAL = 206
Progress = Callable[[int], None]


class ArtifactFilters(TypedDict, total=False):
    """What `list` can narrow by: a folder, a part of the name, a type; `sort` is a field, `-` before it turns it round."""

    under: str
    name: str
    type: str
    sort: str
    limit: int


@dataclass(frozen=True, slots=True)
class Description:
    """What a file is called and is; what is empty is guessed by its name."""

    name: str
    type: str = ""
    media_type: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


class Artifacts:
    """Put, listed, fetched, removed. Where a job or an artifact is wanted, its id will do."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self, job: Job | str, **filters: Unpack[ArtifactFilters]) -> Iterator[Artifact]:
        """The files of a job, by name if not said otherwise, fetched page by page."""
        return pages(self._transport, path("jobs", _id(job), "artifacts"), Artifact, filters)

    def put(
        self, job: Job | str, file: Path | str, description: Description | None = None, *,
        progress: Progress = lambda _: None,
    ) -> Artifact:  # fmt: skip
        """Keep a file beside a job's results, under its own name if not said otherwise.

        Sending it again after it broke off goes on where it stopped; a file of that name which has the content already is
        not sent. `progress` hears of the bytes so far.

        Raises: OSError; Invalid for a name that can't be; QuotaExceeded; StoreFull; Conflict where it changed meanwhile.
        """
        about = description or Description(Path(file).name)
        with Path(file).open("rb") as opened:
            if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
                raise Invalid(Field("/file", f"{file} is no regular file"))
            size, digest = os.fstat(opened.fileno()).st_size, _digest(opened.fileno())
            body = {
                "name": about.name, "type": about.type, "media_type": about.media_type, "metadata": dict(about.metadata),
                "size_bytes": size, "digest": digest,
            }  # fmt: skip
            call = Call("POST", path("jobs", _id(job), "artifacts"), body=body)
            answered = self._transport.json(call)
            if answered["artifact"]:
                progress(size)
                return answer(Artifact, answered["artifact"])
            where = path("jobs", _id(job), "artifacts", "uploads", answered["upload"]["id"])
            return self._send(_Sending(where, opened.fileno(), size, progress), answered["upload"]["received_bytes"])

    def put_tree(self, job: Job | str, folder: Path | str, under: str = "") -> Iterator[Artifact]:
        """Keep the files of a folder, each under its path from there, below `under`; hidden files and links stay behind."""
        top = Path(folder)
        for file in files_below(top):
            name = str(PurePosixPath(under) / file.relative_to(top).as_posix())
            yield self.put(job, file, Description(name))

    def download(
        self, job: Job | str, artifact: Artifact | str, to: Path | str, *, progress: Progress = lambda _: None
    ) -> Path:
        """Fetch a file to the path `to`; it is whole there, with the digest it was saved with, or absent.

        What a broken connection left is gone on with. Raises: NotFound; Conflict where what came is not what was saved.
        """
        wanted, target = _id(artifact), Path(to)
        where, half = (
            path("jobs", _id(job), "artifacts", wanted),
            target.with_name(f".{target.name}.{wanted[-12:]}.part"),
        )
        fruitless = 0
        while True:
            before = (
                max(half.stat().st_size - 1, 0) if half.exists() else 0
            )  # one byte at least is there to be asked for
            if before:
                os.truncate(half, before)
            try:
                digest = self._fetch(where, half, before, progress)
                break
            except Unavailable:
                fruitless = 0 if half.exists() and half.stat().st_size > before + 1 else fruitless + 1
                if fruitless >= _FRUITLESS:
                    raise
                self._transport.sleep(0.5 * fruitless)
        if digest and _digest_of(half) != digest:
            half.unlink()
            raise Conflict(f"what came of {target.name} is not what was saved: fetch it again")
        return half.replace(target)

    def download_tree(self, job: Job | str, to: Path | str, under: str = "") -> Iterator[Path]:
        """Fetch all files of a job, or those below `under`, into the folder `to`, under their names.

        Raises: Conflict for a name that would lead out of `to`, or that another file has in other case.
        """
        taken: dict[str, str] = {}
        for artifact in list(self.list(job, under=under) if under else self.list(job)):
            if taken.setdefault(artifact.name.casefold(), artifact.name) != artifact.name:
                raise Conflict(
                    f"{artifact.name} and {taken[artifact.name.casefold()]} may be one file here: fetch them one by one"
                )
            target = Path(to).joinpath(*safe_parts(artifact.name))
            target.parent.mkdir(parents=True, exist_ok=True)
            yield self.download(job, artifact, target)

    def remove(self, job: Job | str, artifact: Artifact | str) -> None:
        """Forget a file. Raises NotFound."""
        self._transport.json(Call("DELETE", path("jobs", _id(job), "artifacts", _id(artifact))))

    def _send(self, sending: "_Sending", offset: int) -> Artifact:
        fruitless = 0
        while True:
            try:
                answered = self._transport.json(sending.call(offset))
            except (Unavailable, Conflict):
                stood, offset = offset, self._stand(sending.where)
                fruitless = 0 if offset > stood else fruitless + 1
                if fruitless >= _FRUITLESS:
                    raise
                continue
            if found := answered.get("artifact"):
                sending.progress(sending.size)
                return answer(Artifact, found)
            offset, fruitless = answered["upload"]["received_bytes"], 0
            sending.progress(offset)

    def _stand(self, where: str) -> int:
        return int(self._transport.json(Call("GET", where))["received_bytes"])

    def _fetch(self, where: str, half: Path, offset: int, progress: Progress) -> str:
        """Append what is missing; the digest that the whole is to have, empty where none was said."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        with self._transport.stream(Call("GET", where, headers=headers)) as response:
            goes_on = response.status_code == _PARTIAL
            with half.open("ab" if goes_on else "wb") as file:
                done = offset if goes_on else 0
                for piece in response.iter_bytes():
                    file.write(piece)
                    done += len(piece)
                    progress(done)
            match = _DIGEST.fullmatch(response.headers.get("ETag", ""))
            return match[1] if match else ""


@dataclass(frozen=True, slots=True)
class _Sending:
    """An open file on its way to `where`."""

    where: str
    file: int
    size: int
    progress: Progress

    def call(self, offset: int) -> Call:
        length = min(self.size - offset, PART_BYTES)
        headers = {
            "Upload-Offset": str(offset), "Content-Type": "application/octet-stream", "Content-Length": str(length),
        }  # fmt: skip
        patience_s = 60.0 + self.size / _CHECK_BYTES_S
        content = partial(self._pieces, offset, length)
        return Call("PATCH", self.where, headers=headers, content=content, repeatable=False, read_timeout_s=patience_s)

    def _pieces(self, offset: int, length: int) -> Iterator[bytes]:
        end = offset + length
        while offset < end:
            piece = os.pread(self.file, min(_PIECE_BYTES, end - offset), offset)
            if not piece:
                raise Conflict("the file became shorter while it was sent")
            yield piece
            offset += len(piece)
            self.progress(offset)


def files_below(folder: Path) -> list[Path]:
    """The regular files below a folder, by name; not what is hidden or linked. Raises Invalid where there is no folder."""
    if not folder.is_dir():
        raise Invalid(Field("/folder", f"{folder} is no folder"))
    found = []
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        shown = (Path(root, name) for name in sorted(names) if not name.startswith("."))
        found += [file for file in shown if stat.S_ISREG(file.lstat().st_mode)]
    return found


def safe_parts(name: str) -> tuple[str, ...]:
    """A name as the parts of a path that leads out of nothing. Raises Conflict for any other."""
    parts = name.split("/")
    if not all(_PART_OF_NAME.fullmatch(part) for part in parts):
        raise Conflict(f"{name!r} is no name to write a file under: fetch it by itself, to a name of yours")
    return tuple(parts)


def _digest(file: int) -> str:
    digest, offset = hashlib.sha256(), 0
    while piece := os.pread(file, _PIECE_BYTES, offset):
        digest.update(piece)
        offset += len(piece)
    return digest.hexdigest()


def _digest_of(file: Path) -> str:
    with closing(file.open("rb")) as opened:
        return _digest(opened.fileno())


def _id(what: Job | Artifact | str) -> str:
    return what if isinstance(what, str) else what.id
