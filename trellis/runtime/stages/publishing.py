"""Files that a sink writes: one file replaced in one step, or a folder whose list says which files belong to it.

`trellis.json` in such a folder is replaced last, in one step (a rename; one PUT of an object store): it names the
files of the data set and the runs that have been applied. The files of the list before stay until the next
run, for those who are still reading them.
"""

import hashlib
import json
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from trellis.runtime.stages.connectors import Files
from trellis.runtime.stages.definitions import Sink
from trellis.runtime.stages.engine import quoted
from trellis.runtime.stages.faults import StageFailed
from trellis.runtime.stages.formats import Relation, read_files, write_file
from trellis.runtime.stages.places import Place, saying
from trellis.runtime.stages.spec import Surroundings

LIST = "trellis.json"
_KEPT_RUNS = 1000
_ENDINGS = {"parquet": ".parquet", "csv": ".csv", "jsonl": ".jsonl", "avro": ".avro", "arrow": ".arrow"}


@dataclass(frozen=True, slots=True)
class Publication:
    """For which run something is written (it counts once), and a folder to prepare it in."""

    run: str
    scratch: Path


def publish(
    connection: duckdb.DuckDBPyConnection, rows: Relation, sink: Sink, around: Surroundings, once: Publication
) -> bool:
    """Write files; False where an earlier try of the run had done so. Raises StageFailed; nothing changed then."""
    assert isinstance(sink.connector, Files)
    place = Place(sink.connector, around)
    if sink.connector.names_a_file:
        name = place.path.rsplit("/", 1)[-1]
        near = once.scratch / name
        write_file(rows, sink.connector, near)
        with saying(sink.connector.url):
            _put(place, near, place.path)
        return True
    with saying(sink.connector.url):
        listed = _read_list(place)
    if once.run in listed["runs"]:
        return False
    _add(connection, rows, sink, place, listed, once)
    return True


def _add(
    connection: duckdb.DuckDBPyConnection,
    rows: Relation,
    sink: Sink,
    place: Place,
    listed: dict[str, Any],
    once: Publication,
) -> None:
    files, earlier = place.files, list(listed["files"])
    if sink.mode == "upsert":
        rows = _merged(connection, rows, sink, [_fetch(place, name, once.scratch) for name in earlier])
    # A name that no other try has: what a killed one left is never mistaken for this.
    token = hashlib.sha256(f"{once.run}{secrets.token_hex(8)}".encode()).hexdigest()[:16]
    name = f"part-{token}{_ENDINGS[files.format]}"
    write_file(rows, files, once.scratch / name)
    with saying(files.url):
        _put(place, once.scratch / name, f"{place.path.rstrip('/')}/{name}")
        names = [*earlier, name] if sink.mode == "append" else [name]
        runs = [*listed["runs"], once.run][-_KEPT_RUNS:]
        new = {"version": 1, "format": files.format, "files": names, "before": earlier, "runs": runs}
        near = once.scratch / LIST
        near.write_text(json.dumps(new, indent=1), encoding="utf-8")
        _put(place, near, f"{place.path.rstrip('/')}/{LIST}")
        _sweep(place, {*names, *earlier})


def _merged(connection: duckdb.DuckDBPyConnection, rows: Relation, sink: Sink, earlier: Sequence[Path]) -> Relation:
    """What was there and is not replaced by key, and the new."""
    assert isinstance(sink.connector, Files)
    keys = ", ".join(quoted(name) for name in sink.key)
    twice = rows.aggregate(f"{keys}, count(*) AS met", keys).filter("met > 1").aggregate("count(*)").fetchall()[0][0]
    if twice:
        raise StageFailed(f"{twice} keys ({', '.join(sink.key)}) come more than once: which row counts?")
    if not earlier:
        return rows
    there = read_files(connection, sink.connector, earlier)
    missing = [name for name in sink.key if name not in there.columns]
    if missing:
        raise StageFailed(f"what is there has no column {', '.join(missing)} to be the key")
    there.create_view("rows_there")
    rows.create_view("rows_new")
    met = " AND ".join(f"n.{quoted(name)} IS NOT DISTINCT FROM t.{quoted(name)}" for name in sink.key)
    return connection.sql(
        f"SELECT * FROM rows_there t WHERE NOT EXISTS (SELECT 1 FROM rows_new n WHERE {met}) "
        "UNION ALL BY NAME SELECT * FROM rows_new"
    )


def _fetch(place: Place, name: str, scratch: Path) -> Path:
    near = scratch / f"there-{name}"
    with saying(name):
        place.system.get_file(f"{place.path.rstrip('/')}/{name}", str(near))
    return near


def _read_list(place: Place) -> dict[str, Any]:
    path = f"{place.path.rstrip('/')}/{LIST}"
    try:
        said = json.loads(place.system.cat_file(path))
    except FileNotFoundError:
        return {"files": [], "runs": []}
    names = said.get("files", [])
    if said.get("version") != 1 or any("/" in name or not name.startswith("part-") for name in names):
        raise StageFailed(f"{path} was not written by a sink: name a folder of its own")
    if said["format"] != place.files.format:
        raise StageFailed(f"{path} lists {said['format']} files, and this sink writes {place.files.format}")
    return {"files": names, "runs": said.get("runs", [])}


def _put(place: Place, near: Path, path: str) -> None:
    """One file in its place, whole or not at all: renamed there, or one object."""
    if not place.files.local:
        place.system.put_file(str(near), path)
        return
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        shutil.copyfile(near, beside)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def _sweep(place: Place, kept: set[str]) -> None:
    """Remove parts that neither this list nor the one before names."""
    for path in place.system.ls(place.path, detail=False):
        name = str(path).rsplit("/", 1)[-1]
        if name.startswith("part-") and name not in kept:
            place.system.rm_file(path)
