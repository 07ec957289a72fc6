"""Packs: new chunks one behind the other, so that a checkpoint of many chunks is few objects, each synced once."""

import queue
from collections.abc import Iterator
from contextlib import suppress
from threading import Lock, Thread

import zstandard
from blake3 import blake3

from trellis.errors import Conflict
from trellis.stores.base import Store
from trellis.stores.manifests import Chunk, FileEntry

PACK_BYTES = 64 << 20
# Two, so that one compresses while the other waits for the disk.
WRITERS = 2
_WAITING = 64
LEVEL = 1
# A chunk is kept compressed if that spares so much; after one that does not shrink, so many are not tried.
_WORTH = 0.97
_SKIPPED = 15
_READ_BYTES = 4 << 20


class CorruptChunk(Conflict):
    """What a store gives back is not what was stored."""

    code = "corrupt_chunk"
    title = "A checkpoint is damaged"


class PackWriter:
    """Writes chunks in threads of its own. Where it fails, all that it wrote is deleted again."""

    def __init__(self, store: Store, prefix: str) -> None:
        """Packs get the keys `<prefix>-0`, `<prefix>-1` and so on."""
        self._store, self._prefix = store, prefix
        self._queue: queue.Queue[tuple[Chunk, bytes] | None] = queue.Queue(_WAITING)
        self._lock = Lock()
        self._written: dict[str, int] = {}
        self._made = 0
        self._error: OSError | None = None
        self._threads = [Thread(target=self._run, name="packs", daemon=True) for _ in range(WRITERS)]
        for thread in self._threads:
            thread.start()

    def put(self, chunk: Chunk, content: bytes) -> None:
        """Have `chunk` written some time before `finish` returns. Raises OSError of an earlier one that failed."""
        if self._error:
            raise self._error
        self._queue.put((chunk, content))

    def finish(self) -> dict[str, int]:
        """Wait until all is safe in the store: the packs' keys and sizes. Raises OSError, and nothing is left of it."""
        self._end()
        if self._error:
            self._clear()
            raise self._error
        return self._written

    def abandon(self) -> None:
        """Give up, and delete what was written."""
        self._error = self._error or OSError("the checkpoint was given up")
        self._end()
        self._clear()

    def _end(self) -> None:
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _clear(self) -> None:
        for key in self._written:
            with suppress(OSError):  # the sweep of packs that nobody refers to finds it
                self._store.delete(key)
        self._written = {}

    def _run(self) -> None:
        squeezer = _Squeezer()
        while (first := self._queue.get()) is not None:
            if self._error:
                continue  # drained, so that nobody waits for room
            with self._lock:
                key = f"{self._prefix}-{self._made}"
                self._made += 1
            try:
                size = self._store.write(key, self._fill(key, first, squeezer)).size_bytes
            except OSError as error:
                self._error = error
            else:
                self._written[key] = size

    def _fill(self, key: str, first: tuple[Chunk, bytes], squeezer: "_Squeezer") -> Iterator[bytes]:
        """The parts of one pack: until it is full, or there is no more."""
        taken: tuple[Chunk, bytes] | None = first
        offset = 0
        while taken is not None:
            if self._error:
                raise self._error
            chunk, content = taken
            stored = squeezer.squeeze(content)
            chunk.pack, chunk.offset, chunk.stored = key, offset, len(stored)
            offset += len(stored)
            yield stored
            if offset >= PACK_BYTES:
                return
            taken = self._queue.get()
        self._queue.put(None)  # it was meant for the loop that called


class _Squeezer:
    """Compresses what is worth it; one a thread."""

    def __init__(self) -> None:
        self._zstd = zstandard.ZstdCompressor(level=LEVEL, write_content_size=True)
        self._skip = 0

    def squeeze(self, content: bytes) -> bytes:
        if self._skip:
            self._skip -= 1
            return content
        packed = self._zstd.compress(content)
        if len(packed) <= len(content) * _WORTH:
            return packed
        self._skip = _SKIPPED
        return content


def read_file(store: Store, file: FileEntry) -> Iterator[bytes]:
    """The file's bytes, every chunk checked. Raises CorruptChunk where one is missing or altered, OSError."""
    unpack = zstandard.ZstdDecompressor()
    for run in _runs(file):
        start, end = run[0].offset, run[-1].offset + run[-1].stored
        try:
            block = memoryview(store.read_range(run[0].pack, start, end - start))
        except FileNotFoundError as error:
            raise CorruptChunk(f"{file.path}: the pack {run[0].pack} is missing") from error
        for chunk in run:
            yield _content(unpack, file, chunk, block[chunk.offset - start :][: chunk.stored])


def _content(unpack: zstandard.ZstdDecompressor, file: FileEntry, chunk: Chunk, stored: memoryview) -> bytes:
    try:
        if chunk.stored == chunk.length:
            content = bytes(stored)
        else:  # a header that names another size is believed by the library, whatever bound it is given
            told = zstandard.frame_content_size(stored)
            content = unpack.decompress(stored) if told == chunk.length else b""
    except zstandard.ZstdError:
        content = b""
    if len(content) != chunk.length or blake3(content).digest() != chunk.digest:
        raise CorruptChunk(f"{file.path}: a chunk in the pack {chunk.pack} at byte {chunk.offset} is damaged")
    return content


def _runs(file: FileEntry) -> Iterator[list[Chunk]]:
    """Chunks that lie one behind the other, to be read at once."""
    run: list[Chunk] = []
    for chunk in file.chunks:
        joins = run and run[-1].pack == chunk.pack and run[-1].offset + run[-1].stored == chunk.offset
        if run and not (joins and chunk.offset + chunk.stored - run[0].offset <= _READ_BYTES):
            yield run
            run = []
        run.append(chunk)
    if run:
        yield run
