"""A supervisor process that serves one replica after the other: what it keeps of one must not meet the next."""

import os
import signal
from pathlib import Path

import pytest

from agent import commands
from agent.layout import Home
from tests.integration.agent.conftest import Node
from tests.support.agent_api import ControlPlane, a_spec, rests, wait_until
from trellis.vocabulary import ReplicaState, StopReason
from trellis.wire import Report

HOLD = 'echo up; while [ ! -e "$TRELLIS_ARTIFACTS_DIR/go" ]; do sleep 0.02; done; '


def _run(node: Node, plane: ControlPlane, name: str, then: str = "exit 0") -> tuple[int, Report]:
    """Run a job that waits until we have looked at it; its supervisor's process id, and its end."""
    pid = _begin(node, plane, name, then)
    _let_end(node, name)
    end = plane.end_of(name)
    wait_until(lambda: not node.home.replica(name, 1).alive() and rests(pid))
    return pid, end


def _begin(node: Node, plane: ControlPlane, name: str, then: str = "exit 0") -> int:
    node.run(a_spec(name, "/bin/sh", "-c", HOLD + then))
    wait_until(lambda: "up" in plane.lines(name))
    return _supervisor(node.home, name)


def _let_end(node: Node, name: str) -> None:
    (node.home.replica(name, 1).artifacts / "go").touch()


def _supervisor(home: Home, name: str) -> int:
    return int(home.replica(name, 1).lock.read_text())


def _lives(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_one_process_serves_one_replica_after_the_other(node: Node, plane: ControlPlane) -> None:
    first = _run(node, plane, "r1")[0]
    assert {_run(node, plane, f"r{n}")[0] for n in range(2, 5)} == {first}


def test_a_process_serves_no_two_at_a_time(node: Node, plane: ControlPlane) -> None:
    pids = [_begin(node, plane, f"r{n}") for n in range(3)]
    assert len(set(pids)) == 3
    for n in range(3):
        _let_end(node, f"r{n}")
        assert plane.end_of(f"r{n}").state == ReplicaState.SUCCEEDED


def test_what_a_replica_used_is_its_own_and_not_that_of_the_one_before(
    confined_node: Node, plane: ControlPlane
) -> None:
    burn = "python3 -c 'kept = bytearray(90_000_000); import time\nwhile time.process_time() < 0.4: pass'"
    first, heavy = _run(confined_node, plane, "r1", burn)
    second, light = _run(confined_node, plane, "r2")
    assert first == second
    assert (heavy.cpu_s > 0.4, heavy.peak_memory_bytes > 90_000_000) == (True, True)
    assert (light.cpu_s < 0.4, light.peak_memory_bytes < 90_000_000) == (True, True)


def test_no_descriptor_and_no_child_is_left_when_the_next_replica_comes(
    confined_node: Node, plane: ControlPlane
) -> None:
    pid = _run(confined_node, plane, "r1")[0]
    before = _descriptors(pid)
    for n in range(2, 6):
        assert _run(confined_node, plane, f"r{n}")[0] == pid
    assert _descriptors(pid) == before
    assert Path(f"/proc/{pid}/task/{pid}/children").read_text() == ""


def _descriptors(pid: int) -> list[str]:
    return sorted(fd.name for fd in Path(f"/proc/{pid}/fd").iterdir())


@pytest.mark.parametrize("reason", [StopReason.CANCELLED, StopReason.STALE])
def test_a_process_whose_replica_had_to_be_ended_serves_no_other(
    node: Node, plane: ControlPlane, reason: StopReason
) -> None:
    pid = _begin(node, plane, "r1")
    plane.wish_end("r1", reason)
    commands.stop([("r1", 1)])
    wait_until(lambda: not _lives(pid))
    assert _run(node, plane, "r2")[0] != pid


def test_a_process_whose_replica_could_not_start_serves_no_other(node: Node, plane: ControlPlane) -> None:
    node.run(a_spec("r1", "/bin/echo", "a\0b"))
    plane.end_of("r1")
    wait_until(lambda: len(list(node.home.supervisors.iterdir())) == 0)


def test_a_wish_for_one_replica_does_not_end_the_next(node: Node, plane: ControlPlane) -> None:
    pid = _run(node, plane, "r1")[0]
    os.kill(pid, signal.SIGUSR1)  # as for r1, too late
    later = _begin(node, plane, "r2")
    _let_end(node, "r2")
    assert plane.end_of("r2").state == ReplicaState.SUCCEEDED
    assert later == pid


def test_those_that_stand_by_end_with_the_launcher_and_those_at_work_go_on(node: Node, plane: ControlPlane) -> None:
    busy = _begin(node, plane, "r1", "exit 5")
    spare = _run(node, plane, "r2")[0]
    assert spare != busy
    launcher = node.daemon._launcher.pid
    assert launcher
    os.kill(launcher, signal.SIGKILL)
    wait_until(lambda: not _lives(spare))
    assert _lives(busy)
    _let_end(node, "r1")
    assert plane.end_of("r1").exit_code == 5
    wait_until(lambda: not _lives(busy))


def test_those_that_stand_by_end_when_the_daemon_stops(node: Node, plane: ControlPlane) -> None:
    pid = _run(node, plane, "r1")[0]
    assert _lives(pid)
    node.daemon.stop()
    wait_until(lambda: not _lives(pid))
    node.start()


def test_one_that_is_killed_standing_by_costs_no_replica(node: Node, plane: ControlPlane) -> None:
    pid = _run(node, plane, "r1")[0]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not _lives(pid))
    other, end = _run(node, plane, "r2")
    assert (other != pid, end.state) == (True, ReplicaState.SUCCEEDED)
