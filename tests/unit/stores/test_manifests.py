"""Torn, forged and hostile manifests."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from trellis.errors import Invalid
from trellis.stores import manifests
from trellis.stores.local import LocalStore
from trellis.stores.manifests import Chunk, FileEntry, Manifest, fetch_signed, open_signed, sign

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw().hex()


def a_manifest(*paths: str) -> Manifest:
    files = [
        FileEntry(
            path, (Chunk(bytes([n]) * 32, 100, "packs/p/1", n * 100, 100), Chunk(b"x" * 32, 50, "packs/p/2", 0, 9))
        )
        for n, path in enumerate(paths or ("model.bin", "deep/er/optimizer.bin"))
    ]
    return Manifest(tuple(files), {"step": 7, "metrics": {"loss": 0.5}})


def altered(change: Callable[[dict[str, Any]], Any]) -> bytes:
    body = json.loads(zstandard.ZstdDecompressor().decompress(a_manifest().encode()))
    change(body)
    return zstandard.ZstdCompressor().compress(json.dumps(body).encode())


def test_a_signed_manifest_comes_back_as_it_was() -> None:
    assert open_signed(sign(a_manifest(), KEY), PUBLIC) == a_manifest()


def test_a_manifest_that_was_cut_off_anywhere_is_refused() -> None:
    block = sign(a_manifest(), KEY)
    for length in range(len(block)):
        with pytest.raises(Invalid):
            open_signed(block[:length], PUBLIC)


def test_a_manifest_with_any_byte_changed_is_refused() -> None:
    block = sign(a_manifest(), KEY)
    start = block.index(b"\n") + 1
    for at in range(start, len(block)):
        forged = bytearray(block)
        forged[at] ^= 1
        with pytest.raises(Invalid, match="altered"):
            open_signed(bytes(forged), PUBLIC)


def test_a_manifest_that_another_signed_is_refused() -> None:
    other = Ed25519PrivateKey.from_private_bytes(bytes(32))
    with pytest.raises(Invalid, match="another cluster"):
        open_signed(sign(a_manifest(), other), PUBLIC)


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../x", "a/../../x", "a//b", "a/./b", "", "a\0b", "x/" * 512 + "x", "a/", "x" * 256, "ä" * 128],
)
def test_a_path_that_leads_out_is_refused(path: str) -> None:
    with pytest.raises(Invalid, match="path"):
        Manifest.decode(a_manifest(path).encode())


def test_a_file_below_a_file_and_a_file_twice_are_refused() -> None:
    with pytest.raises(Invalid, match="below a file"):
        Manifest.decode(a_manifest("a", "a/b").encode())
    with pytest.raises(Invalid, match="twice"):
        Manifest.decode(a_manifest("a", "a").encode())


@pytest.mark.parametrize(
    "change",
    [
        lambda b: b["packs"].__setitem__(0, "../../secret"),
        lambda b: b["lengths"].__setitem__(0, -1),
        lambda b: b["lengths"].__setitem__(0, 2**40),
        lambda b: b["lengths"].__setitem__(0, True),
        lambda b: b["offsets"].__setitem__(0, 0.5),
        lambda b: b["offsets"].__setitem__(0, 2**70),
        lambda b: b["offsets"].pop(),
        lambda b: b["in_pack"].__setitem__(0, 2),
        lambda b: b["stored"].__setitem__(0, 101),
        lambda b: b["files"].pop(),
        lambda b: b["files"][0].__setitem__("chunks", 99),
        lambda b: b["files"][0].__setitem__("path", 5),
        lambda b: b.__setitem__("digests", "%%%"),
        lambda b: b.__setitem__("about", []),
        lambda b: b.pop("packs"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(change: Callable[[dict[str, Any]], Any]) -> None:
    with pytest.raises(Invalid, match="manifest"):
        Manifest.decode(altered(change))


def test_a_manifest_that_unpacks_without_end_is_refused_before_it_does() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(600 << 20))
    assert len(bomb) < 1 << 20
    with pytest.raises(Invalid, match="192 MiB"):
        Manifest.decode(bomb)


# In a process that may have little more memory than the text itself takes.
_BOMBED = """
import resource, sys
from trellis.errors import Invalid
from trellis.stores.manifests import Manifest
resource.setrlimit(resource.RLIMIT_AS, (768 << 20, 768 << 20))
try:
    Manifest.decode(sys.stdin.buffer.read())
except Invalid as error:
    print(error)
"""


@pytest.mark.parametrize("piece", [b"[],", b"{},", b"7,"], ids=["lists", "objects", "numbers"])
def test_a_small_manifest_of_very_many_values_is_refused_before_they_take_gigabytes(piece: bytes) -> None:
    text = b'{"packs":[' + piece * (180_000_000 // len(piece)) + b"7]}"
    bomb = zstandard.ZstdCompressor().compress(text)
    assert len(bomb) < 1 << 20
    done = subprocess.run([sys.executable, "-c", _BOMBED], input=bomb, capture_output=True, check=False, timeout=60)
    assert b"more values than" in done.stdout, done.stderr


def test_a_manifest_of_more_chunks_than_there_may_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "CHUNKS_AT_MOST", 3)
    with pytest.raises(Invalid, match="more than 3 chunks"):
        Manifest.decode(a_manifest().encode())


def test_an_object_larger_than_manifests_are_is_not_read_to_its_end() -> None:
    given = []

    class Endless(LocalStore):
        def read(self, key: str) -> Iterator[bytes]:
            while True:
                given.append(key)
                yield bytes(1 << 20)

    with pytest.raises(Invalid, match="64 MiB"):
        fetch_signed(Endless(Path("/")), "manifests/x", PUBLIC)
    assert len(given) == 65
