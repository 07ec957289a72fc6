"""`client.bundles`: directories of code, sent once."""

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from trellis.answers import Bundle, answer
from trellis.bundles.manifest import BadManifest, Manifest
from trellis.bundles.parcels import HEAD_BYTES, BadParcel, reader, unwrap, wrap
from trellis.bundles.unfolding import WrongContent, unfold
from trellis.errors import Conflict, Field, Invalid, TrellisError
from trellis.nouns.paging import pages
from trellis.transport import Call, Transport, path
from trellis.wire import pack, unpack

if TYPE_CHECKING:
    from trellis.bundles.scanning import Tree

# A request carries about so much, or one larger file: what broke on its way is sent again from the last request on.
REQUEST_BYTES, REQUEST_FILES = 16 << 20, 1000
# What was here may be dropped, and what is sent be refused as too late, at any moment; not for ever.
ROUNDS = 5
Progress = Callable[[str, int, int], None]


class Bundles:
    """Directories of code. Where a bundle is wanted, a `Bundle` or its id will do."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def push(
        self, directory: Path | str, *, project: str | None = None, name: str | None = None,
        progress: Progress | None = None,
    ) -> Bundle:  # fmt: skip
        """Keep a directory, but for what its `.trellisignore` names: `submit(bundle=client.bundles.push(".").id, ...)`.

        Files that the project has are not sent again. `progress` hears `"reading"` or `"sending"`, how many bytes
        are done, and of how many.

        Raises: Invalid that names what can't be sent, or the largest files where it is too much; QuotaExceeded.
        """
        tree = _scan(Path(directory), progress)
        body = {"project": project, "name": name or tree.root.resolve().name, **pack(tree.manifest)}
        put = Call("PUT", "/bundles", body={key: value for key, value in body.items() if value is not None})
        for _ in range(ROUNDS):
            answered = self._transport.json(put)
            if answered["bundle"]:
                return answer(Bundle, answered["bundle"])
            self._send(tree, answered["missing"], project, progress)
        raise Conflict(f"{directory} was sent {ROUNDS} times, and parts of it are gone each time: try again later")

    def list(self, *, project: str | None = None) -> Iterator[Bundle]:
        """Those of one's projects, or of one of them, the last made first."""
        return pages(self._transport, "/bundles", Bundle, {"project": project})

    def get(self, bundle: Bundle | str) -> Bundle:
        """One by its id. Raises NotFound."""
        return answer(Bundle, self._transport.json(Call("GET", path("bundles", _id(bundle)))))

    def files(self, bundle: Bundle | str) -> Manifest:
        """What is in it. Raises NotFound."""
        answered = self._transport.json(Call("GET", path("bundles", _id(bundle), "files")))
        return unpack(Manifest, {"files": answered["items"]})

    def download(self, bundle: Bundle | str, to: Path | str) -> Path:
        """Write the directory to `to`, which must not be there yet; it is whole there or absent.

        Raises: NotFound; Invalid where `to` is taken; TrellisError where what came is not the bundle.
        """
        target = Path(to)
        if target.exists():
            raise Invalid(Field("/to", f"{target} is there already"))
        manifest = self.files(bundle)
        beside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.absolute().parent))
        try:
            self._fetch(_id(bundle), beside)
            unfold(manifest, beside / "whole", lambda digest: _pieces(beside / digest))
            return (beside / "whole").rename(target)
        except (BadManifest, BadParcel, WrongContent, FileNotFoundError) as error:
            raise TrellisError(f"what {self._transport.url} sent is not the bundle: {error}") from error
        finally:
            shutil.rmtree(beside)

    def delete(self, bundle: Bundle | str) -> None:
        """Forget one. Raises Conflict (`bundle_in_use`) where a job that has not ended runs in it."""
        self._transport.json(Call("DELETE", path("bundles", _id(bundle))))

    def _fetch(self, bundle: str, folder: Path) -> None:
        with self._transport.stream(Call("GET", path("bundles", bundle, "blobs"))) as response:
            for parcel in unwrap(reader(response.iter_bytes())):
                with (folder / parcel.digest).open("wb") as file:
                    file.writelines(parcel.pieces)

    def _send(self, tree: "Tree", missing: Iterable[str], project: str | None, progress: Progress | None) -> None:
        sizes = {digest: tree.manifest.blobs[digest] for digest in missing}
        done, total = 0, sum(sizes.values())
        for part in _requests(sizes):
            length = sum(HEAD_BYTES + sizes[digest] for digest in part)
            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(length)}
            content = partial(_parcels, tree, {digest: sizes[digest] for digest in part}, _from(progress, done, total))
            self._transport.json(Call("PUT", "/bundles/blobs", {"project": project}, headers=headers, content=content))
            done += sum(sizes[digest] for digest in part)


def _from(progress: Progress | None, done: int, total: int) -> Callable[[int], None]:
    """Hears of bytes that came on top of `done`."""
    return lambda more: progress("sending", done + more, total) if progress else None


def _parcels(tree: "Tree", sizes: dict[str, int], told: Callable[[int], None]) -> Iterator[bytes]:
    done = 0
    for digest, size in sizes.items():
        yield from wrap(digest, size, _counted(tree.read(digest), done, told))
        done += size


def _counted(pieces: Iterable[bytes], done: int, told: Callable[[int], None]) -> Iterator[bytes]:
    for piece in pieces:
        yield piece
        done += len(piece)
        told(done)


def _requests(sizes: dict[str, int]) -> Iterator[list[str]]:
    """What travels together."""
    part: list[str] = []
    room = REQUEST_BYTES
    for digest, size in sizes.items():
        if part and (size > room or len(part) == REQUEST_FILES):
            yield part
            part, room = [], REQUEST_BYTES
        part.append(digest)
        room -= size
    if part:
        yield part


def _scan(directory: Path, progress: Progress | None) -> "Tree":
    try:
        from trellis.bundles.scanning import scan  # noqa: PLC0415  # optional: most programs send no directory
    except ModuleNotFoundError as error:
        raise TrellisError(f"to send a directory {error.name} is needed: pip install 'trellis[cli]'") from error
    return scan(directory, progress and (lambda done, total: progress("reading", done, total)))


def _pieces(file: Path) -> Iterator[bytes]:
    with file.open("rb") as opened:
        while piece := opened.read(1 << 20):
            yield piece


def _id(bundle: Bundle | str) -> str:
    return bundle.id if isinstance(bundle, Bundle) else str(bundle)
