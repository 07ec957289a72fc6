"""What `make bench-scheduler` says with traces, and without."""

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.fairness import GPUS, Contest, Habit
from benchmarks.logs import KTH
from benchmarks.scheduling import main
from scheduler.snapshot import Queue


def bench(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["scheduling", *arguments])
    return main()


def lines(capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, dict[str, Any]], str]:
    """What was printed by name, and the prose."""
    printed = capsys.readouterr()
    return {line["name"]: line for line in map(json.loads, printed.out.splitlines())}, printed.err


def a_log(folder: Path) -> None:
    """Three jobs on two processors: the second must wait, the third fits beside the first for 5 s."""
    (folder / "swf").mkdir()
    jobs = [(1, 0, 100, 1, 100), (2, 1, 50, 2, 60), (3, 2, 5, 1, 5)]
    rows = [
        f"{job} {at} 0 {run} {size} -1 -1 {size} {limit} -1 1 1 1 1 1 1 -1 -1" for job, at, run, size, limit in jobs
    ]
    with gzip.open(folder / "swf" / KTH, "wt") as log:
        log.write("; MaxProcs: 2\n" + "\n".join(rows) + "\n")


def a_reference(folder: Path, **told: object) -> None:
    (folder / "reference").mkdir()
    row = {"log": KTH, "policy": "easy", "estimates": "log", **told}
    (folder / "reference" / "batch_reference.jsonl").write_text(json.dumps(row) + "\n")


def test_without_traces_their_sections_are_skipped_and_say_where_to_get_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(monkeypatch, "packing", "logs") == 0
    printed, prose = lines(capsys)
    assert {name: line["missing"] for name, line in printed.items()} == {
        "packing.skipped": "openb/",
        "logs.skipped": "swf/",
    }
    assert "Parallel Workloads Archive" in prose
    assert "github.com/alibaba/clusterdata" in prose


def test_a_schedule_is_held_against_the_reference_field_by_field(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    a_log(tmp_path)
    # The starts are 0, 100 and 2: 1 * 0 + 2 * 100 + 3 * 2.
    a_reference(tmp_path, start_checksum=206, jobs=3, dropped=0, max_wait_s=99)
    assert bench(monkeypatch, "logs", "--traces", str(tmp_path)) == 0
    printed, prose = lines(capsys)
    assert printed["logs.kth_sp2.easy"]["equals_reference"] is True
    assert printed["logs.kth_sp2.fifo"]["equals_reference"] is None
    assert printed["logs.kth_sp2.default"]["longest_wait_times_easy"] == 1.0
    assert printed["logs.sdsc_blue.skipped"]["value"] is None
    assert "SDSC-BLUE" in prose


def test_what_differs_from_the_reference_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    a_log(tmp_path)
    a_reference(tmp_path, start_checksum=207, jobs=3)
    bench(monkeypatch, "logs", "--traces", str(tmp_path))
    line = lines(capsys)[0]["logs.kth_sp2.easy"]
    assert (line["equals_reference"], line["reference"]) == (False, {"start_checksum": 207})


def test_a_log_that_is_broken_fails_its_section_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "swf").mkdir()
    with gzip.open(tmp_path / "swf" / KTH, "wt") as log:
        log.write("1 2 3\n")
    assert bench(monkeypatch, "packing", "logs", "--traces", str(tmp_path)) == 1
    printed, prose = lines(capsys)
    assert "packing.skipped" in printed
    assert "line 1 has 3 fields" in prose


def test_a_folder_that_is_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        bench(monkeypatch, "logs", "--traces", str(tmp_path / "none"))
    assert "is no folder" in capsys.readouterr().err


def test_in_a_contest_what_both_had_is_what_there_was_to_have() -> None:
    contest = Contest({"one": Habit(1, 7200.0), "other": Habit(1, 7200.0)}, Queue("q", "q", policy="fair_share"))
    one, other = contest.play(hours=2)
    assert one + other == pytest.approx(GPUS * 2)
    assert one == pytest.approx(other, rel=0.005)
