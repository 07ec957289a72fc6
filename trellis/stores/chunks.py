"""Files into chunks: cut where their content says so, so that a change moves the cuts beside it and no others.

What an earlier manifest holds is not cut again: as long as the next chunk of it is what comes next in the file, that is
one hash and no search. What was overwritten in place keeps its cuts. At any other difference the cutter looks for boundaries, until a chunk turns up that is known,
wherever in the earlier files that was; from there on the comparison goes on. So unchanged content costs one hash, and
an insertion costs the chunks around it.
"""

import os
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from threading import Event
from typing import Literal

from blake3 import blake3
from pyfastcdc import FastCDC

from trellis.stores.base import Store
from trellis.stores.manifests import CHUNKS_AT_MOST, Chunk, FileEntry, Manifest, check_path
from trellis.stores.packs import PackWriter

SMALLEST, USUAL, LARGEST = 16 << 10, 64 << 10, 256 << 10
# How hard lengths are drawn to the usual one (0 to 3). At 3 the cuts behind a change come back in step with the old ones late.
NORMALIZED: Literal[2] = 2
# How many chunks behind a difference are looked at where they were, before new cuts are looked for.
AHEAD = 64
_WINDOW_BYTES = 8 << 20
# Of all files together: the manifest of more would be larger than manifests may be. Holes in a file count too.
LARGEST_BYTES = 512 << 30


class Changed(OSError):
    """A file changed while it was read."""


class Unsavable(OSError):
    """What no checkpoint can hold, however often it is tried."""


class Saver:
    """One checkpoint on its way into a store. Use from one thread; ends with `finish` or `abandon`."""

    def __init__(
        self,
        store: Store,
        prefix: str,
        base: Manifest | None = None,
        called_off: Event | None = None,
        worn: Collection[str] = (),
    ) -> None:
        """New packs get keys that begin with `prefix`; what `base` holds is referred to, not stored again.

        But for what it holds in the packs `worn`: see `trellis.stores.worn`.
        Once `called_off` is set, `add` raises Changed soon, also in the middle of a file.
        """
        self._worn = worn
        self._moved: dict[bytes, Chunk] = {}
        self._writer = PackWriter(store, prefix)
        self._called_off = called_off or Event()
        self._left_bytes, self._left_chunks = LARGEST_BYTES, CHUNKS_AT_MOST
        self._cutter = FastCDC(USUAL, min_size=SMALLEST, max_size=LARGEST, normalized_chunking=NORMALIZED)
        self._window = bytearray(_WINDOW_BYTES)
        self._before = {file.path: file.chunks for file in base.files} if base else {}
        self._known: dict[bytes, tuple[Sequence[Chunk], int]] = {}
        for chunks in self._before.values():
            for at, chunk in enumerate(chunks):
                self._known.setdefault(chunk.digest, (chunks, at))
        self._files: list[FileEntry] = []
        self.new_bytes = 0

    def add(self, path: str, fd: int) -> None:
        """Store the regular file behind `fd` under `path`.

        Raises: Changed where it is written to meanwhile; Unsavable for a path that no manifest takes, or where all
            files are more than 512 GiB or than a manifest has chunks; OSError where it can't be read or the store takes no more.
        """
        try:
            check_path(path)
        except ValueError as error:
            raise Unsavable(f"the path {path[:80]!a} can't be kept: {error}") from error
        before = os.fstat(fd)
        self._left_bytes -= before.st_size
        if self._left_bytes < 0:
            raise Unsavable(f"with {path[:80]!r} it is more than 512 GiB (holes count too)")
        chunks = tuple(islice(self._chunks(fd, before.st_size, self._before.get(path, ())), self._left_chunks + 1))
        self._left_chunks -= len(chunks)
        if self._left_chunks < 0:
            raise Unsavable(f"with {path[:80]!r} it is more than {CHUNKS_AT_MOST} chunks, some 130 GiB")
        after = os.fstat(fd)
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise Changed(f"{path} was written to while it was read")
        self._files.append(FileEntry(path, chunks))

    def finish(self) -> tuple[Manifest, dict[str, int]]:
        """Wait until all is safe: the manifest, and the new packs with their sizes. Raises OSError; then none is left."""
        packs = self._writer.finish()
        return Manifest(tuple(self._files)), packs

    def abandon(self) -> None:
        """Give up; what was stored of it is deleted."""
        self._writer.abandon()

    def _chunks(self, fd: int, size: int, follow: Sequence[Chunk]) -> Iterator[Chunk]:
        offset, at = 0, 0
        while offset < size:
            view = self._look(fd, offset, size)
            ends = offset + len(view) == size
            start = 0
            cuts = None
            while start < len(view) and (ends or len(view) - start >= LARGEST):
                expected = follow[at] if at < len(follow) else None
                if expected and _is(view[start : start + expected.length], expected):
                    yield self._kept(expected, view[start : start + expected.length])
                    start, at, cuts = start + expected.length, at + 1, None
                    continue
                if expected and (count := _overwritten(view[start:], follow[at : at + AHEAD])):
                    for old in follow[at : at + count]:
                        yield self._place(view[start : start + old.length])[0]
                        start += old.length
                    at, cuts = at + count, None
                    continue
                cuts = cuts or self._cutter.cut_buf(view[start:])
                content = view[start : start + next(cuts).length]
                chunk, follow, at = self._place(content)
                yield chunk
                start += len(content)
                cuts = None if follow else cuts
            offset += start

    def _look(self, fd: int, offset: int, size: int) -> memoryview:
        """The file from `offset`, as far as the window goes. Never a mapping: a file cut short would end the process."""
        view = memoryview(self._window)[: min(size - offset, _WINDOW_BYTES)]
        filled = 0
        if self._called_off.is_set():
            raise Changed("the save was called off")
        while filled < len(view):
            read = os.preadv(fd, [view[filled:]], offset + filled)
            if not read:
                raise Changed("a file got shorter while it was read")
            filled += read
        return view

    def _place(self, content: memoryview) -> tuple[Chunk, Sequence[Chunk], int]:
        """The chunk for what was cut, and which known chunks should come next."""
        digest = blake3(content).digest()
        if hit := self._known.get(digest):
            followed, at = hit
            return self._kept(followed[at], content), followed, at + 1
        chunk = Chunk(digest, len(content))
        self.new_bytes += len(content)
        self._writer.put(chunk, bytes(content))
        self._known[digest] = ((chunk,), 0)
        return chunk, (), 0

    def _kept(self, chunk: Chunk, content: memoryview) -> Chunk:
        """The known chunk; or the same in a new pack, where its own is worn."""
        if chunk.pack not in self._worn:
            return chunk
        moved = self._moved.get(chunk.digest)
        if moved is None:
            moved = self._moved[chunk.digest] = Chunk(chunk.digest, chunk.length)
            self._writer.put(moved, bytes(content))
        return moved


def _overwritten(view: memoryview, expected: Sequence[Chunk]) -> int:
    """How many of the expected chunks differ before one that is where it was; 0 where none is.

    What was overwritten in place keeps its cuts: to look for new ones would store more than what changed.
    """
    start = 0
    for count, chunk in enumerate(expected):
        if count and _is(view[start : start + chunk.length], chunk):
            return count
        start += chunk.length
    return 0


def _is(content: memoryview, chunk: Chunk) -> bool:
    return len(content) == chunk.length and blake3(content).digest() == chunk.digest
