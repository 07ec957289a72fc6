"""What a checkpoint is made of: its files, the chunks of each, and where these lie; signed as a whole.

On its way and in a store a manifest is one block: a line of JSON that names the form, the key that signed and the
signature, then the compressed JSON that is signed. Whoever reads one checks the signature over the very bytes, and
then every number and path in it, before anything is done with it.
"""

import base64
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import zstandard
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from trellis.errors import Field, Invalid
from trellis.stores.base import Store, segments

FORM = "trellis-checkpoint-1"
FILES_AT_MOST = 10_000
CHUNK_AT_MOST = 1 << 20
# As many as the largest checkpoint has where it is all holes, which are cut into the longest chunks.
CHUNKS_AT_MOST = (1 << 21) + FILES_AT_MOST
PACKED_AT_MOST = 64 << 20
# What so many chunks take as text, with room to spare.
_UNPACKED_AT_MOST = 192 << 20
# Before the text is parsed: an empty list is two letters of it and 64 bytes of memory. Paths may hold such signs too.
_CONTAINERS_AT_MOST, _VALUES_AT_MOST = 100_000, 5 * CHUNKS_AT_MOST
_HEAD_AT_MOST = 1024
_DIGEST_BYTES = 32
# In bytes, and of each name in it: what every file system takes.
_LONGEST_PATH, _LONGEST_NAME = 1024, 255
# No pack comes near it; what is larger would be no offset to any system call.
_FURTHEST_BYTES = 1 << 40
_BAD_PARTS = frozenset({"", ".", ".."})
_PUBLIC_KEY = re.compile(r"[0-9a-f]{64}")


@dataclass(slots=True)
class Chunk:
    """A piece of a file: the BLAKE3 of its `length` bytes, and the `stored` bytes at `offset` of a pack that hold it.

    Compressed with zstd where `stored` is less than `length`, else as it is. `pack` is a key; "" until it is written.
    """

    digest: bytes
    length: int
    pack: str = ""
    offset: int = 0
    stored: int = 0


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A regular file by its path below the checkpoint's folder."""

    path: str
    chunks: tuple[Chunk, ...]

    @property
    def size_bytes(self) -> int:
        """Of the file."""
        return sum(chunk.length for chunk in self.chunks)


@dataclass(frozen=True, slots=True)
class Manifest:
    """All files of a checkpoint. `about` says whose it is: ids, step, metrics, as its signer knew them."""

    files: tuple[FileEntry, ...]
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        """Of all files."""
        return sum(file.size_bytes for file in self.files)

    @property
    def chunks(self) -> Iterator[Chunk]:
        """Of all files, in their order; one that several files hold comes several times."""
        for file in self.files:
            yield from file.chunks

    @property
    def packs(self) -> list[str]:
        """The keys that it needs, each once, in the order of their first use."""
        return list(dict.fromkeys(chunk.pack for chunk in self.chunks))

    def encode(self) -> bytes:
        """Compressed JSON: columns, for thousands of chunks are alike."""
        packs = self.packs
        number = {key: index for index, key in enumerate(packs)}
        files = [{"path": file.path, "chunks": len(file.chunks)} for file in self.files]
        chunks = list(self.chunks)
        body = {
            "about": dict(self.about),
            "files": files,
            "packs": packs,
            "digests": base64.b64encode(b"".join(chunk.digest for chunk in chunks)).decode(),
            "lengths": [chunk.length for chunk in chunks],
            "in_pack": [number[chunk.pack] for chunk in chunks],
            "offsets": [chunk.offset for chunk in chunks],
            "stored": [chunk.stored for chunk in chunks],
        }
        return zstandard.ZstdCompressor(level=3).compress(json.dumps(body, separators=(",", ":")).encode())

    @classmethod
    def decode(cls, block: bytes) -> "Manifest":
        """What `encode` wrote, checked as if an enemy had. Raises Invalid that names the first fault."""
        if len(block) > PACKED_AT_MOST:
            raise _too_large()
        try:
            body = json.loads(_text(block))
        except (zstandard.ZstdError, ValueError, RecursionError) as error:
            raise _fault("", "is no manifest, or was cut off") from error
        try:
            chunks = _chunks(body)
            about = body["about"]
            files = tuple(_files(body["files"], chunks))
        except (KeyError, TypeError, ValueError) as error:
            raise _fault("", f"is not in the form of a manifest: {error}") from error
        if not isinstance(about, dict):
            raise _fault("/about", "must be an object")
        return cls(files, about)


def _text(block: bytes) -> bytes:
    """What is in the block, if it is no more than a manifest has use for. Raises Invalid, ZstdError."""
    # The bound holds while it unpacks: a header that lies about the size gains nothing.
    text = zstandard.ZstdDecompressor().stream_reader(block).read(_UNPACKED_AT_MOST + 1)
    if len(text) > _UNPACKED_AT_MOST:
        raise _fault("", f"unpacks to more than {_UNPACKED_AT_MOST >> 20} MiB")
    containers = text.count(b"[") + text.count(b"{")
    if containers > _CONTAINERS_AT_MOST or containers + text.count(b",") > _VALUES_AT_MOST:
        raise _fault("", f"holds more values than {CHUNKS_AT_MOST} chunks of {FILES_AT_MOST} files have")
    if not text.isascii():  # as `encode` writes it: one letter beyond would make every letter take four bytes
        raise _fault("", "holds what is not ASCII")
    return text


def _chunks(body: Any) -> list[Chunk]:
    packs = body["packs"]
    for key in packs:
        segments(key)
    digests = base64.b64decode(body["digests"], validate=True)
    columns = [body[name] for name in ("lengths", "in_pack", "offsets", "stored")]
    count = len(body["lengths"])
    if count > CHUNKS_AT_MOST:
        raise ValueError(f"there are more than {CHUNKS_AT_MOST} chunks")
    if len(digests) != count * _DIGEST_BYTES or any(len(column) != count for column in columns):
        raise ValueError("its columns differ in length")
    if any(type(number) is not int or number < 0 for column in columns for number in column):
        raise ValueError("its numbers must be integers of 0 and more")
    if any(offset > _FURTHEST_BYTES for offset in columns[2]):
        raise ValueError("a chunk lies further in a pack than packs are long")
    if any(not 0 < length <= CHUNK_AT_MOST for length in columns[0]):
        raise ValueError("a chunk has 1 byte to 1 MiB")
    if any(stored > length for length, stored in zip(columns[0], columns[3], strict=True)):
        raise ValueError("a chunk takes no more room than it has bytes")
    if any(index >= len(packs) for index in columns[1]):
        raise ValueError("a chunk lies in a pack that is not named")
    return [
        Chunk(digests[at : at + _DIGEST_BYTES], length, packs[pack], offset, stored)
        for at, length, pack, offset, stored in zip(range(0, len(digests), _DIGEST_BYTES), *columns, strict=True)
    ]


def _files(rows: Any, chunks: list[Chunk]) -> Iterator[FileEntry]:
    if len(rows) > FILES_AT_MOST:
        raise ValueError(f"there are more than {FILES_AT_MOST} files")
    taken = 0
    names: set[str] = set()
    for row in rows:
        count = row["chunks"]
        if type(count) is not int or not 0 <= count <= len(chunks) - taken:
            raise ValueError("a file has more chunks than there are")
        path = check_path(row["path"])
        if path in names:
            raise ValueError(f"the path {path!r} comes twice")
        names.add(path)
        yield FileEntry(path, tuple(chunks[taken : taken + count]))
        taken += count
    if taken != len(chunks):
        raise ValueError("there are chunks of no file")
    if shared := {path for path in names if any(f"{path[:at]}" in names for at in _slashes(path))}:
        raise ValueError(f"{min(shared)!r} lies below a file")


def _slashes(path: str) -> Iterator[int]:
    return (at for at, letter in enumerate(path) if letter == "/")


def check_path(path: object) -> str:
    """A file's path below the checkpoint's folder. Raises ValueError for one that would lead anywhere else."""
    if not isinstance(path, str) or "\0" in path:
        raise ValueError("a path is text without NUL")
    parts = path.split("/")
    if _BAD_PARTS & set(parts):
        raise ValueError(f"the path {path!r} leads out of the checkpoint")
    # Encoding refuses what is no text: it has no place in JSON either.
    if len(path.encode()) > _LONGEST_PATH or any(len(part.encode()) > _LONGEST_NAME for part in parts):
        raise ValueError(f"the path {path[:80]!r} is longer than 1024 bytes, or a name in it longer than 255")
    return path


def sign(manifest: Manifest, key: Ed25519PrivateKey) -> bytes:
    """The block that is stored."""
    payload = manifest.encode()
    public = key.public_key().public_bytes_raw().hex()
    head = {"form": FORM, "key": public, "signature": key.sign(_signed(payload)).hex()}
    return json.dumps(head).encode() + b"\n" + payload


def open_signed(block: bytes, public_key: str) -> Manifest:
    """The manifest in a stored block, if the holder of `public_key` (hex) signed it.

    Raises: Invalid where it is torn, forged, signed by another or in no form that is known here.
    """
    head, newline, payload = block.partition(b"\n")
    try:
        if not newline or len(head) > _HEAD_AT_MOST:
            raise ValueError
        said = json.loads(head)
        form, signature = said["form"], bytes.fromhex(said["signature"])
    except (ValueError, TypeError, KeyError) as error:
        raise _fault("", "is no signed manifest, or was cut off") from error
    if form != FORM:
        raise _fault("/form", f"is {str(form)[:40]!r}: this release knows {FORM}")
    if not _PUBLIC_KEY.fullmatch(public_key):
        raise _fault("/key", "must be the 64 hex digits of an Ed25519 public key")
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key)).verify(signature, _signed(payload))
    except (InvalidSignature, ValueError) as error:
        raise _fault("/signature", "does not match: it was altered, or signed by another cluster") from error
    return Manifest.decode(payload)


def fetch_signed(store: Store, key: str, public_key: str) -> Manifest:
    """The manifest at `key` of a store, read no further than manifests are long.

    Raises: Invalid as `open_signed` does; FileNotFoundError, OSError of the store.
    """
    block = bytearray()
    for part in store.read(key):
        block += part
        if len(block) > PACKED_AT_MOST + _HEAD_AT_MOST:
            raise _too_large()
    return open_signed(bytes(block), public_key)


def _signed(payload: bytes) -> bytes:
    # The form is under the signature too: the same bytes in a later form are another statement.
    return FORM.encode() + b"\n" + payload


def _too_large() -> Invalid:
    return _fault("", f"is larger than a manifest may be ({PACKED_AT_MOST >> 20} MiB)")


def _fault(pointer: str, message: str) -> Invalid:
    return Invalid(Field(f"/manifest{pointer}", message))
