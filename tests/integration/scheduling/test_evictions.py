"""Who must make room: told with real rows, and queued again when it has ended."""

from uuid import UUID

import pytest
from sqlalchemy import select, text

from app.jobs.models import Job, Replica
from app.scheduling.mirror import Mirror
from tests.support.fake_node import FakeNode, a_description
from tests.support.stack import Caller, Stack
from tests.support.world import World
from trellis import wire
from trellis.vocabulary import Cause, ReplicaState

POLICY = {"preemption": {"grace_period": 30, "min_run_time": 0, "max_preemptions": 1}}


@pytest.fixture
def member(stack: Stack, world: World) -> Caller:
    assert stack.client(world.admin).put("/scheduling/policy", POLICY).status == 200
    return stack.client(world.member)


def submit(caller: Caller, name: str, priority: int = 0) -> str:
    wish = {"name": name, "command": ["true"], "priority": priority, "resources": {"cpus": 4, "memory": "1GiB"}}
    answer = caller.post("/jobs", wish)
    assert answer.status == 201, answer.text
    return str(answer.json["id"])


def specs(stack: Stack, node: FakeNode) -> list[wire.ReplicaSpec]:
    live = select(Replica.id, Replica.fence).where(Replica.ended_at.is_(None)).order_by(Replica.id)
    return node.specs(*stack.run(lambda uow: [(str(row.id), row.fence) for row in uow.session.execute(live)]))


def states(stack: Stack) -> dict[str, str]:
    return stack.run(lambda uow: {row.name: str(row.state) for row in uow.session.execute(select(Job)).scalars()})


def preempted(node: FakeNode, spec: wire.ReplicaSpec) -> None:
    node.ship(node.report(spec, ReplicaState.STARTING))
    node.ship(node.report(spec, ReplicaState.RUNNING))
    node.ship(node.report(spec, ReplicaState.PREEMPTED, cause=Cause.PREEMPTED))


def test_a_higher_priority_gets_the_room_of_a_lower_one_which_waits_again(
    stack: Stack, world: World, member: Caller
) -> None:
    node = FakeNode.join(stack, world, a_description(cpus=4))
    low = submit(member, "low")
    stack.run(stack.cycle)
    (spec,) = specs(stack, node)
    high = submit(member, "high", priority=5)
    stack.run(stack.cycle)
    (stop,) = node.beat(wire.Held(spec.replica_id, spec.fence, ReplicaState.RUNNING)).stop
    assert (stop.reason, stop.grace_s) == ("preempted", 30)
    assert "room is being made" in member.get(f"/jobs/{high}").json["why"]
    events = member.get(f"/jobs/{low}/events").json["items"]
    (asked,) = [event for event in events if event["kind"] == "job.eviction_asked"]
    assert asked["after"] is None or high in str(asked)
    preempted(node, spec)
    stack.run(stack.cycle)
    assert states(stack) == {"low": "queued", "high": "scheduled"}
    row = stack.run(lambda uow: uow.session.get_one(Job, UUID(low)))
    assert (row.preemptions, row.retries) == (1, 0)


@pytest.mark.parametrize("kept", [True, False])
def test_who_was_told_once_is_not_told_again_and_nobody_else_is(
    stack: Stack, world: World, member: Caller, kept: bool
) -> None:
    FakeNode.join(stack, world, a_description(cpus=8))
    submit(member, "one")
    submit(member, "two")
    stack.run(stack.cycle)
    submit(member, "high", priority=5)
    for _ in range(3):
        stack.run(stack.cycle)
        if not kept:
            stack.mirror = Mirror()
    told = text("SELECT count(*) FROM replicas WHERE stop_reason IS NOT NULL")
    assert stack.run(lambda uow: uow.session.execute(told).scalar_one()) == 1


def test_nobody_is_evicted_where_the_policy_forbids_it_nor_more_often_than_it_allows(
    stack: Stack, world: World, member: Caller
) -> None:
    node = FakeNode.join(stack, world, a_description(cpus=4))
    low = submit(member, "low")
    stack.run(stack.cycle)
    (spec,) = specs(stack, node)
    asked = text("UPDATE jobs SET preemptions = 1 WHERE id = :id")
    stack.run(lambda uow: uow.session.execute(asked, {"id": low}))
    stack.mirror = Mirror()
    submit(member, "high", priority=5)
    stack.run(stack.cycle)
    assert node.beat(wire.Held(spec.replica_id, spec.fence, ReplicaState.RUNNING)).stop == ()


def test_what_an_ended_job_has_not_given_back_yet_is_waited_for_and_not_evicted(
    stack: Stack, world: World, member: Caller
) -> None:
    FakeNode.join(stack, world, a_description(cpus=4))
    submit(member, "low")
    stack.run(stack.cycle)
    over = text("UPDATE jobs SET state = 'failed', ended_at = now()")
    stack.run(lambda uow: uow.session.execute(over))
    stack.mirror = Mirror()
    high = submit(member, "high", priority=5)
    assert stack.run(stack.cycle).started == 0
    assert "4 CPUs short" in member.get(f"/jobs/{high}").json["why"]
