"""Nodes that fall silent, and what ran on them."""

import pytest
from sqlalchemy import text

from app.core.uow import UnitOfWork
from app.jobs.losses import end_attempts_on_lost_nodes
from app.jobs.models import Replica
from app.resources.nodes import DOUBT, mark_silent
from tests.support.fake_node import FakeNode, a_description
from tests.support.stack import Caller, Stack
from tests.support.world import World
from trellis.vocabulary import ReplicaState
from trellis.wire import Held, ReplicaSpec

HEARTBEAT_S, LOST_S = 5.0, 35.0


def age(stack: Stack, seconds: float, *names: str) -> None:
    statement = text(
        "UPDATE nodes SET last_seen_at = clock_timestamp() - make_interval(secs => :s) WHERE name = ANY(:n)"
    )
    stack.run(lambda uow: uow.session.execute(statement, {"s": seconds, "n": list(names)}))


def watch(stack: Stack) -> None:
    def act(uow: UnitOfWork) -> None:
        mark_silent(uow, HEARTBEAT_S, LOST_S)
        uow.session.flush()
        end_attempts_on_lost_nodes(uow)

    stack.run(act)


def states(stack: Stack) -> dict[str, str]:
    rows = stack.run(lambda uow: uow.session.execute(text("SELECT name, state FROM nodes")).all())
    return dict(rows)


@pytest.fixture
def nodes(stack: Stack, world: World) -> list[FakeNode]:
    return [FakeNode.join(stack, world, a_description(f"node-{i}")) for i in (1, 2, 3)]


@pytest.fixture
def member(stack: Stack, world: World) -> Caller:
    return stack.client(world.member)


def running_on_node_1(stack: Stack, nodes: list[FakeNode], member: Caller) -> tuple[str, ReplicaSpec]:
    age(stack, 60, "node-2", "node-3")
    stack.run(lambda uow: uow.session.execute(text("UPDATE nodes SET state = 'unreachable' WHERE name <> 'node-1'")))
    job = member.post("/jobs", {"command": ["true"]}).json["id"]
    stack.run(stack.cycle)
    replica = stack.run(lambda uow: uow.session.query(Replica).one())
    (spec,) = nodes[0].specs((str(replica.id), replica.fence))
    nodes[0].ship(nodes[0].report(spec, ReplicaState.STARTING), nodes[0].report(spec, ReplicaState.RUNNING))
    for node in nodes[1:]:
        node.beat()
    return job, spec


def test_a_silent_node_is_unreachable_first_and_its_job_goes_on(
    stack: Stack, nodes: list[FakeNode], member: Caller
) -> None:
    job, spec = running_on_node_1(stack, nodes, member)
    age(stack, 3 * HEARTBEAT_S + 1, "node-1")
    watch(stack)
    assert states(stack)["node-1"] == "unreachable"
    assert member.get(f"/jobs/{job}").json["state"] == "running"
    nodes[0].beat(Held(spec.replica_id, spec.fence, ReplicaState.RUNNING))
    assert states(stack)["node-1"] == "ready"
    assert member.get(f"/jobs/{job}").json["attempt"] == 1


def test_a_lost_nodes_job_is_tried_elsewhere_under_a_new_fence(
    stack: Stack, nodes: list[FakeNode], member: Caller
) -> None:
    job, spec = running_on_node_1(stack, nodes, member)
    age(stack, LOST_S + 1, "node-1")
    for _ in range(2):
        watch(stack)
    assert states(stack)["node-1"] == "lost"
    assert member.get(f"/jobs/{job}").json["state"] == "queued"
    assert stack.run(stack.cycle).started == 1
    again = member.get(f"/jobs/{job}?verbose=true").json
    assert again["attempt"] == 2
    assert again["attempts"][0]["replicas"][0]["node"] != "node-1"
    assert again["attempts"][1]["cause"] == "node_lost"
    late = nodes[0].ship(nodes[0].report(spec, ReplicaState.SUCCEEDED, exit_code=0))
    assert late.stale == (spec.replica_id,)
    (stop,) = nodes[0].beat(Held(spec.replica_id, spec.fence, ReplicaState.RUNNING)).stop
    assert stop.reason == "stale"
    assert states(stack)["node-1"] == "ready"
    used = stack.run(lambda uow: uow.session.execute(text("SELECT sum(cpu_milli_used) FROM nodes")).scalar_one())
    assert used == 1000


def test_when_half_of_the_nodes_fall_silent_at_once_we_doubt_ourselves(stack: Stack, nodes: list[FakeNode]) -> None:
    age(stack, LOST_S + 1, "node-1", "node-2")
    watch(stack)
    assert sorted(states(stack).values()) == ["ready", "unreachable", "unreachable"]
    age(stack, DOUBT * LOST_S + 1, "node-1", "node-2")
    watch(stack)
    assert sorted(states(stack).values()) == ["lost", "lost", "ready"]


def test_what_a_node_no_longer_knows_of_was_lost_there(stack: Stack, nodes: list[FakeNode], member: Caller) -> None:
    job, _ = running_on_node_1(stack, nodes, member)
    nodes[0].beat()
    assert member.get(f"/jobs/{job}").json["state"] == "running"  # its report may have overtaken this heartbeat
    started = text("UPDATE replicas SET started_at = clock_timestamp() - interval '11 seconds'")
    stack.run(lambda uow: uow.session.execute(started))
    nodes[0].beat()
    assert member.get(f"/jobs/{job}").json["state"] == "queued"


def test_a_gang_ends_whole_when_one_of_its_nodes_is_lost(stack: Stack, nodes: list[FakeNode], member: Caller) -> None:
    body = {"command": ["true"], "replicas": 3, "resources": {"cpus": 5}}
    job = member.post("/jobs", body).json["id"]
    stack.run(stack.cycle)
    rows = stack.run(lambda uow: uow.session.query(Replica).all())
    by_node = {str(row.node_id): row for row in rows}
    assert len(by_node) == 3
    for node in nodes:
        row = by_node[node.welcome.node_id]
        (spec,) = node.specs((str(row.id), row.fence))
        node.ship(node.report(spec, ReplicaState.STARTING), node.report(spec, ReplicaState.RUNNING))
    assert member.get(f"/jobs/{job}").json["state"] == "running"
    age(stack, LOST_S + 1, "node-1")
    watch(stack)
    for node in nodes[1:]:
        row = by_node[node.welcome.node_id]
        (stop,) = node.beat(Held(str(row.id), row.fence, ReplicaState.RUNNING)).stop
        assert stop.reason == "cancelled"
        report = node.caller.post(
            "/agent/shipments",
            {"logs": [], "metrics": [], "reports": [
                {"replica_id": stop.replica_id, "fence": stop.fence, "seq": 3, "state": "cancelled",
                 "at": "2026-01-01T00:00:00+00:00", "cause": "cancelled"}]},
        )  # fmt: skip
        assert report.status == 200, report.text
    ended = member.get(f"/jobs/{job}").json
    assert (ended["state"], ended["cause"]) == ("queued", "node_lost")
