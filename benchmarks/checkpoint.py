"""What saving a checkpoint takes: new content, unchanged content, and content of which little changed."""

import os
import random
import shutil
import tempfile
import time
from pathlib import Path

from benchmarks.lines import Printer
from trellis.stores.chunks import LARGEST, SMALLEST, USUAL, Saver
from trellis.stores.local import LocalStore
from trellis.stores.manifests import Manifest
from trellis.stores.packs import LEVEL, PACK_BYTES, WRITERS, read_file
from trellis.stores.worn import worn_packs

SIZE_BYTES = 2 << 30
CHANGED = 0.02
REGION_BYTES = 256 << 10
DRIFT_BYTES, DRIFT_SAVES, DRIFT_REGION_BYTES = 256 << 20, 100, 64 << 10
_BLOCK = 64 << 20


def measure(printer: Printer) -> None:
    """One file of random bytes in the page cache, on the disk that holds the working directory; 5 GiB of it are needed."""
    folder = Path(tempfile.mkdtemp(prefix=".bench-checkpoint-", dir="."))
    try:
        _measure(printer, folder)
    finally:
        shutil.rmtree(folder)


def _measure(printer: Printer, folder: Path) -> None:
    settings = {
        "size_bytes": SIZE_BYTES, "smallest": SMALLEST, "usual": USUAL, "largest": LARGEST, "pack_bytes": PACK_BYTES,
        "zstd_level": LEVEL, "writers": WRITERS, "changed": CHANGED, "region_bytes": REGION_BYTES, "digest": "blake3",
    }  # fmt: skip
    chance = random.Random(1)
    path = folder / "state.bin"
    with path.open("wb") as file:
        for _ in range(SIZE_BYTES // _BLOCK):
            file.write(os.urandom(_BLOCK))
    printer.line("checkpoint.disk_write_and_sync", _disk_mb_s(folder), "MB/s")
    store = LocalStore(folder / "store")
    base = _save(printer, "new", store, path, None, settings)
    base = _save(printer, "unchanged", store, path, base, settings)
    with path.open("r+b") as file:
        for _ in range(int(SIZE_BYTES * CHANGED) // REGION_BYTES):
            file.seek(chance.randrange(SIZE_BYTES - REGION_BYTES))
            file.write(os.urandom(REGION_BYTES))
    base = _save(printer, "scattered", store, path, base, settings)
    _insert(path, int(SIZE_BYTES * CHANGED))
    base = _save(printer, "inserted", store, path, base, settings)
    began = time.monotonic()
    read = sum(len(part) for part in read_file(store, base.files[0]))
    printer.line("checkpoint.read_and_verify", read / (time.monotonic() - began) / 1e6, "MB/s")
    _drift(printer, folder)


def _drift(printer: Printer, folder: Path) -> None:
    """What the store holds for the last three of many saves between each of which a little changed, all over."""
    chance, store, path = random.Random(1), LocalStore(folder / "drift"), folder / "drift.bin"
    path.write_bytes(os.urandom(DRIFT_BYTES))
    kept: list[Manifest] = []
    sizes: dict[str, int] = {}
    written = 0
    for turn in range(DRIFT_SAVES):
        base = kept[-1] if kept else None
        saver = Saver(store, f"packs/drift/{turn}", base, worn=worn_packs(store, base, sizes) if base else ())
        with path.open("r+b", buffering=0) as file:
            saver.add("state.bin", file.fileno())
            manifest, packs = saver.finish()
            for _ in range(int(DRIFT_BYTES * CHANGED) // DRIFT_REGION_BYTES):
                file.seek(chance.randrange(DRIFT_BYTES - DRIFT_REGION_BYTES))
                file.write(os.urandom(DRIFT_REGION_BYTES))
        sizes |= packs
        written += sum(packs.values())
        kept = [*kept, manifest][-3:]
        needed = {pack for one in kept for pack in one.packs}
        for pack in [pack for pack in sizes if pack not in needed]:
            store.delete(pack)
            del sizes[pack]
    settings = {"size_bytes": DRIFT_BYTES, "saves": DRIFT_SAVES, "changed": CHANGED, "region_bytes": DRIFT_REGION_BYTES}
    printer.line("checkpoint.drift_stored", sum(sizes.values()) / DRIFT_BYTES * 100, "percent of its size", **settings)
    printer.line("checkpoint.drift_written", written / DRIFT_BYTES * 100, "percent of its size")


def _save(
    printer: Printer, name: str, store: LocalStore, path: Path, base: Manifest | None, settings: dict[str, object]
) -> Manifest:
    os.sync()  # what was written for the measurement is not the save's to wait for
    began = time.monotonic()
    saver = Saver(store, f"packs/bench/{name}", base)
    with path.open("rb", buffering=0) as file:
        saver.add("state.bin", file.fileno())
    manifest, packs = saver.finish()
    took_s = time.monotonic() - began
    size = path.stat().st_size
    printer.line(f"checkpoint.{name}", size / took_s / 1e6, "MB/s", **settings)
    printer.line(f"checkpoint.{name}_stored", sum(packs.values()) / size * 100, "percent of its size")
    return manifest


def _insert(path: Path, count: int) -> None:
    """New bytes in the first third: everything behind them moves."""
    moved = path.with_suffix(".moved")
    with path.open("rb") as source, moved.open("wb") as target:
        _copy(source.fileno(), target.fileno(), 0, SIZE_BYTES // 3)
        target.write(os.urandom(count))
        target.flush()
        _copy(source.fileno(), target.fileno(), SIZE_BYTES // 3, SIZE_BYTES)
    moved.rename(path)


def _copy(source: int, target: int, start: int, end: int) -> None:
    while start < end:
        start += os.sendfile(target, source, start, min(_BLOCK, end - start))


def _disk_mb_s(folder: Path) -> float:
    """What the disk takes without us: the bound of all that is new and synced."""
    probe, block = folder / "probe", os.urandom(_BLOCK)
    began = time.monotonic()
    with probe.open("wb") as file:
        for _ in range(8):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    took_s = time.monotonic() - began
    probe.unlink()
    return 8 * _BLOCK / took_s / 1e6
