"""A node whose disk a job fills to the last byte: the job alone bears it, and all that ran is told in the end."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from agent import journal
from agent.journal import Journal
from tests.integration.agent.conftest import Node
from tests.support.agent_api import ControlPlane, a_spec, wait_until
from trellis.vocabulary import ENDED_REPLICA_STATES, Cause, ReplicaState, StopReason
from trellis.wire import Report, Stop

DISK = "24m"
# Writes until nothing fits any more, holds it so for a while, and goes on printing all the time.
FILLER = """
import os, sys, time
print("before", flush=True)
with open(os.path.join(os.environ["TRELLIS_ARTIFACTS_DIR"], "all.bin"), "wb", buffering=0) as out:
    try:
        while True:
            out.write(b"x" * 65536)
    except OSError as error:
        why = error.strerror
    held = time.monotonic() + 3
    number = 0
    while time.monotonic() < held:
        try:
            out.write(b"x")
        except OSError:
            pass
        print("full", number, flush=True)
        number += 1
        time.sleep(0.01)
    out.truncate(0)
print("after:", why, number, flush=True)
sys.exit(7)
"""
NEIGHBOUR = """
import time
for number in range(80):
    print("line", number, flush=True)
    time.sleep(0.05)
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=711", "tmpfs", disk],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        pytest.skip(f"this process may mount nothing: {made.stderr.strip()}")
    for parent in disk.parents[:3]:
        parent.chmod(0o711)
    yield disk / "home"
    subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_job_that_fills_the_disk_costs_no_line_and_no_end_of_its_own_or_of_others(
    make_node: Callable[..., Node], plane: ControlPlane, home: Path
) -> None:
    node = make_node()
    node.run(
        a_spec("filler", script=FILLER, script_name="filler.py"),
        a_spec("neighbour", script=NEIGHBOUR, script_name="neighbour.py"),
    )
    filler, neighbour = plane.end_of("filler", 40), plane.end_of("neighbour", 40)
    assert (filler.state, filler.cause, filler.exit_code) == (ReplicaState.FAILED, Cause.EXIT_CODE, 7)
    assert neighbour.state is ReplicaState.SUCCEEDED
    assert plane.lines("neighbour") == [f"line {number}" for number in range(80)]
    lines = plane.lines("filler")
    count = int(lines[-1].split()[-1])
    assert lines == [
        "before",
        *(f"full {number}" for number in range(count)),
        f"after: No space left on device {count}",
    ]
    wait_until(lambda: not list(node.home.find_replicas()))
    node.run(a_spec("next", "/bin/true"))
    assert plane.end_of("next").state is ReplicaState.SUCCEEDED


def test_what_a_job_leaves_of_a_full_disk_is_cleared_and_the_next_one_runs(
    make_node: Callable[..., Node], plane: ControlPlane, home: Path
) -> None:
    node = make_node()
    node.run(a_spec("hog", "/bin/sh", "-c", "cat /dev/zero > fill; echo told; exit 5"))
    hog = plane.end_of("hog", 40)
    assert (hog.state, hog.cause, hog.exit_code) == (ReplicaState.FAILED, Cause.EXIT_CODE, 5)
    assert plane.lines("hog") == ["told"]
    wait_until(lambda: not list(node.home.find_replicas()))
    node.run(a_spec("next", "/bin/sh", "-c", "head -c 8000000 /dev/zero > room; echo fits"))
    assert plane.end_of("next").state is ReplicaState.SUCCEEDED
    assert plane.lines("next") == ["fits"]


def test_the_end_of_a_job_whose_artifacts_fill_the_disk_is_told_and_says_what_was_lost(
    make_node: Callable[..., Node], plane: ControlPlane, home: Path
) -> None:
    node = make_node()
    # Nothing but what is to be stored is there to be cleared away, and it is more than the node ever has room for.
    fill = "echo first; sleep 0.5; cat /dev/zero > $TRELLIS_ARTIFACTS_DIR/all; head -c 100000 /dev/zero | tr '\\0' x"
    node.run(a_spec("hoard", "/bin/sh", "-c", fill))
    end = plane.end_of("hoard", 40)
    assert end.state is ReplicaState.SUCCEEDED
    assert "the end of its log is lost" in end.message
    assert plane.lines("hoard")[0] == "first"
    assert plane.artifacts["hoard"].keys() == {"all"}
    wait_until(lambda: not list(node.home.find_replicas()))
    node.run(a_spec("next", "/bin/true"))
    assert plane.end_of("next").state is ReplicaState.SUCCEEDED


def test_a_job_that_holds_the_disk_full_can_be_ended_and_so_can_its_neighbour(
    make_node: Callable[..., Node], plane: ControlPlane, home: Path
) -> None:
    node = make_node()
    node.run(a_spec("neighbour", "/bin/sh", "-c", "echo begun; while :; do sleep 1; done"))
    wait_until(lambda: plane.lines("neighbour"))
    node.run(a_spec("hog", "/bin/sh", "-c", "cat /dev/zero > fill; while :; do echo >> fill; sleep 0.05; done"))
    wait_until(lambda: not os.statvfs(home).f_bavail)
    for name in ("hog", "neighbour"):
        plane.stops[name] = Stop(name, 1, StopReason.CANCELLED, 1)
    assert plane.end_of("hog", 40).state in ENDED_REPLICA_STATES
    assert plane.end_of("neighbour", 40).state in ENDED_REPLICA_STATES


def test_a_journal_that_has_grown_keeps_room_for_the_end_on_a_disk_that_fills_up(home: Path) -> None:
    home.mkdir()
    book = Journal(home / "journal")
    for number in range(1, 25):
        book.append(Report("r", 1, 0, ReplicaState.RUNNING, "2026-01-01T00:00:00+00:00", message="x" * 100))
        with (home / "fill").open("ab", buffering=0) as fill, suppress(OSError):
            while number >= 8:
                fill.write(b"x" * 4096)
    assert book.settle()
    (home / "fill").unlink()
    assert len(journal.read(home / "journal", 0)) == 24
    book.close()
