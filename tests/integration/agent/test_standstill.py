"""Real jobs that are held still, let go on, and ended while they stand still."""

import os
import signal
from pathlib import Path

import psutil
import pytest

from agent import commands
from agent.reading import read_small
from tests.integration.agent.conftest import Node
from tests.support.agent_api import ControlPlane, a_spec, wait_until
from trellis.vocabulary import Cause, ReplicaState, StopReason

COUNTS = """
setsid sh -c 'while :; do echo child; sleep 0.02; done' &
i=0; while [ ! -e stop ]; do i=$((i+1)); echo $i; sleep 0.02; done; kill %1
"""
FORKS = "while :; do sh -c 'sleep 0.01' & sleep 0.002; done"
COUNTS_ON_TERM = "trap 'echo asked' TERM; while :; do echo tick; sleep 0.02; done"


def below_supervisor(node: Node, replica_id: str) -> list[psutil.Process]:
    """The job's processes and what keeps them in."""
    pid = int(read_small(node.home.replica(replica_id, 1).lock))
    return psutil.Process(pid).children(recursive=True)


def states(processes: list[psutil.Process]) -> set[str]:
    return {process.status() for process in processes if process.is_running() and "bwrap" not in process.name()}


def hold_still(node: Node, plane: ControlPlane, replica_id: str = "r1", checkpoint_s: int = 0) -> None:
    plane.wish_still(replica_id, checkpoint_s=checkpoint_s)
    commands.stop([(replica_id, 1)])
    wait_until(lambda: plane.states_of(replica_id)[-1:] == ["suspended"])


def begin(node: Node, plane: ControlPlane, script: str, **changes: object) -> None:
    node.run(a_spec("r1", "/bin/sh", "-c", script, **changes))
    wait_until(lambda: plane.lines("r1"))


def test_all_of_a_job_stands_still_and_goes_on_where_it_was(confined_node: Node, plane: ControlPlane) -> None:
    begin(confined_node, plane, COUNTS)
    hold_still(confined_node, plane)
    still = below_supervisor(confined_node, "r1")
    assert len(still) >= 2
    wait_until(lambda: states(still) == {psutil.STATUS_STOPPED})  # one that waits for its disk stops after that
    heard = wait_until(lambda: plane.lines("r1"))
    before = len(heard)
    plane.wish_still("r1", paused=False)
    commands.stop([("r1", 1)])
    wait_until(lambda: len(plane.lines("r1")) > before + 10)
    assert plane.states_of("r1") == ["starting", "running", "suspended", "running"]
    counted = [int(line) for line in plane.lines("r1") if line != "child"]
    assert counted == list(range(1, len(counted) + 1))
    plane.wish_end("r1", StopReason.CANCELLED, grace_s=0)
    assert plane.end_of("r1").state == ReplicaState.CANCELLED


def test_a_job_that_forks_all_the_time_comes_to_rest(confined_node: Node, plane: ControlPlane) -> None:
    begin(confined_node, plane, f"echo up; {FORKS}")
    hold_still(confined_node, plane)
    still = below_supervisor(confined_node, "r1")
    made_by_vfork = psutil.STATUS_DISK_SLEEP  # who waits for such a child, which is stopped, waits in the kernel
    assert states(still) <= {psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE, made_by_vfork}
    beats = len(plane.heartbeats)
    wait_until(lambda: len(plane.heartbeats) > beats + 3)
    assert below_supervisor(confined_node, "r1") == still


def test_a_time_limit_does_not_count_the_time_that_a_job_stands_still(node: Node, plane: ControlPlane) -> None:
    begin(node, plane, "echo up; sleep 1000", time_limit_s=2)
    hold_still(node, plane)
    beats = len(plane.heartbeats)
    wait_until(lambda: len(plane.heartbeats) > beats + 15)  # one every 0.2 s
    plane.wish_still("r1", paused=False)
    commands.stop([("r1", 1)])
    end = plane.end_of("r1")
    assert (end.state, end.cause) == (ReplicaState.TIMED_OUT, Cause.TIME_LIMIT)
    assert 1.9 < end.run_s < 4


@pytest.mark.parametrize(
    ("reason", "state", "cause"),
    [
        (StopReason.DISPLACED, ReplicaState.PREEMPTED, Cause.SUSPENDED),
        (StopReason.CANCELLED, ReplicaState.CANCELLED, Cause.CANCELLED),
    ],
)
def test_what_stands_still_is_ended_without_running_again(
    confined_node: Node, plane: ControlPlane, reason: StopReason, state: ReplicaState, cause: Cause
) -> None:
    begin(confined_node, plane, COUNTS_ON_TERM)
    hold_still(confined_node, plane)
    left = below_supervisor(confined_node, "r1")
    plane.wish_end("r1", reason, grace_s=60)
    commands.stop([("r1", 1)])
    end = plane.end_of("r1")
    assert (end.state, end.cause, end.signal) == (state, cause, signal.SIGKILL)
    assert "asked" not in plane.lines("r1")
    assert not [process for process in left if process.is_running()]


def test_what_stands_still_does_so_under_the_next_daemon(confined_node: Node, plane: ControlPlane) -> None:
    begin(confined_node, plane, COUNTS)
    hold_still(confined_node, plane)
    confined_node.daemon.stop()
    beats = len(plane.heartbeats)
    confined_node.start()
    wait_until(lambda: len(plane.heartbeats) > beats + 1)
    assert plane.heartbeats[-1].replicas[0].state == ReplicaState.SUSPENDED
    before = len(plane.lines("r1"))
    plane.wish_still("r1", paused=False)
    wait_until(lambda: len(plane.lines("r1")) > before + 5)
    assert plane.states_of("r1")[-1] == "running"


def test_a_supervisor_that_dies_takes_what_stands_still_along(confined_node: Node, plane: ControlPlane) -> None:
    begin(confined_node, plane, COUNTS)
    hold_still(confined_node, plane)
    left = below_supervisor(confined_node, "r1")
    os.kill(int(read_small(confined_node.home.replica("r1", 1).lock)), signal.SIGKILL)
    end = plane.end_of("r1")
    assert (end.state, end.cause) == (ReplicaState.LOST, Cause.NODE_LOST)
    wait_until(lambda: not [process for process in left if process.is_running()])


def test_a_lease_that_runs_out_ends_what_stands_still(make_node: object, plane: ControlPlane) -> None:
    plane.lease_s = 2.0
    node = make_node()  # type: ignore[operator]
    begin(node, plane, COUNTS)
    hold_still(node, plane)
    left = below_supervisor(node, "r1")
    plane.down = True
    wait_until(lambda: not [process for process in left if process.is_running()])


def test_what_takes_its_room_starts_after_it_is_gone(confined_node: Node, plane: ControlPlane, tmp_path: Path) -> None:
    begin(confined_node, plane, COUNTS)
    hold_still(confined_node, plane)
    left = below_supervisor(confined_node, "r1")
    confined_node.run(a_spec("r2", "/bin/sh", "-c", "echo here", after=("r1.1",)))
    assert plane.end_of("r2").state == ReplicaState.SUCCEEDED
    end = plane.end_of("r1")
    assert (end.state, end.cause) == (ReplicaState.PREEMPTED, Cause.SUSPENDED)
    assert end.at <= plane.reports["r2"][0].at
    assert not [process for process in left if process.is_running()]


def test_it_is_asked_to_save_its_state_before_it_is_held_still(confined_node: Node, plane: ControlPlane) -> None:
    script = "trap 'echo saved' USR1; echo up; while :; do sleep 0.02; done"
    begin(confined_node, plane, script, warn_signal="USR1")
    hold_still(confined_node, plane, checkpoint_s=1)
    assert plane.lines("r1") == ["up", "saved"]


def test_a_warning_comes_before_the_time_limit_to_those_who_listen(confined_node: Node, plane: ControlPlane) -> None:
    script = """
import signal, time
signal.signal(signal.SIGUSR1, lambda *_: print("warned", flush=True))
print("up", flush=True)
while True: time.sleep(0.05)
"""
    spec = a_spec(
        "r1", "/bin/sh", "-c", f"python3 -c '{script}' & wait", time_limit_s=3, warn_signal="USR1", warn_before_s=2
    )
    confined_node.run(spec)
    assert plane.end_of("r1").cause == Cause.TIME_LIMIT
    assert plane.lines("r1") == ["up", "warned"]
    assert plane.lines("r1", "s") == ["the time limit is reached in 2 s: told by USR1"]


def test_a_warning_ends_nobody_who_does_not_listen(node: Node, plane: ControlPlane) -> None:
    node.run(a_spec("r1", "/bin/sleep", "1000", time_limit_s=2, warn_signal="USR1", warn_before_s=1))
    end = plane.end_of("r1")
    assert (end.cause, end.run_s > 1.9) == (Cause.TIME_LIMIT, True)
    assert plane.lines("r1", "s") == ["the time limit is reached in 1 s: no process of it handles USR1"]
