"""Replicas in containers of a real engine: what they see, what they may, and what they outlive."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.containers.body import FENCE, HOME, REPLICA
from agent.containers.enclosure import folder
from agent.containers.engine import Engine
from tests.integration.agent.conftest import Node
from tests.support.agent_api import ControlPlane, a_spec, wait_until
from tests.support.engine import IMAGE, TestEngine, make_python_image
from trellis.vocabulary import Cause, ExecutorKind, HangAction, NetworkPolicy, PullPolicy, ReplicaState, StopReason
from trellis.wire import Container, ReplicaSpec

TICK = "i=0; while [ $i -lt 60 ]; do i=$((i + 1)); echo $i; echo e$i >&2; sleep 0.05; done; exit 7"
HOLD = 'echo up; while [ ! -e "$TRELLIS_ARTIFACTS_DIR/go" ]; do sleep 0.05; done; '


@pytest.fixture
def engine(container_engine: TestEngine) -> TestEngine:
    return container_engine


@pytest.fixture
def node(engine: TestEngine, make_node: Callable[..., Node]) -> Node:
    return make_node(container_socket=engine.socket)


def contained(script: str, replica_id: str = "r1", **changes: Any) -> ReplicaSpec:
    wanted = changes.pop("container", Container(IMAGE))
    return a_spec(
        replica_id, "/bin/sh", "-c", script, executor=ExecutorKind.CONTAINER, container=wanted, **changes
    )  # fmt: skip


def run(node: Node, plane: ControlPlane, script: str, **changes: Any) -> list[str]:
    """What a job that ends well prints."""
    node.run(contained(script, **changes))
    end = plane.end_of("r1")
    assert end.state is ReplicaState.SUCCEEDED, (end, plane.logs["r1"])
    return plane.lines("r1")


def kill_supervisor(node: Node, name: str = "r1") -> None:
    replica = node.home.replica(name, 1)
    os.kill(int(replica.lock.read_text()), signal.SIGKILL)


def test_a_node_says_that_it_runs_containers(node: Node, plane: ControlPlane, engine: TestEngine) -> None:
    said = plane.descriptions[-1]
    assert ExecutorKind.CONTAINER in said.executors
    assert f"containers by the engine at {engine.socket}" in said.isolation_detail


def test_a_node_without_an_engine_says_so_when_one_was_named(
    make_node: Callable[..., Node], plane: ControlPlane
) -> None:
    make_node(container_socket="/nowhere/engine.sock").run(contained("true"))
    assert plane.descriptions[-1].executors == (ExecutorKind.PROCESS,)
    assert "not containers: /nowhere/engine.sock does not answer" in plane.descriptions[-1].isolation_detail
    end = plane.end_of("r1")
    assert (end.cause, end.message) == (Cause.START_FAILED, "this node has no container engine")


def test_a_job_has_no_rights_and_no_way_to_more(node: Node, plane: ControlPlane) -> None:
    said = "\n".join(run(node, plane, "id -u; id -g; cat /proc/self/status"))
    uid = str(node.daemon._take_home().site.user)
    assert said.startswith(f"{uid}\n{uid}\n")
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert f"{name}:\t0000000000000000" in said
    assert "NoNewPrivs:\t1" in said
    assert "Seccomp:\t2" in said


def test_a_job_writes_into_its_own_folders_and_nowhere_else(node: Node, plane: ControlPlane) -> None:
    places = "/job/work /job/artifacts /tmp /dev/shm / /bin /etc /opt/trellis /opt/trellis/trellis /job /sys /proc/sys/kernel"
    said = run(node, plane, f"for place in {places}; do touch $place/x 2>/dev/null && echo $place; done; true")
    assert said == ["/job/work", "/job/artifacts", "/tmp", "/dev/shm"]
    assert plane.artifacts_at_end["r1"] == ["x"]


def test_a_root_that_may_be_written_to_is_still_somebody_elses(node: Node, plane: ControlPlane) -> None:
    said = run(node, plane, "touch /bin/x 2>&1; true", container=Container(IMAGE, read_only_root=False))
    assert "Permission denied" in said[0]


def test_a_job_sees_no_engine_no_host_and_no_other_devices(node: Node, plane: ControlPlane, engine: TestEngine) -> None:
    said = run(
        node, plane, f"ls {engine.socket} /var/run/docker.sock {node.home.path} 2>&1; ls /sys/class/net /dev; true"
    )
    assert sum("No such file" in line for line in said) == 3
    assert not {"eth0", "mem", "kmsg", "sda", "vda", "fuse"} & set(said)
    assert "lo" in said


def test_a_job_sees_no_other_jobs_processes_or_files(node: Node, plane: ControlPlane) -> None:
    node.run(contained("echo secret > mine; echo up; sleep 60", "neighbour"))
    wait_until(lambda: "up" in plane.lines("neighbour"))
    said = run(node, plane, "cat /proc/[0-9]*/cmdline; ls /job /job/work; kill -9 -1; true")
    assert "secret" not in " ".join(said)
    assert [line for line in said if "sleep" in line] == []
    assert plane.states_of("neighbour") == ["starting", "running"]
    plane.wish_end("neighbour", StopReason.CANCELLED, grace_s=0)
    plane.end_of("neighbour")


def test_links_among_the_artifacts_lead_nowhere(node: Node, plane: ControlPlane) -> None:
    script = (
        "cd $TRELLIS_ARTIFACTS_DIR; ln -s /etc/shadow shadow; ln -s ../../.. up; ln -s /job/work/x x; echo it > real"
    )
    run(node, plane, script)
    assert plane.artifacts_at_end["r1"] == ["real"]


def test_an_engine_that_is_away_for_a_while_costs_no_job(node: Node, plane: ControlPlane, engine: TestEngine) -> None:
    node.run(contained(HOLD + "echo end; exit 3"))
    wait_until(lambda: "up" in plane.lines("r1"))
    aside = Path(engine.socket).rename(f"{engine.socket}.aside")
    kill_supervisor(node)
    replica = node.home.replica("r1", 1)
    wait_until(replica.alive)
    (replica.artifacts / "go").touch()
    aside.rename(engine.socket)
    assert plane.end_of("r1").exit_code == 3
    assert plane.lines("r1") == ["up", "end"]


def test_debugging_says_how_it_is_kept_in(node: Node, plane: ControlPlane, engine: TestEngine) -> None:
    run(node, plane, "true", debug=True)
    user = node.daemon._take_home().site.user
    assert f"debug: container of {IMAGE} as user {user} by {engine.socket}, network none" in plane.lines("r1", "s")


def test_an_image_has_no_say_in_what_runs(node: Node, plane: ControlPlane, engine: TestEngine) -> None:
    image = f"{engine.registry.place}/tool:1"  # its entrypoint is /bin/false
    assert run(node, plane, "echo $FROM_IMAGE", container=Container(image, PullPolicy.ALWAYS)) == ["yes"]
    words = plane.lines("r1", "s")
    assert words[0] == f"pulling the image {image}"
    assert words[1].startswith(f"image {image} is ")


def test_a_job_can_not_say_which_devices_it_gets(node: Node, plane: ControlPlane) -> None:
    environment = {"NVIDIA_VISIBLE_DEVICES": "all", "TRELLIS_JOB_ID": "mine", "LD_PRELOAD": "/job/work/x.so"}
    said = run(node, plane, "echo $NVIDIA_VISIBLE_DEVICES $TRELLIS_JOB_ID $LD_PRELOAD", environment=environment)
    assert said == ["void job-of-r1"]
    assert "LD_PRELOAD was not passed on to the job" in plane.lines("r1", "s")


def test_an_image_is_fetched_by_its_digest_and_no_other_passes_for_it(
    node: Node, plane: ControlPlane, engine: TestEngine
) -> None:
    name = f"{engine.registry.place}/tool"
    node.run(contained("echo it", container=Container(f"{name}@{engine.registry.digest}")))
    node.run(contained("echo it", "r2", container=Container(f"{name}@sha256:{'0' * 64}")))
    assert plane.end_of("r1").state is ReplicaState.SUCCEEDED, plane.logs["r1"]
    end = plane.end_of("r2")
    assert end.cause is Cause.START_FAILED
    assert end.message.startswith(f"the image {name}@sha256:000")
    assert "manifest unknown" in end.message


@pytest.mark.parametrize(
    ("image", "pull", "words"),
    [
        ("localhost/nothing:1", PullPolicy.NEVER, "this node does not have it, and it is to be pulled never"),
        ("{registry}/tool:2", PullPolicy.MISSING, "manifest unknown"),
    ],
)
def test_an_image_that_can_not_be_had_fails_the_job_and_says_why(
    node: Node, plane: ControlPlane, engine: TestEngine, image: str, pull: PullPolicy, words: str
) -> None:
    node.run(contained("true", container=Container(image.format(registry=engine.registry.place), pull)))
    end = plane.end_of("r1")
    assert (end.state, end.cause) == (ReplicaState.FAILED, Cause.START_FAILED)
    assert words in end.message
    assert not node.home.replica("r1", 1).container.exists()


def test_the_code_of_a_job_is_its_working_directory(node: Node, plane: ControlPlane) -> None:
    code = plane.give_code("r1", {"train.sh": b"echo from the code; touch train.sh.done\n"})
    assert run(node, plane, ". ./train.sh; ls", code=code) == ["from the code", "train.sh", "train.sh.done"]


def test_a_script_is_run_by_the_shell_of_the_image(node: Node, plane: ControlPlane) -> None:
    spec = a_spec(
        "r1", script="echo $0 $1", script_name="run", arguments=("word",), executor=ExecutorKind.CONTAINER,
        container=Container(IMAGE),
    )  # fmt: skip
    node.run(spec)
    plane.end_of("r1")
    assert plane.lines("r1") == ["/job/work/run word"]


def test_more_memory_than_was_asked_for_is_the_cause_of_the_end(node: Node, plane: ControlPlane) -> None:
    node.run(contained("exec dd if=/dev/zero of=/dev/null bs=200000000 count=1", memory_bytes=64 << 20))
    assert plane.end_of("r1").cause is Cause.OUT_OF_MEMORY


def test_a_child_that_held_too_much_ends_all_of_the_job(node: Node, plane: ControlPlane) -> None:
    script = "dd if=/dev/zero of=/dev/null bs=200000000 count=1; echo on; sleep 30; echo end"
    node.run(contained(script, memory_bytes=64 << 20))
    assert plane.end_of("r1").cause is Cause.OUT_OF_MEMORY
    assert "end" not in plane.lines("r1")


def test_a_time_limit_ends_it_after_a_warning(node: Node, plane: ControlPlane) -> None:
    script = "trap 'echo warned' USR1; echo up; while :; do sleep 0.05; done"
    node.run(contained(script, time_limit_s=3, warn_signal="USR1", warn_before_s=2, grace_s=0))
    end = plane.end_of("r1")
    assert (end.state, end.cause) == (ReplicaState.TIMED_OUT, Cause.TIME_LIMIT)
    assert "warned" in plane.lines("r1")


def test_all_of_it_stands_still_and_goes_on_where_it_was(node: Node, plane: ControlPlane) -> None:
    node.run(contained(TICK))
    wait_until(lambda: "3" in plane.lines("r1"))
    plane.wish_still("r1")
    wait_until(lambda: "suspended" in plane.states_of("r1"))
    pid = pid_of(node)
    below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert {Path(f"/proc/{child}/stat").read_text().rpartition(") ")[2][0] for child in below} == {"T"}
    plane.wish_still("r1", paused=False)
    assert plane.end_of("r1").exit_code == 7
    assert plane.lines("r1") == [str(number) for number in range(1, 61)]


def test_one_that_stands_still_is_not_late_and_does_not_hang_when_its_supervisor_dies(
    node: Node, plane: ControlPlane
) -> None:
    # Each of the two is over while it stands still, and neither while it runs.
    script = 'while [ ! -e "$TRELLIS_ARTIFACTS_DIR/go" ]; do echo on; sleep 0.1; done; exit 7'
    node.run(contained(script, time_limit_s=6, hang_after_s=3.0, hang_action=HangAction.FAIL))
    wait_until(lambda: plane.lines("r1"))
    plane.wish_still("r1")
    wait_until(lambda: "suspended" in plane.states_of("r1"))
    kill_supervisor(node)
    wait_until(lambda: "another one has taken it up" in plane.logs["r1"])
    still_until = time.monotonic() + 6
    wait_until(lambda: time.monotonic() > still_until)
    assert plane.states_of("r1")[-1] == "suspended"
    (node.home.replica("r1", 1).artifacts / "go").touch()
    plane.wish_still("r1", paused=False)
    end = plane.end_of("r1")
    assert (end.exit_code, end.cause) == (7, Cause.EXIT_CODE), end
    assert end.run_s is not None
    assert end.run_s < 6


def engine_of(node: Node) -> Engine:
    return Engine(node.daemon._take_home().site.socket)


def pid_of(node: Node, name: str = "trellis-r1.1") -> int:
    """A container's first process, as this host counts it."""
    found = engine_of(node).inspect(name)
    assert found is not None
    return int(found["State"]["Pid"])


def test_where_the_image_has_python_a_program_speaks_with_the_platform(
    node: Node, plane: ControlPlane, engine: TestEngine
) -> None:
    image = make_python_image(engine, "trellis.runtime", "json", "socket", "shutil")
    script = (
        "from trellis import runtime\nruntime.log_metric('loss', 0.25, step=3)\n"
        "open('model', 'w').write('it')\nruntime.save_artifact('model')\nprint(runtime.context().job_id)\n"
    )
    spec = a_spec(
        "r1", script=script, script_name="train.py", executor=ExecutorKind.CONTAINER, container=Container(image)
    )
    node.run(spec)
    end = plane.end_of("r1")
    assert end.state is ReplicaState.SUCCEEDED, plane.logs["r1"]
    assert plane.lines("r1") == ["job-of-r1"]
    wait_until(lambda: [(point.name, point.value, point.step) for point in plane.metrics["r1"]] == [("loss", 0.25, 3)])
    assert plane.artifacts_at_end["r1"] == ["model"]


def test_nothing_of_a_container_stays_when_it_has_ended(node: Node, plane: ControlPlane, engine: TestEngine) -> None:
    run(node, plane, "echo it")
    wait_until(lambda: not list(node.home.find_replicas()))
    assert engine.names() == []
    ground = node.daemon._take_home()
    places = set(ground.site.hierarchies.values())
    assert not [place for place in places if Path(f"{place}/{folder(ground.home_path)}/r1.1").exists()]


def test_a_job_that_ends_at_once_is_no_failure_to_start(node: Node, plane: ControlPlane) -> None:
    for number in range(6):
        node.run(a_spec(f"q{number}", "/bin/true", executor=ExecutorKind.CONTAINER, container=Container(IMAGE)))
    assert {plane.end_of(f"q{number}").state for number in range(6)} == {ReplicaState.SUCCEEDED}


def test_what_somebody_else_removed_is_lost_and_not_a_success(
    node: Node, plane: ControlPlane, engine: TestEngine
) -> None:
    node.run(contained("echo up; sleep 60"))
    wait_until(lambda: "up" in plane.lines("r1"))
    engine.engine.remove("trellis-r1.1")
    end = plane.end_of("r1")
    assert (end.state, end.message) == (ReplicaState.LOST, "its container was removed by somebody else")


def test_a_job_outlives_its_supervisor_and_ends_once(node: Node, plane: ControlPlane) -> None:
    node.run(contained(TICK))
    wait_until(lambda: "9" in plane.lines("r1"))
    kill_supervisor(node)
    end = plane.end_of("r1")
    assert (end.state, end.exit_code) == (ReplicaState.FAILED, 7)
    assert plane.lines("r1") == [str(number) for number in range(1, 61)]
    assert plane.lines("r1", "e") == [f"e{number}" for number in range(1, 61)]
    assert plane.states_of("r1") == ["starting", "running", "failed"]
    assert "its supervisor died; another one has taken it up" in plane.lines("r1", "s")


def test_a_job_that_ended_while_nobody_looked_is_told_by_the_next(node: Node, plane: ControlPlane) -> None:
    node.run(contained(HOLD + "echo end; exit 3"))
    wait_until(lambda: "up" in plane.lines("r1"))
    node.daemon.stop()
    kill_supervisor(node)
    replica = node.home.replica("r1", 1)
    pid = pid_of(node)
    (replica.artifacts / "go").touch()
    wait_until(lambda: not Path(f"/proc/{pid}").exists())
    node.start()
    assert plane.end_of("r1").exit_code == 3
    assert plane.lines("r1") == ["up", "end"]


def test_what_is_to_end_ends_though_its_supervisor_died(node: Node, plane: ControlPlane, engine: TestEngine) -> None:
    node.run(contained("echo up; while :; do sleep 0.05; done"))
    wait_until(lambda: "up" in plane.lines("r1"))
    kill_supervisor(node)
    plane.wish_end("r1", StopReason.CANCELLED)
    assert plane.end_of("r1").state is ReplicaState.CANCELLED
    wait_until(lambda: engine.names() == [])


def test_what_nobody_wants_any_more_is_ended_though_its_supervisor_died(
    node: Node, plane: ControlPlane, engine: TestEngine
) -> None:
    node.run(contained("echo up; while :; do sleep 0.05; done"))
    wait_until(lambda: "up" in plane.lines("r1"))
    plane.wish_end("r1", StopReason.STALE)
    kill_supervisor(node)
    wait_until(lambda: engine.names() == [])


def test_a_new_daemon_removes_what_no_replica_tells_of(
    node: Node, plane: ControlPlane, engine: TestEngine, make_node: Callable[..., Node]
) -> None:
    labels = {HOME: str(node.home.path), REPLICA: "gone", FENCE: "3"}
    other = labels | {HOME: "/somebody/elses"}
    for name, carried in (("trellis-gone.3", labels), ("another", other)):
        engine.engine.create(name, {"Image": IMAGE, "Cmd": ["true"], "Labels": carried})
    node.daemon.stop()
    node.start()
    assert engine.names() == ["another"]
    engine.engine.remove("another")


def test_a_cancelled_job_waits_for_no_image(node: Node, plane: ControlPlane) -> None:
    image = "localhost:1/none:1"  # whoever asks there tries again and again
    node.run(contained("true", container=Container(image)))
    wait_until(lambda: any("pulling" in line for line in plane.lines("r1", "s")))
    plane.wish_end("r1", StopReason.CANCELLED, grace_s=0)
    assert plane.end_of("r1").state is ReplicaState.CANCELLED


def test_with_the_network_of_its_host_it_has_that_network(node: Node, plane: ControlPlane) -> None:
    said = run(node, plane, "cat /proc/net/dev", network=NetworkPolicy.HOST)
    ours = {line.split(":")[0].strip() for line in Path("/proc/net/dev").read_text().splitlines()[2:]}
    assert {line.split(":")[0].strip() for line in said[2:]} == ours


def test_two_replicas_of_two_fences_are_two_containers(node: Node, plane: ControlPlane, engine: TestEngine) -> None:
    node.run(contained("echo up; sleep 60"))
    wait_until(lambda: "up" in plane.lines("r1"))
    node.run(replace(contained("echo up; sleep 60"), replica_id="r2"))
    wait_until(lambda: "up" in plane.lines("r2"))
    assert engine.names() == ["trellis-r1.1", "trellis-r2.1"]
    for name in ("r1", "r2"):
        plane.wish_end(name, StopReason.CANCELLED, grace_s=0)
        plane.end_of(name)
