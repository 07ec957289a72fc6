"""What every executor must do, asked of each through what supervises it, at each level of isolation it runs at."""

import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pytest

from agent.executors import EXECUTORS
from tests.integration.agent.conftest import Node
from tests.support.agent_api import ControlPlane, a_spec, wait_until
from tests.support.engine import IMAGE
from tests.support.stages import SimulatedNode
from trellis.simulation import Behaviour, Simulation
from trellis.vocabulary import Cause, ExecutorKind, Isolation, ReplicaState, StopReason
from trellis.wire import Container, ReplicaSpec, SliceGrant

IN_A_ROLE: dict[str, Any] = {"role": "worker", "count": 3, "slices": (SliceGrant(7, "GPU-of-a-test", "3g.40gb", 4),)}


class Acts(Protocol):
    """Jobs that do what a test is about, in the way of one executor, and a node that runs them."""

    def run(self, spec: ReplicaSpec) -> None: ...
    def restart(self) -> None: ...
    def that_talks(self) -> tuple[ReplicaSpec, list[str]]: ...
    def that_ends_with(self, code: int) -> ReplicaSpec: ...
    def that_stops_when_asked(self) -> tuple[ReplicaSpec, str]: ...
    def that_ignores_term(self) -> tuple[ReplicaSpec, str]: ...
    def that_uses(self, cpu_s: float, memory_bytes: int) -> ReplicaSpec: ...
    def that_talks_before_and_after(self, code: int) -> tuple[ReplicaSpec, str, list[str]]: ...
    def that_is_a_role_with_a_slice(self) -> tuple[ReplicaSpec, str, list[str]]: ...


class Processes:
    """Real commands."""

    def __init__(self, kind: ExecutorKind, node: Node) -> None:
        self.kind, self.node = kind, node

    def run(self, spec: ReplicaSpec) -> None:
        self.node.run(spec)

    def restart(self) -> None:
        self.node.daemon.stop()
        self.node.start()

    def that_talks(self) -> tuple[ReplicaSpec, list[str]]:
        return self._shell("echo one; echo two"), ["one", "two"]

    def that_ends_with(self, code: int) -> ReplicaSpec:
        return self._shell(f"exit {code}")

    def that_stops_when_asked(self) -> tuple[ReplicaSpec, str]:
        return self._shell("echo up; while :; do sleep 0.02; done"), "up"

    def that_ignores_term(self) -> tuple[ReplicaSpec, str]:
        return self._shell("trap '' TERM; echo up; while :; do sleep 0.1; done"), "up"

    def that_uses(self, cpu_s: float, memory_bytes: int) -> ReplicaSpec:
        script = f"import time\nkept = bytearray({memory_bytes})\nwhile time.process_time() < {cpu_s}: pass\n"
        return a_spec("r1", script=script, script_name="burn.py", executor=self.kind)

    def that_talks_before_and_after(self, code: int) -> tuple[ReplicaSpec, str, list[str]]:
        return self._shell(f"echo up; sleep 0.8; echo done; exit {code}"), "up", ["up", "done"]

    def that_is_a_role_with_a_slice(self) -> tuple[ReplicaSpec, str, list[str]]:
        says = 'echo "$TRELLIS_ROLE of $TRELLIS_REPLICA_COUNT with ${CUDA_VISIBLE_DEVICES%%-*}"'
        spec = self._shell(f"echo up; sleep 0.8; {says}")
        return replace(spec, **IN_A_ROLE), "up", ["up", "worker of 3 with MIG"]

    def _shell(self, script: str) -> ReplicaSpec:
        return a_spec("r1", "/bin/sh", "-c", script, executor=self.kind)


class Containers(Processes):
    """The same in containers, of an image that has a shell and little else."""

    def that_uses(self, cpu_s: float, memory_bytes: int) -> ReplicaSpec:
        burn = "i=0; while [ $i -lt 400000 ]; do i=$((i + 1)); done"
        return self._shell(f"dd if=/dev/zero of=/dev/null bs={memory_bytes + (1 << 20)} count=4; {burn}; {burn}")

    def _shell(self, script: str) -> ReplicaSpec:
        return replace(super()._shell(script), container=Container(IMAGE))


class Plays:
    """Jobs that say how they are to be played."""

    def __init__(self, node: SimulatedNode) -> None:
        self.node = node

    def run(self, spec: ReplicaSpec) -> None:
        self.node.run(spec)

    def restart(self) -> None:
        self.node.stop()
        self.node.start()

    def that_talks(self) -> tuple[ReplicaSpec, list[str]]:
        return self._play(RUN_TIME="4", STEPS="2"), ["step 1 of 2", "step 2 of 2"]

    def that_ends_with(self, code: int) -> ReplicaSpec:
        return self._play(RUN_TIME="4", EXIT_CODE=str(code))

    def that_stops_when_asked(self) -> tuple[ReplicaSpec, str]:
        return self._play(RUN_TIME="1h", STEPS="720", STOPS_IN="1"), "step 1 of 720"

    def that_ignores_term(self) -> tuple[ReplicaSpec, str]:
        return self._play(RUN_TIME="1h", STEPS="720", STOPS_IN="1h"), "step 1 of 720"

    def that_uses(self, cpu_s: float, memory_bytes: int) -> ReplicaSpec:
        spec = self._play(RUN_TIME=str(round(cpu_s * self.node.simulation.speed * 2)))
        return a_spec("r1", "true", environment=spec.environment, memory_bytes=4 * memory_bytes, cpu_milli=2000)

    def that_talks_before_and_after(self, code: int) -> tuple[ReplicaSpec, str, list[str]]:
        wishes = self._play(RUN_TIME="16", STEPS="2", EXIT_CODE=str(code))
        return wishes, "step 1 of 2", ["step 1 of 2", "step 2 of 2"]

    def that_is_a_role_with_a_slice(self) -> tuple[ReplicaSpec, str, list[str]]:
        spec, before, all_of_it = self.that_talks_before_and_after(0)
        return replace(spec, **IN_A_ROLE), before, all_of_it

    def _play(self, **wishes: str) -> ReplicaSpec:
        return a_spec("r1", "true", environment={f"SIMULATE_{name}": text for name, text in wishes.items()})


PROCESSES = [(ExecutorKind.PROCESS, str(level)) for level in Isolation]
CONTAINERS = [(ExecutorKind.CONTAINER, "")]
KINDS = [*PROCESSES, *CONTAINERS, (ExecutorKind.SIMULATED, "")]


@pytest.fixture(params=KINDS, ids=lambda kind: "-".join(filter(None, kind)))
def acts(
    request: pytest.FixtureRequest, plane: ControlPlane, home: Path, make_node: Callable[..., Node]
) -> Iterator[Acts]:
    kind, level = request.param
    if kind is ExecutorKind.CONTAINER:
        engine = request.getfixturevalue("container_engine")
        yield Containers(kind, make_node(container_socket=engine.socket))
        return
    if kind is not ExecutorKind.SIMULATED:
        yield Processes(kind, make_node(level))
        return
    node = SimulatedNode(plane, home, Simulation(speed=20, jobs=(Behaviour(cpu=0.9, memory=0.5),))).start()
    yield Plays(node)
    node.stop()


def test_every_executor_is_asked() -> None:
    assert {kind for kind, _ in KINDS} == {*EXECUTORS, ExecutorKind.SIMULATED}


def test_starts_a_job_and_hands_over_its_output(acts: Acts, plane: ControlPlane) -> None:
    spec, says = acts.that_talks()
    acts.run(spec)
    assert plane.end_of("r1").state == ReplicaState.SUCCEEDED
    assert plane.lines("r1") == says
    assert [report.state for report in plane.reports["r1"]] == ["starting", "running", "succeeded"]


@pytest.mark.parametrize("code", [1, 42, 255])
def test_tells_the_exit_code(acts: Acts, plane: ControlPlane, code: int) -> None:
    acts.run(acts.that_ends_with(code))
    end = plane.end_of("r1")
    assert (end.exit_code, end.cause) == (code, Cause.EXIT_CODE)


def test_ends_a_job_that_is_asked_to_within_its_grace(acts: Acts, plane: ControlPlane) -> None:
    spec, says = acts.that_stops_when_asked()
    acts.run(spec)
    wait_until(lambda: says in plane.lines("r1"))
    plane.wish_end("r1", StopReason.CANCELLED, grace_s=30)
    end = plane.end_of("r1")
    assert (end.state, end.signal) == (ReplicaState.CANCELLED, signal.SIGTERM)


def test_kills_what_ignores_term(acts: Acts, plane: ControlPlane) -> None:
    spec, says = acts.that_ignores_term()
    acts.run(spec)
    wait_until(lambda: says in plane.lines("r1"))
    plane.wish_end("r1", StopReason.CANCELLED, grace_s=0)
    assert plane.end_of("r1").signal == signal.SIGKILL


def test_tells_what_was_used(acts: Acts, plane: ControlPlane) -> None:
    acts.run(acts.that_uses(cpu_s=0.3, memory_bytes=60_000_000))
    end = plane.end_of("r1")
    assert end.exit_code == 0, plane.logs["r1"]
    assert end.cpu_s >= 0.3
    assert end.peak_memory_bytes > 60_000_000


def test_goes_on_under_the_next_daemon(acts: Acts, plane: ControlPlane) -> None:
    spec, before, all_of_it = acts.that_talks_before_and_after(9)
    acts.run(spec)
    wait_until(lambda: before in plane.lines("r1"))
    acts.restart()
    assert plane.end_of("r1").exit_code == 9
    assert plane.lines("r1") == all_of_it


def test_a_replica_of_a_role_with_a_slice_runs_to_its_end_through_a_change_of_daemons(
    acts: Acts, plane: ControlPlane
) -> None:
    spec, before, all_of_it = acts.that_is_a_role_with_a_slice()
    acts.run(spec)
    wait_until(lambda: before in plane.lines("r1"))
    acts.restart()
    assert plane.end_of("r1").state is ReplicaState.SUCCEEDED
    assert plane.lines("r1") == all_of_it


def test_what_gives_up_its_room_ends_as_preempted(acts: Acts, plane: ControlPlane) -> None:
    spec, says = acts.that_stops_when_asked()
    acts.run(spec)
    wait_until(lambda: says in plane.lines("r1"))
    plane.wish_end("r1", StopReason.SURPLUS, grace_s=30)
    end = plane.end_of("r1")
    assert (end.state, end.cause, end.signal) == (ReplicaState.PREEMPTED, Cause.PREEMPTED, signal.SIGTERM)


def _real(kinds: list[tuple[ExecutorKind, str]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("acts", kinds, indirect=True, ids=lambda kind: "-".join(filter(None, kind)))


@_real(PROCESSES + CONTAINERS)
def test_tells_a_job_who_it_is_and_keeps_what_it_leaves(acts: Processes, plane: ControlPlane) -> None:
    says = (
        'echo "$MINE $TRELLIS_JOB_ID $TRELLIS_REPLICA_INDEX $LD_PRELOAD"; echo 3 > "$TRELLIS_ARTIFACTS_DIR/kept"; pwd'
    )
    spec = acts._shell(says + '; [ "$PWD" = "$HOME" ] && echo at home; touch here "$TMPDIR/there" && echo written')
    acts.run(replace(spec, environment={"MINE": "a b", "LD_PRELOAD": "/x.so", "TRELLIS_JOB_ID": "another"}))
    assert plane.end_of("r1").state is ReplicaState.SUCCEEDED, plane.logs["r1"]
    first, place, *rest = plane.lines("r1")
    assert first == "a b job-of-r1 0 "
    assert place.endswith("/work")
    assert rest == ["at home", "written"]
    assert plane.artifacts_at_end["r1"] == ["kept"]


@_real(PROCESSES + CONTAINERS)
def test_holds_a_job_still_and_lets_it_go_on(acts: Processes, plane: ControlPlane) -> None:
    acts.run(acts._shell("i=0; while [ $i -lt 30 ]; do i=$((i + 1)); echo $i; sleep 0.05; done; exit 6"))
    wait_until(lambda: "3" in plane.lines("r1"))
    plane.wish_still("r1")
    wait_until(lambda: plane.states_of("r1")[-1] == "suspended")
    plane.wish_still("r1", paused=False)
    assert plane.end_of("r1").exit_code == 6
    assert plane.states_of("r1") == ["starting", "running", "suspended", "running", "failed"]
    assert plane.lines("r1") == [str(number) for number in range(1, 31)]


@_real(PROCESSES + CONTAINERS)
def test_signals_every_process_of_the_replica(acts: Processes, plane: ControlPlane) -> None:
    child = "(trap 'echo child; exit' TERM; echo up; while :; do sleep 0.02; done)"
    script = f"echo err >&2; {child} & trap 'wait; echo parent; exit 0' TERM; wait"
    acts.run(acts._shell(script))
    wait_until(lambda: "up" in plane.lines("r1"))
    plane.wish_end("r1", StopReason.CANCELLED)
    assert plane.end_of("r1").state == ReplicaState.CANCELLED
    assert sorted(plane.lines("r1")) == ["child", "parent", "up"]
    assert plane.lines("r1", "e")[0] == "err"
