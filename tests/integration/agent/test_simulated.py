"""A host of simulated nodes against a control plane in small: what goes wrong on the way."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent import clock
from agent.link import Link
from agent.simulation.host import Host
from agent.simulation.settings import HostSettings
from tests.support.agent_api import JOIN_TOKEN, ControlPlane, a_spec, wait_until
from tests.support.stages import SimulatedNode
from trellis.settings import SettingsError
from trellis.simulation import Behaviour, Curve, Simulation
from trellis.vocabulary import Cause, ReplicaState, StopReason
from trellis.wire import ReplicaSpec

RULES = Behaviour(run_s=20, steps=4, metrics=(Curve("loss", 2.0, 0.5),))


@pytest.fixture
def node(plane: ControlPlane, home: Path) -> Iterator[SimulatedNode]:
    made = SimulatedNode(plane, home, Simulation(speed=20, jobs=(RULES,))).start()
    yield made
    made.stop()


def play(replica_id: str, **wishes: str) -> ReplicaSpec:
    return a_spec(replica_id, "true", environment={f"SIMULATE_{name}": text for name, text in wishes.items()})


def test_lines_points_and_reports_arrive_once_however_often_they_are_sent(
    plane: ControlPlane, node: SimulatedNode
) -> None:
    node.run(play("r1"))
    wait_until(lambda: plane.lines("r1"))
    plane.down = True
    heard = plane.shipments
    wait_until(lambda: node.host._stage._on["r1", 1].ended)
    plane.down = False
    assert plane.end_of("r1").state is ReplicaState.SUCCEEDED
    assert plane.shipments > heard
    assert [line.split(" loss")[0] for line in plane.lines("r1")] == [f"step {step} of 4" for step in range(1, 5)]
    assert [(point.seq, point.step) for point in plane.metrics["r1"]] == [(1, 1), (2, 2), (3, 3), (4, 4)]


def test_a_launch_message_that_is_lost_or_comes_twice_plays_once(plane: ControlPlane, node: SimulatedNode) -> None:
    plane.want(play("lost"))  # no message: the heartbeat's orders tell
    assert plane.end_of("lost").state is ReplicaState.SUCCEEDED
    for _ in range(2):
        node.run(play("twice"))
    assert plane.end_of("twice").state is ReplicaState.SUCCEEDED
    node.run(play("twice"))
    node.run(play("after"))
    assert plane.end_of("after").state is ReplicaState.SUCCEEDED
    assert len(plane.reports["twice"]) == 3


def test_without_the_control_plane_jobs_end_with_the_lease(plane: ControlPlane, home: Path) -> None:
    plane.lease_s = 1.5
    node = SimulatedNode(plane, home, Simulation()).start()
    spec = play("r1", RUN_TIME="1h")
    node.run(spec)
    wait_until(lambda: any(report.state is ReplicaState.RUNNING for report in plane.reports["r1"]))
    plane.down = True
    wait_until(lambda: node.host._stage._on["r1", 1].ended)
    plane.down = False
    end = plane.end_of("r1")
    node.stop()
    assert (end.state, end.cause) == (ReplicaState.LOST, Cause.NODE_LOST)
    assert end.run_s < 2.5


def test_what_outlived_its_lease_while_no_host_ran_has_ended_with_it(plane: ControlPlane, home: Path) -> None:
    plane.lease_s = 1.0
    node = SimulatedNode(plane, home, Simulation()).start()
    node.run(play("r1", RUN_TIME="1h"))
    wait_until(lambda: any(report.state is ReplicaState.RUNNING for report in plane.reports["r1"]))
    node.stop()
    kept = node.host._stage.lease_ends_at()
    wait_until(lambda: clock.boottime() > kept)
    node.start()
    end = plane.end_of("r1")
    node.stop()
    assert (end.state, end.cause) == (ReplicaState.LOST, Cause.NODE_LOST)


def test_what_is_stale_is_told_no_more(plane: ControlPlane, node: SimulatedNode) -> None:
    node.run(play("r1", RUN_TIME="1h"))
    wait_until(lambda: plane.reports["r1"])
    plane.wish_end("r1", StopReason.STALE)
    wait_until(lambda: len(node.host._stage) == 0)
    assert len(plane.reports["r1"]) == 2


def test_who_gives_up_its_room_ends_and_the_others_of_its_job_go_on(plane: ControlPlane, node: SimulatedNode) -> None:
    node.run(*(replace(play(name, RUN_TIME="1h"), job_id="elastic", index=index) for index, name in enumerate("ab")))
    wait_until(lambda: {len(plane.reports[name]) for name in "ab"} == {2})
    plane.wish_end("a", StopReason.SURPLUS)
    end = plane.end_of("a")
    assert (end.state, end.cause) == (ReplicaState.PREEMPTED, Cause.PREEMPTED)
    assert not node.host._stage._on["b", 1].ended
    held = node.host._nodes["a-node"]
    wait_until(lambda: [one.replica_id for one in held.heartbeat().replicas] == ["b"])


def test_a_host_whose_tokens_are_forgotten_joins_again(plane: ControlPlane, node: SimulatedNode) -> None:
    joined = len(plane.descriptions)
    plane.known_token = "another"
    wait_until(lambda: len(plane.descriptions) > joined)
    plane.known_token = "node-secret"
    node.run(play("r1"))
    assert plane.end_of("r1").state is ReplicaState.SUCCEEDED


def test_a_host_that_comes_back_is_known_without_joining(plane: ControlPlane, node: SimulatedNode) -> None:
    node.stop()
    node.start()
    assert len(plane.descriptions) == 1
    node.run(play("r1"))
    assert plane.end_of("r1").state is ReplicaState.SUCCEEDED


def test_a_home_is_for_one_host(plane: ControlPlane, node: SimulatedNode) -> None:
    settings = HostSettings(plane.url, node.path, node.path / "plan.json", JOIN_TOKEN)
    with pytest.raises(SettingsError, match="another host runs on"):
        Host(settings, Link(plane.url)).join()


def test_a_node_that_breaks_falls_silent_and_forgets_what_ran_there(plane: ControlPlane, node: SimulatedNode) -> None:
    node.run(play("r1", RUN_TIME="1h"))
    wait_until(lambda: plane.reports["r1"])
    node.host._stage.break_down("a-node")
    wait_until(lambda: len(node.host._stage) == 0)
    beats = len(plane.heartbeats)
    node.run(play("r2"))
    wait_until(node.host._wanted.empty)
    node.host._nodes["a-node"].broken = False
    assert plane.end_of("r2").state is ReplicaState.SUCCEEDED
    assert len(plane.reports["r1"]) == 2
    assert len(plane.heartbeats) > beats
