"""Running jobs that are told to move, with real rows."""

from typing import Any

import pytest

from tests.integration.jobs.test_life import placed, plan, submit
from tests.integration.jobs.test_suspensions import change, held, state_of
from tests.support.fake_node import FakeNode, a_description
from tests.support.stack import Caller, Stack
from tests.support.world import World
from trellis import wire
from trellis.vocabulary import Cause, ReplicaState, StopReason


@pytest.fixture
def member(stack: Stack, world: World) -> Caller:
    return stack.client(world.member)


@pytest.fixture
def nodes(stack: Stack, world: World) -> dict[str, FakeNode]:
    return {name: FakeNode.join(stack, world, a_description(name)) for name in ("node-1", "node-2", "node-3")}


def begin(
    stack: Stack, nodes: dict[str, FakeNode], caller: Caller, **body: Any
) -> tuple[dict[str, Any], str, wire.ReplicaSpec]:
    """A job that runs, the name of its node, and its replica."""
    job = submit(caller, **{"checkpointable": True, "grace": 7, **body})
    return job, *follow(stack, nodes)


def follow(stack: Stack, nodes: dict[str, FakeNode]) -> tuple[str, wire.ReplicaSpec]:
    plan(stack)
    ((name, spec),) = [(name, spec) for name, node in nodes.items() for spec in placed(stack, node)]
    nodes[name].ship(*(nodes[name].report(spec, state) for state in (ReplicaState.STARTING, ReplicaState.RUNNING)))
    return name, spec


def leave(node: FakeNode, spec: wire.ReplicaSpec) -> None:
    (stop,) = node.beat(held(spec, ReplicaState.RUNNING)).stop
    assert (stop.reason, stop.grace_s) == (StopReason.MIGRATED, 7)
    node.ship(node.report(spec, ReplicaState.PREEMPTED, cause=Cause.MIGRATED, message="moves"))


def test_a_job_goes_where_it_is_sent_and_asks_for_no_more_than_before_afterwards(
    stack: Stack, nodes: dict[str, FakeNode], member: Caller
) -> None:
    job, here, spec = begin(stack, nodes, member)
    there = max(nodes.keys() - {here})
    assert change(member, job, "migrate", to=there, reason="that one is cooler").json["state"] == "running"
    leave(nodes[here], spec)
    assert state_of(member, job) == "queued"
    moved_to, again = follow(stack, nodes)
    assert (moved_to, again.job_id, again.attempt) == (there, job["id"], 2)
    found = member.get(f"/jobs/{job['id']}?verbose=true").json
    assert (found["constraints"], [one["cause"] for one in found["attempts"]]) == ({}, [None, "migrated"])
    assert '"usual": {' not in stack.dump()


def test_a_job_that_is_sent_away_goes_anywhere_else(stack: Stack, nodes: dict[str, FakeNode], member: Caller) -> None:
    job, here, spec = begin(stack, nodes, member)
    change(member, job, "migrate")
    leave(nodes[here], spec)
    moved_to, _ = follow(stack, nodes)
    assert moved_to != here
    assert change(member, job, "migrate").status == 200  # and again, from there


def test_moving_spends_no_retry_and_is_no_preemption(stack: Stack, nodes: dict[str, FakeNode], member: Caller) -> None:
    job, here, spec = begin(stack, nodes, member, retries={"by_cause": {"preempted": {"limit": 0}}})
    change(member, job, "migrate")
    leave(nodes[here], spec)
    assert state_of(member, job) == "queued"
    assert '"preemptions": 0' in stack.dump()


@pytest.mark.parametrize(
    ("body", "to", "code"),
    [
        ({"checkpointable": False}, "node-2", "not_checkpointable"),
        ({}, "nowhere", "invalid"),
        ({"constraints": {"labels": {"name": "node-1"}}}, "node-2", "invalid"),
        ({"constraints": {"labels": {"name": "node-1"}}}, "node-1", "invalid"),
    ],
)
def test_what_can_not_move_is_refused_and_goes_on(
    stack: Stack, nodes: dict[str, FakeNode], member: Caller, body: dict[str, Any], to: str, code: str
) -> None:
    job, here, spec = begin(stack, nodes, member, **body)
    refused = change(member, job, "migrate", to=to)
    assert refused.json["code"] == code, refused.text
    assert not nodes[here].beat(held(spec, ReplicaState.RUNNING)).stop
    assert '"usual": {' not in stack.dump()


def test_only_who_runs_moves(stack: Stack, world: World, nodes: dict[str, FakeNode], member: Caller) -> None:
    job = submit(member, checkpointable=True)
    assert change(member, job, "migrate").json["code"] == "illegal_transition"
    assert change(stack.client(world.stranger), job, "migrate").status == 404
    assert change(member, job, "cancel", to="node-2").json["errors"][0]["pointer"] == "/to"
