"""Cutting, comparing, packing, and reading back."""

import errno
import os
import random
import resource
from collections.abc import Iterable
from pathlib import Path
from threading import Event, Timer

import pytest
import zstandard
from blake3 import blake3

from trellis.stores.base import Written
from trellis.stores.chunks import LARGEST, LARGEST_BYTES, Changed, Saver, Unsavable
from trellis.stores.local import LocalStore
from trellis.stores.manifests import Chunk, FileEntry, Manifest
from trellis.stores.packs import CorruptChunk, read_file

SIZE = 6 << 20


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def save(
    store: LocalStore, files: dict[str, bytes], folder: Path, base: Manifest | None = None
) -> tuple[Manifest, int]:
    """The manifest, and how many bytes the store took for it."""
    saver = Saver(store, f"packs/p/{os.urandom(4).hex()}", base)
    for name, content in files.items():
        path = folder / "source"
        path.write_bytes(content)
        fd = os.open(path, os.O_RDONLY)
        saver.add(name, fd)
        os.close(fd)
    manifest, packs = saver.finish()
    assert {key: store.head(key) for key in packs} == packs
    return manifest, sum(packs.values())


def contents(store: LocalStore, manifest: Manifest) -> dict[str, bytes]:
    return {file.path: b"".join(read_file(store, file)) for file in manifest.files}


@pytest.mark.parametrize("size", [0, 1, 16 << 10, (256 << 10) + 1, 9 << 20])
def test_a_file_of_any_size_comes_back_as_it_was(store: LocalStore, tmp_path: Path, size: int) -> None:
    manifest, _ = save(store, {"a/b": noise(size)}, tmp_path)
    assert contents(store, manifest) == {"a/b": noise(size)}
    assert manifest.size_bytes == size


def test_what_did_not_change_is_stored_once(store: LocalStore, tmp_path: Path) -> None:
    first, stored = save(store, {"a": noise(SIZE), "b": noise(SIZE)}, tmp_path)
    assert stored == SIZE  # the second file is the first under another name
    second, stored = save(store, {"renamed": noise(SIZE)}, tmp_path, first)
    assert stored == 0
    assert contents(store, second) == {"renamed": noise(SIZE)}


def test_an_insertion_costs_the_chunks_around_it(store: LocalStore, tmp_path: Path) -> None:
    before = noise(SIZE)
    after = before[: SIZE // 3] + b"inserted" + before[SIZE // 3 :]
    first, _ = save(store, {"a": before}, tmp_path)
    second, stored = save(store, {"a": after}, tmp_path, first)
    assert 0 < stored < 600 << 10
    assert contents(store, second) == {"a": after}


def test_changes_all_over_the_place_cost_little_more_than_themselves(store: LocalStore, tmp_path: Path) -> None:
    before = noise(64 << 20)
    changed = bytearray(before)
    for at in range(5 << 20, 64 << 20, 12 << 20):
        changed[at : at + (256 << 10)] = noise(256 << 10, at)
    first, _ = save(store, {"a": before}, tmp_path)
    second, stored = save(store, {"a": bytes(changed)}, tmp_path, first)
    assert 5 * (256 << 10) <= stored < 1.7 * 5 * (256 << 10)
    assert contents(store, second) == {"a": bytes(changed)}


def test_what_can_be_compressed_is(store: LocalStore, tmp_path: Path) -> None:
    text = b"".join(b"line %d of a log\n" % n for n in range(200_000))
    manifest, stored = save(store, {"log": text, "zeros": bytes(SIZE)}, tmp_path)
    assert stored < len(text) / 3
    assert contents(store, manifest) == {"log": text, "zeros": bytes(SIZE)}


def test_a_file_that_is_written_to_meanwhile_is_noticed(store: LocalStore, tmp_path: Path) -> None:
    path = tmp_path / "grows"
    path.write_bytes(noise(SIZE))
    fd = os.open(path, os.O_RDONLY)

    class Busy(Saver):
        def _look(self, fd: int, offset: int, size: int) -> memoryview:
            os.truncate(path, 1 << 20)
            return super()._look(fd, offset, size)

    saver = Busy(store, "packs/p/1")
    with pytest.raises(Changed):
        saver.add("grows", fd)
    saver.abandon()
    os.close(fd)
    assert list(store.find("packs")) == []


def test_a_full_store_is_told_and_nothing_is_left_of_the_attempt(tmp_path: Path) -> None:
    class Full(LocalStore):
        def write(self, key: str, parts: Iterable[bytes]) -> Written:
            for number, _ in enumerate(parts):
                if key.endswith("-1") and number == 3:
                    raise OSError(errno.ENOSPC, "no space left on device")
            return super().write(key, [b"x"])

    store = Full(tmp_path / "store")
    with pytest.raises(OSError, match="no space"):
        save(store, {"a": noise(150 << 20)}, tmp_path)
    assert list(store.find("packs")) == []


@pytest.mark.parametrize("harm", ["flip", "cut", "gone"])
def test_a_damaged_pack_is_never_given_out_as_good(store: LocalStore, tmp_path: Path, harm: str) -> None:
    manifest, _ = save(store, {"a": noise(SIZE)}, tmp_path)
    pack = tmp_path / "store" / manifest.packs[0]
    content = bytearray(pack.read_bytes())
    content[len(content) // 2] ^= 1
    if harm == "gone":
        pack.unlink()
    else:
        pack.write_bytes(content if harm == "flip" else content[: len(content) // 2])
    with pytest.raises(CorruptChunk, match=r"a: .*packs/p/"):
        contents(store, manifest)


def test_a_chunk_that_unpacks_to_more_than_it_should_is_refused_before_it_does(store: LocalStore) -> None:
    bomb = zstandard.ZstdCompressor(level=19).compress(bytes(400 << 20))
    written = store.write("packs/p/bomb", [bomb])
    file = FileEntry("a", (Chunk(blake3(b"").digest(), 1 << 20, "packs/p/bomb", 0, written.size_bytes),))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CorruptChunk, match="damaged"):
        list(read_file(store, file))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10  # KiB


@pytest.mark.parametrize("name", ["\udcff", "x/" * 512 + "x"])
def test_a_name_that_no_manifest_takes_is_refused_before_anything_is_stored(store: LocalStore, name: str) -> None:
    fd = os.open("/dev/null", os.O_RDONLY)
    saver = Saver(store, "packs/p/1")
    with pytest.raises(Unsavable, match="path"):
        saver.add(name, fd)
    saver.abandon()
    os.close(fd)


def test_a_file_without_end_is_refused_before_it_is_read(store: LocalStore, tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(LARGEST_BYTES + 1)
    fd = os.open(tmp_path / "sparse", os.O_RDONLY)
    saver = Saver(store, "packs/p/1")
    with pytest.raises(Unsavable, match="512 GiB"):
        saver.add("sparse", fd)
    saver.abandon()
    os.close(fd)


def test_more_chunks_than_a_manifest_takes_are_refused_before_all_is_stored(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trellis.stores.chunks.CHUNKS_AT_MOST", 3)
    (tmp_path / "large").write_bytes(os.urandom(8 * LARGEST))
    fd = os.open(tmp_path / "large", os.O_RDONLY)
    saver = Saver(store, "packs/p/1")
    with pytest.raises(Unsavable, match="3 chunks"):
        saver.add("large", fd)
    assert saver.new_bytes <= 4 * LARGEST
    saver.abandon()
    os.close(fd)
    assert list(store.find("packs")) == []


def test_a_save_that_is_called_off_ends_within_a_file(store: LocalStore, tmp_path: Path) -> None:
    with (tmp_path / "long").open("wb") as file:
        file.truncate(100 << 30)
    fd = os.open(tmp_path / "long", os.O_RDONLY)
    called_off = Event()
    saver = Saver(store, "packs/p/1", called_off=called_off)
    Timer(0.1, called_off.set).start()
    with pytest.raises(Changed, match="called off"):
        saver.add("long", fd)
    saver.abandon()
    os.close(fd)
    assert list(store.find("packs")) == []
