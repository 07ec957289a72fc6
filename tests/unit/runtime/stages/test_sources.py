"""Files become data sets: every format, only what is new, and exactly the rest after any end."""

import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from tests.support.stage_runs import Workbench
from trellis.runtime.stages.faults import StageFailed
from trellis.runtime.stages.folders import read_dataset

NEW_FILES = {"from": {"connector": "files", "url": "raw/*.csv"}, "incremental": {"by": "files"}}
BY_DAY = {"from": {"connector": "files", "url": "raw/*.csv"}, "incremental": {"by": "watermark", "column": "day"}}
ROWS = [{"id": 1, "word": "a"}, {"id": 2, "word": '=HYPERLINK("x")<script>'}]


def a_file(bench: Workbench, name: str) -> str:
    table = pa.Table.from_pylist(ROWS)
    path = bench.file(f"raw/{name}", "")
    if name.endswith(".parquet"):
        pq.write_table(table, path)
    elif name.endswith(".arrow"):
        with pyarrow.ipc.new_file(path, table.schema) as sink:
            sink.write_table(table)
    else:
        text = "\n".join(json.dumps(row) for row in ROWS) if "jsonl" in name else None
        text = text or 'id,word\n1,a\n2,"=HYPERLINK(""x"")<script>"\n'
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return f"raw/{name}"


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.csv.gz", "a.jsonl", "a.jsonl.gz", "a.arrow"])
def test_each_format_is_read_as_it_is_and_text_passes_unharmed(bench: Workbench, name: str) -> None:
    found = bench.run("source", {"from": {"connector": "files", "url": a_file(bench, name)}})
    assert bench.rows("source") == ROWS
    assert found.columns == (("id", "BIGINT"), ("word", "VARCHAR"))


@pytest.mark.parametrize("ending", ["parquet", "csv", "csv.gz", "jsonl", "jsonl.zst", "avro", "arrow"])
def test_what_a_sink_writes_a_source_reads_again(bench: Workbench, ending: str) -> None:
    bench.give("made", {"id": [1, 2], "word": ["a", None], "share": [0.5, 1.5]})
    place = {"connector": "files", "url": f"out/one.{ending}"}
    bench.run("sink", {"to": place}, inputs=["made"])
    bench.run("source", {"from": place})
    assert bench.rows("source") == bench.rows("made")


def test_files_of_different_columns_are_matched_by_name(bench: Workbench) -> None:
    bench.file("raw/1.csv", "id,a\n1,x\n")
    bench.file("raw/2.csv", "b,id\ny,2\n")
    bench.run("source", {"from": {"connector": "files", "url": "raw/*.csv"}})
    assert bench.rows("source") == [{"id": 1, "a": "x", "b": None}, {"id": 2, "a": None, "b": "y"}]


def test_types_that_are_given_are_not_guessed(bench: Workbench) -> None:
    bench.file("raw/1.csv", "code\n007\n")
    place = {"connector": "files", "url": "raw/*.csv", "columns": {"code": "VARCHAR"}}
    bench.run("source", {"from": place})
    assert bench.rows("source") == [{"code": "007"}]


def test_a_run_reads_the_files_that_are_new_or_changed(bench: Workbench) -> None:
    bench.file("raw/1.csv", "id\n1\n")
    assert bench.run("source", NEW_FILES, run_id="r1").rows == 1
    bench.file("raw/2.csv", "id\n2\n")
    bench.run("source", NEW_FILES, run_id="r2")
    assert bench.rows("source") == [{"id": 2}]
    bench.file("raw/1.csv", "id\n1\n11\n")
    bench.run("source", NEW_FILES, run_id="r3")
    assert bench.rows("source") == [{"id": 1}, {"id": 11}]
    assert bench.run("source", NEW_FILES, run_id="r4").rows == 0
    assert read_dataset(bench.output("source")).columns == (("id", "BIGINT"),)


def test_a_run_reads_the_rows_above_its_watermark(bench: Workbench) -> None:
    bench.file("raw/1.csv", "id,day\n1,2026-01-01\n2,2026-01-02\n")
    assert bench.run("source", BY_DAY, run_id="r1").notes["watermark"] == "2026-01-02"
    bench.file("raw/1.csv", "id,day\n2,2026-01-02\n3,2026-01-03\n")
    bench.run("source", BY_DAY, run_id="r2")
    assert [row["id"] for row in bench.rows("source")] == [3]


def test_a_second_try_of_a_run_makes_the_whole_output_again(bench: Workbench) -> None:
    """The first try was done but for telling so: its state is written, its output lost with the node."""
    bench.file("raw/1.csv", "id\n1\n")
    bench.run("source", NEW_FILES, run_id="r1")
    bench.file("raw/2.csv", "id\n2\n")
    first = bench.run("source", NEW_FILES, run_id="r2")
    shutil.rmtree(bench.output("source"))
    second = bench.run("source", NEW_FILES, run_id="r2", attempt=2)
    assert (second.rows, second.digest) == (1, first.digest)


def test_a_stage_that_fails_leaves_output_and_state_as_they_were(bench: Workbench) -> None:
    bench.file("raw/1.csv", "id\n1\n")
    before = bench.run("source", NEW_FILES, run_id="r1")
    state = (bench.folder / "states/source/state.json").read_bytes()
    bench.file("raw/2.csv", "id\n-5\n")
    strict = {**NEW_FILES, "expect": [{"rule": "range", "column": "id", "min": 0}]}
    with pytest.raises(StageFailed, match="range id: 1 rows"):
        bench.run("source", strict, run_id="r2")
    assert read_dataset(bench.output("source")).digest == before.digest
    assert (bench.folder / "states/source/state.json").read_bytes() == state
    assert not list(bench.output("source").glob(".writing-*"))
    assert json.loads((bench.output("source") / "quality.json").read_text())["quality"][0]["bad"] == 1


# Runs a spec again and again, each time in a process that dies by SIGKILL at a later change of a folder, until one
# lives. Tells the digest of the output, whole, after each. Forked from a process that has done nothing but import.
_KILLS = """
import json, os, pathlib, signal, sys
from trellis.runtime.stages import stage, sources
from trellis.runtime.stages.__main__ import main
ours, output, spec = sys.argv[1:]

def doomed(place):
    left = [place]
    def count(event, arguments):
        if event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree") and ours in str(arguments):
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(count)
    os._exit(main([spec], {"TRELLIS_DATA_ROOTS": ours}))

def whole():
    manifest = pathlib.Path(output, "dataset.json")
    if not manifest.exists():
        return None
    said = json.loads(manifest.read_text())
    assert all(pathlib.Path(output, one["name"]).stat().st_size == one["bytes"] for one in said["files"])
    return said["digest"]

for place in range(200):
    child = os.fork() or doomed(place)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(json.dumps([status, whole()]))
    if status != -signal.SIGKILL:
        break
"""


@pytest.mark.slow  # some twenty processes a run, each killed at another place
def test_a_stage_that_is_killed_at_any_instant_and_tried_again_reads_exactly_the_rest(bench: Workbench) -> None:
    """Between any two changes of a folder: two runs of new files, each killed at every place, then let through."""
    kills, read, before = 0, [], None
    for number in range(2):
        bench.file(f"raw/{number}.csv", f"id\n{number}\n")
        tries = _tries_until_one_lives(bench, bench.spec("source", NEW_FILES, run_id=f"r{number}"))
        *killed, (code, after) = tries
        assert code == 0
        # Whoever read in between saw the run before, or this one; never a mixture, never nothing again.
        assert {digest for _, digest in killed} <= {before, after}
        kills, before = kills + len(killed), after
        read += [row["id"] for row in bench.rows("source")]
        assert len(list(bench.output("source").glob("*.parquet"))) == 1
        assert not list(bench.output("source").glob(".writing-*"))
    assert read == [0, 1]
    assert kills >= 15


def _tries_until_one_lives(bench: Workbench, spec: Path) -> list[tuple[int, str | None]]:
    command = [sys.executable, "-c", _KILLS, str(bench.folder), str(bench.output("source")), str(spec)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[4])}
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return [tuple(json.loads(line)) for line in done.stdout.splitlines() if line.startswith("[")]


def test_what_a_killed_writer_left_is_removed_by_the_next(bench: Workbench) -> None:
    bench.file("raw/1.csv", "id\n1\n")
    bench.run("source", NEW_FILES, run_id="r1")
    (bench.output("source") / ".writing-abc").mkdir()
    stale = bench.output("source") / "part-0123456789ab-00000.parquet"
    stale.write_bytes(b"half")
    bench.file("raw/2.csv", "id\n2\n")
    bench.run("source", NEW_FILES, run_id="r2")
    assert not stale.exists()
    assert len(list(bench.output("source").iterdir())) == 2


def test_nothing_there_is_an_error_that_names_the_place(bench: Workbench) -> None:
    with pytest.raises(StageFailed, match=r"raw/\*\.csv: there is no such file"):
        bench.run("source", NEW_FILES)


def test_a_variable_that_is_not_set_is_named(bench: Workbench) -> None:
    place = {"connector": "files", "url": "s3://b/a.csv", "credentials": {"key": "NO_SUCH_KEY"}}
    with pytest.raises(StageFailed, match="NO_SUCH_KEY is not set"):
        bench.run("source", {"from": place})


def test_a_sensor_waits_until_the_files_are_there(bench: Workbench) -> None:
    sensor = {"for": {"connector": "files", "url": "raw/*.csv"}, "least": 2, "every": "1s", "timeout": "0s"}
    bench.file("raw/1.csv", "id\n1\n")
    with pytest.raises(StageFailed, match="1 of 2 files"):
        bench.run("sensor", sensor)
    bench.file("raw/2.csv", "id\n1\n")
    assert bench.run("sensor", sensor).rows == 2
    os.utime(bench.folder / "raw/1.csv", (1, 1))
    with pytest.raises(StageFailed, match="1 of 2 files"):
        bench.run("sensor", {**sensor, "max_age": "1h"})
