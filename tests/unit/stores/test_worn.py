"""What little is still needed of a pack is stored again, so that the pack can go."""

import os
import random
from pathlib import Path

import pytest

from trellis.stores.chunks import Saver
from trellis.stores.local import LocalStore
from trellis.stores.manifests import Chunk, FileEntry, Manifest
from trellis.stores.packs import PACK_BYTES, read_file
from trellis.stores.worn import WORN, worn_packs

STATE, REGION = 4 << 20, 64 << 10


@pytest.fixture(autouse=True)
def one_pack_a_save(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trellis.stores.packs.WRITERS", 1)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def save(
    store: LocalStore, path: Path, turn: int, base: Manifest | None, *, spares: bool = True
) -> tuple[Manifest, dict[str, int]]:
    """The manifest, and the new packs; with `spares` worn packs are done without."""
    worn = worn_packs(store, base, {}) if base and spares else ()
    saver = Saver(store, f"packs/p/{turn}", base, worn=worn)
    fd = os.open(path, os.O_RDONLY)
    saver.add("state", fd)
    os.close(fd)
    return saver.finish()


def drift(store: LocalStore, path: Path, saves: int, *, spares: bool) -> tuple[Manifest, int]:
    """So many saves, each with a change of 5 % somewhere; the last, and what its packs take."""
    chance = random.Random(5)
    path.write_bytes(chance.randbytes(STATE))
    sizes: dict[str, int] = {}
    base: Manifest | None = None
    for turn in range(saves):
        with path.open("r+b") as file:
            for _ in range(3):
                file.seek(chance.randrange(STATE - REGION))
                file.write(chance.randbytes(REGION))
        base, packs = save(store, path, turn, base, spares=spares)
        sizes |= packs
    assert base is not None
    return base, sum(sizes[pack] for pack in base.packs)


def test_a_state_that_drifts_does_not_hold_ever_more_than_it_is(store: LocalStore, tmp_path: Path) -> None:
    last, takes = drift(store, tmp_path / "state", 60, spares=True)
    _, would = drift(LocalStore(tmp_path / "other"), tmp_path / "same", 60, spares=False)
    assert takes < STATE / WORN
    assert takes < would / 1.3
    assert b"".join(read_file(store, last.files[0])) == (tmp_path / "state").read_bytes()


def test_what_is_worn_is_stored_again_and_referred_to_no_more(store: LocalStore, tmp_path: Path) -> None:
    path = tmp_path / "state"
    kept = os.urandom(300_000)
    path.write_bytes(kept + os.urandom(2_000_000))
    first, (pack,) = save(store, path, 1, None)
    path.write_bytes(kept + os.urandom(2_000_000))
    second, _ = save(store, path, 2, first)
    assert pack in second.packs  # nothing was worn when it was made
    third, new = save(store, path, 3, second)
    assert pack not in third.packs
    assert 0 < sum(new.values()) < 400_000
    store.delete(pack)
    assert b"".join(read_file(store, third.files[0])) == path.read_bytes()
    fourth, nothing = save(store, path, 4, third)
    assert nothing == {}
    assert [c.digest for c in fourth.chunks] == [c.digest for c in third.chunks]


def test_content_that_comes_several_times_is_stored_again_once(store: LocalStore, tmp_path: Path) -> None:
    path = tmp_path / "state"
    block = os.urandom(500_000)
    path.write_bytes(block + os.urandom(3_000_000) + block)
    first, (pack,) = save(store, path, 1, None)
    path.write_bytes(block + block)
    second, _ = save(store, path, 2, first)
    third, new = save(store, path, 3, second)
    assert pack not in third.packs
    assert sum(new.values()) < 700_000
    assert b"".join(read_file(store, third.files[0])) == block + block


def of_packs(**needed: int) -> Manifest:
    """A manifest that needs so many bytes of each."""
    chunks = [Chunk(os.urandom(32), size, f"packs/p/{name}", 0, size) for name, size in needed.items()]
    return Manifest((FileEntry("state", tuple(chunks)),))


def test_the_emptiest_go_first_and_no_more_at_once_than_there_is_room_for(store: LocalStore) -> None:
    base = of_packs(**{f"p{n}": (n + 1) << 20 for n in range(15)})
    sizes = dict.fromkeys(base.packs, PACK_BYTES)
    worn = worn_packs(store, base, sizes)
    taken = sum(chunk.stored for chunk in base.chunks if chunk.pack in worn)
    assert worn == {f"packs/p/p{n}" for n in range(len(worn))}
    assert PACK_BYTES - (15 << 20) < taken <= PACK_BYTES


def test_a_store_is_asked_only_for_sizes_that_matter_and_only_once(store: LocalStore, tmp_path: Path) -> None:
    store.write("packs/p/small", [bytes(1000)])
    store.write("packs/p/full", [bytes(200)])
    base = of_packs(small=200, full=200, large=PACK_BYTES // 2)
    sizes: dict[str, int] = {}
    assert worn_packs(store, base, sizes) == {"packs/p/small"}
    assert sizes == {"packs/p/small": 1000, "packs/p/full": 200}
    store.delete("packs/p/small")
    assert worn_packs(store, base, sizes) == {"packs/p/small"}


def test_a_pack_that_is_not_there_is_not_taken_for_a_worn_one(store: LocalStore) -> None:
    assert worn_packs(store, of_packs(gone=200), {}) == frozenset()
