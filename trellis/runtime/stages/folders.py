"""A data set: a folder of Parquet files and `dataset.json`, which alone says which files belong to it.

New files are written beside the old ones under names of their own; renaming `dataset.json` is the one step in which
the data set changes. Who reads through it sees the old data or the new, never a mixture, and a writer that was
killed leaves files behind that nobody names; the next one removes them.
"""

import hashlib
import json
import re
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from trellis.runtime.stages.faults import StageFailed

MANIFEST = "dataset.json"
QUARANTINE = "quarantine"
_PART = re.compile(r"part-[0-9a-f]{12}-\d{5}\.parquet")
Column = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a data set."""

    name: str
    rows: int
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Dataset:
    """What `dataset.json` says. Types are DuckDB's names; `notes` holds lineage, quality, watermark and the like."""

    folder: Path
    parts: tuple[Part, ...]
    columns: tuple[Column, ...]
    digest: str
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def paths(self) -> list[str]:
        """Where its parts lie."""
        return [str(self.folder / part.name) for part in self.parts]

    @property
    def rows(self) -> int:
        """Those of all parts."""
        return sum(part.rows for part in self.parts)

    @property
    def size_bytes(self) -> int:
        """What all parts take."""
        return sum(part.size_bytes for part in self.parts)


def read_dataset(folder: Path) -> Dataset:
    """The data set in `folder`. Raises StageFailed where there is none, or where what it names is not there."""
    try:
        said = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        parts = tuple(Part(one["name"], one["rows"], one["bytes"], one["sha256"]) for one in said["files"])
        columns = tuple((column["name"], column["type"]) for column in said["schema"])
        found = Dataset(folder, parts, columns, said["digest"], said)
    except FileNotFoundError as error:
        raise StageFailed(f"{folder} holds no data set: the stage before has not succeeded") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StageFailed(f"{folder / MANIFEST} can't be read: {error!r}") from error
    for part in found.parts:
        # The names come from another job: none of them may lead out of the folder.
        if not _PART.fullmatch(part.name):
            raise StageFailed(f"{folder / MANIFEST} names {part.name[:80]!r}, which is no part of a data set")
        if not (folder / part.name).is_file() or (folder / part.name).is_symlink():
            raise StageFailed(f"{folder / part.name} is missing, or no plain file")
    return found


class Draft:
    """A data set in the making, beside the one it will take the place of."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.token = secrets.token_hex(6)
        self.beside = folder / f".writing-{self.token}"
        self._count = 0

    def __enter__(self) -> Self:
        self.beside.mkdir(parents=True)
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.beside, ignore_errors=True)

    def new_path(self) -> Path:
        """Where the next part is to be written."""
        self._count += 1
        return self.beside / f"part-{self.token}-{self._count - 1:05d}.parquet"

    def new_aside(self) -> Path:
        """Where rows that are put aside are to be written."""
        folder = self.beside / QUARANTINE
        folder.mkdir(exist_ok=True)
        return folder / f"part-{self.token}-00000.parquet"

    def finish(self, rows: Mapping[str, int], columns: Sequence[Column], notes: Mapping[str, Any]) -> Dataset:
        """Take the place of what was there, in one step. `rows` counts those of each part by its name."""
        parts = tuple(
            Part(path.name, rows[path.name], path.stat().st_size, file_digest(path))
            for path in (self.beside / name for name in rows)
        )
        digest = hashlib.sha256(json.dumps([list(columns), [part.sha256 for part in parts]]).encode()).hexdigest()
        said = {
            "version": 1,
            **notes,
            "files": [{"name": p.name, "rows": p.rows, "bytes": p.size_bytes, "sha256": p.sha256} for p in parts],
            "schema": [{"name": name, "type": kind} for name, kind in columns],
            "rows": sum(part.rows for part in parts),
            "bytes": sum(part.size_bytes for part in parts),
            "digest": digest,
        }
        for part in parts:
            (self.beside / part.name).rename(self.folder / part.name)
        for path in (self.beside / QUARANTINE).glob("part-*"):
            (self.folder / QUARANTINE).mkdir(exist_ok=True)
            path.rename(self.folder / QUARANTINE / path.name)
        replace_json(self.folder / MANIFEST, said)
        self._sweep()
        return Dataset(self.folder, parts, tuple(columns), digest, said)

    def _sweep(self) -> None:
        """Remove what earlier drafts left: parts of other tokens, and folders of writers that were killed."""
        for folder in (self.folder, self.folder / QUARANTINE):
            for entry in folder.iterdir() if folder.is_dir() else ():
                if _PART.fullmatch(entry.name) and self.token not in entry.name:
                    entry.unlink(missing_ok=True)
                elif entry.name.startswith(".writing-"):
                    shutil.rmtree(entry, ignore_errors=True)


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def replace_json(path: Path, value: object) -> None:
    """Write JSON beside `path` and rename it there: readers see the old or the new, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        half.write_text(json.dumps(value, indent=1), encoding="utf-8")
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)
