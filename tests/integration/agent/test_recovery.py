"""What survives what: the daemon, the launcher, the supervisor and the control plane, each taken away."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agent import commands, sweep
from agent.layout import Home
from tests.integration.agent.conftest import Node
from tests.support.agent_api import ControlPlane, a_spec, wait_until
from trellis.vocabulary import Cause, ReplicaState
from trellis.wire import CUT_OFF_GRACE_S

CODE = Path(__file__).parents[3]
TICK = "for number in $(seq 1 60); do echo $number; sleep 0.05; done; exit 7"


def test_a_killed_daemon_costs_neither_a_job_nor_a_line(plane: ControlPlane, home: Path) -> None:
    plane.want(a_spec("r1", "/bin/sh", "-c", TICK))
    first = _node_process(plane, home)
    wait_until(lambda: "5" in plane.lines("r1"))
    first.kill()
    first.wait()
    second = _node_process(plane, home)
    end = plane.end_of("r1")
    second.kill()
    second.wait()
    assert (end.state, end.exit_code) == (ReplicaState.FAILED, 7)
    assert plane.lines("r1") == [str(number) for number in range(1, 61)]
    assert [report.state for report in plane.reports["r1"]] == ["starting", "running", "failed"]


def test_a_job_that_ends_while_no_daemon_lives_is_told_by_the_next(node: Node, plane: ControlPlane) -> None:
    node.run(a_spec("r1", "/bin/sh", "-c", "echo before; sleep 0.5; echo after; exit 4"))
    wait_until(lambda: "before" in plane.lines("r1"))
    node.daemon.stop()
    replica = node.home.replica("r1", 1)
    wait_until(lambda: not replica.alive())
    assert len(plane.reports["r1"]) == 2
    node.start()
    assert plane.end_of("r1").exit_code == 4
    assert plane.lines("r1") == ["before", "after"]


def test_a_second_launch_of_the_same_fence_starts_nothing(node: Node, plane: ControlPlane) -> None:
    spec = a_spec("r1", "/bin/sh", "-c", "echo once; sleep 0.3")
    for _ in range(5):
        node.run(spec)
    wait_until(lambda: "once" in plane.lines("r1"))
    assert node.daemon._launcher.launch([spec, spec]) == {}
    node.run(spec)
    plane.end_of("r1")
    assert plane.lines("r1") == ["once"]


def test_a_launch_that_comes_after_the_end_starts_nothing(node: Node, plane: ControlPlane) -> None:
    spec = a_spec("r1", "/bin/echo", "once")
    node.run(spec)
    plane.end_of("r1")
    wait_until(lambda: not list(node.home.find_replicas()))
    node.daemon._launch_specs([spec])
    assert not list(node.home.find_replicas())


def test_a_lost_launch_message_is_made_good_by_the_heartbeat(node: Node, plane: ControlPlane) -> None:
    plane.want(a_spec("r1", "/bin/true"))
    assert plane.end_of("r1").state == ReplicaState.SUCCEEDED


def test_a_killed_launcher_is_replaced_and_its_jobs_go_on(node: Node, plane: ControlPlane) -> None:
    node.run(a_spec("r1", "/bin/sh", "-c", "echo up; sleep 0.5; exit 5"))
    wait_until(lambda: "up" in plane.lines("r1"))
    old = node.daemon._launcher.pid
    assert old
    os.kill(old, signal.SIGKILL)
    node.run(a_spec("r2", "/bin/echo", "later"))
    assert plane.end_of("r2").exit_code == 0
    assert plane.end_of("r1").exit_code == 5
    assert node.daemon._launcher.pid != old


def test_a_node_that_hears_nothing_kills_its_jobs_when_the_lease_ends(
    plane: ControlPlane, make_node: Callable[..., Node]
) -> None:
    plane.lease_s = 1.5
    node = make_node()
    node.run(a_spec("r1", "/bin/sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.1; done", grace_s=1))
    wait_until(lambda: "up" in plane.lines("r1"))
    plane.down = True
    began = time.monotonic()
    replica = node.home.replica("r1", 1)
    wait_until(lambda: not replica.alive())
    assert 1.0 < time.monotonic() - began < 5.0
    plane.down = False
    end = plane.end_of("r1")
    assert (end.state, end.cause) == (ReplicaState.LOST, Cause.NODE_LOST)


def test_a_daemon_that_is_frozen_does_not_keep_its_jobs_alive(plane: ControlPlane, home: Path) -> None:
    plane.lease_s = 2.0
    plane.want(a_spec("r1", "/bin/sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.1; done"))
    daemon = _node_process(plane, home)
    wait_until(lambda: "up" in plane.lines("r1"))
    daemon.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    replica = Home(home.resolve()).replica("r1", 1)
    wait_until(lambda: not replica.alive())
    assert time.monotonic() - began < plane.lease_s + CUT_OFF_GRACE_S
    daemon.send_signal(signal.SIGCONT)
    assert plane.end_of("r1").cause == Cause.NODE_LOST
    daemon.kill()
    daemon.wait()


def test_what_happens_while_the_control_plane_is_down_arrives_in_order_and_once(
    node: Node, plane: ControlPlane
) -> None:
    node.run(*(a_spec(f"r{n}", "/bin/sh", "-c", f"echo up; sleep 0.3; seq 1 2000; exit {n}") for n in range(3)))
    wait_until(lambda: all("up" in plane.lines(f"r{n}") for n in range(3)))
    plane.down = True
    wait_until(lambda: not any(replica.alive() for replica in node.home.find_replicas()))
    plane.down = False
    for n in range(3):
        assert plane.end_of(f"r{n}").exit_code == (n or 0)
        assert plane.lines(f"r{n}") == ["up", *map(str, range(1, 2001))]


def test_a_replica_whose_reports_are_refused_does_not_hold_up_the_others(node: Node, plane: ControlPlane) -> None:
    plane.refused.add("bad-one")
    node.run(a_spec("bad-one", "/bin/true"), *(a_spec(f"r{n}", "/bin/true") for n in range(5)))
    assert {plane.end_of(f"r{n}").state for n in range(5)} == {ReplicaState.SUCCEEDED}
    assert not plane.reports["bad-one"]


def test_a_killed_supervisor_is_told_as_lost_and_takes_its_job_along(confined_node: Node, plane: ControlPlane) -> None:
    mark = f"33{os.getpid()}"
    confined_node.run(a_spec("r1", "/bin/sh", "-c", f"setsid -f sleep {mark}; echo up; sleep {mark}"))
    wait_until(lambda: "up" in plane.lines("r1"))
    replica = confined_node.home.replica("r1", 1)
    os.kill(int(replica.lock.read_text()), signal.SIGKILL)
    end = plane.end_of("r1")
    assert (end.state, end.cause) == (ReplicaState.LOST, Cause.NODE_LOST)
    wait_until(lambda: not _lives(mark))


def test_a_killed_supervisors_job_can_not_hide_behind_an_empty_environment(
    confined_node: Node, plane: ControlPlane
) -> None:
    mark = f"34{os.getpid()}"
    confined_node.run(a_spec("r1", "/bin/sh", "-c", f"env -i setsid -f sleep {mark}; echo up; sleep {mark}"))
    wait_until(lambda: "up" in plane.lines("r1"))
    os.kill(int(confined_node.home.replica("r1", 1).lock.read_text()), signal.SIGKILL)
    assert plane.end_of("r1").cause == Cause.NODE_LOST
    wait_until(lambda: not _lives(mark), within_s=5.0)


def test_an_artifact_waits_for_a_node_whose_token_is_gone(node: Node, plane: ControlPlane) -> None:
    node.run(a_spec("r1", "/bin/sh", "-c", "echo up; sleep 0.5; echo x > $TRELLIS_ARTIFACTS_DIR/model"))
    wait_until(lambda: "up" in plane.lines("r1"))
    plane.known_token = "another"
    wait_until(lambda: plane.uploads_refused)
    plane.known_token = "node-secret"
    plane.end_of("r1")
    assert plane.artifacts_at_end["r1"] == ["model"]
    assert plane.lines("r1", "s") == []


def test_a_node_that_is_stopped_ends_its_jobs_and_the_next_daemon_says_so(node: Node, plane: ControlPlane) -> None:
    node.run(
        a_spec("r1", "/bin/sleep", "1000"),
        a_spec("r2", "/bin/sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.1; done"),
    )
    wait_until(lambda: "up" in plane.lines("r2") and len(plane.reports["r1"]) == 2)
    node.daemon.stop()
    assert sweep.stop_all(node.path, 0.5) == 2
    assert not any(replica.alive() for replica in node.home.find_replicas())
    node.start()
    for name in ("r1", "r2"):
        end = plane.end_of(name)
        assert (end.state, end.cause) == (ReplicaState.LOST, Cause.NODE_STOPPED)


def test_a_node_whose_token_is_gone_joins_again(node: Node, plane: ControlPlane) -> None:
    plane.known_token = "another"
    wait_until(lambda: len(plane.descriptions) > 1)
    plane.known_token = "node-secret"
    beats = len(plane.heartbeats)
    wait_until(lambda: len(plane.heartbeats) > beats)


def test_two_daemons_can_not_share_a_home(node: Node) -> None:
    with pytest.raises(Exception, match="another node runs on"):
        Node(node.plane, node.path).start()
    commands.install(node.daemon)


def _node_process(plane: ControlPlane, home: Path, level: str = "") -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.integration.agent.node_process", plane.url, str(home), level]
    return subprocess.Popen(command, cwd=CODE, env={"PYTHONPATH": str(CODE), "PATH": "/usr/bin:/bin"})


def _lives(word: str) -> bool:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            found.append((process / "cmdline").read_bytes().split(b"\0"))
        except OSError:
            continue
    return any(word.encode() in line for line in found)


def test_points_that_were_reported_while_the_control_plane_was_away_arrive_once_each(
    node: Node, plane: ControlPlane
) -> None:
    script = "from trellis import runtime\nfor step in range(900):\n    runtime.log_metric('loss', step / 2, step=step)\nprint('done')\n"
    node.run(a_spec("r1", script=script, script_name="report.py"))
    wait_until(lambda: bool(plane.reports["r1"]))
    plane.down = True
    replica = node.home.replica("r1", 1)
    wait_until(lambda: not replica.alive(), within_s=30)
    node.daemon.stop()  # and the node's worker is started anew
    plane.down = False
    node.start()
    assert plane.end_of("r1").state == ReplicaState.SUCCEEDED
    assert [point.step for point in plane.metrics["r1"]] == list(range(900))
