"""Elastic jobs: what nobody waits for they get while they run, and give back when somebody needs it, and go on."""

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from app.jobs.models import Job, Replica
from app.resources.models import Allocation, Node
from app.scheduling.cycle import run_cycle
from app.scheduling.mirror import Mirror
from tests.integration.scheduling.test_asks import join, places, specs, submit
from tests.support.fake_node import FakeNode
from tests.support.stack import Caller, Stack
from tests.support.world import World
from trellis import wire
from trellis.vocabulary import Cause, ReplicaState

POLICY = {"preemption": {"grace_period": 30, "min_run_time": 0}, "restart_cost": 0}
ELASTIC = {"min_replicas": 1, "max_replicas": 3}


@pytest.fixture
def member(stack: Stack, world: World) -> Caller:
    assert stack.client(world.admin).put("/scheduling/policy", POLICY).status == 200
    return stack.client(world.member)


def run_all(stack: Stack, node: FakeNode) -> list[wire.ReplicaSpec]:
    live = specs(stack, node)
    for spec in live:
        node.ship(node.report(spec, ReplicaState.STARTING), node.report(spec, ReplicaState.RUNNING))
    return live


def held(stack: Stack, spec: wire.ReplicaSpec) -> wire.Held:
    return wire.Held(spec.replica_id, spec.fence, ReplicaState.RUNNING)


def state(caller: Caller, job_id: str) -> str:
    return str(caller.get(f"/jobs/{job_id}").json["state"])


def agree(stack: Stack) -> None:
    def act(uow: Any) -> None:
        with stack.mirror.lent(uow) as kept, Mirror().lent(uow) as fresh:
            one, other = ({name: grants for _, name, grants in books.releases()} for books in (kept, fresh))
            assert one == other

    stack.run(act)


def test_a_running_job_grows_into_room_that_nobody_waits_for(stack: Stack, world: World, member: Caller) -> None:
    node = join(stack, world, "a", cpus=2)
    job, other = submit(member, **ELASTIC), submit(member)
    stack.run(stack.cycle)
    assert places(stack, job) == ["a"]
    first, second = run_all(stack, node)
    (mine,) = (spec for spec in (first, second) if spec.job_id == job)
    (rest,) = (spec for spec in (first, second) if spec.job_id == other)
    node.ship(node.report(rest, ReplicaState.SUCCEEDED, exit_code=0))
    stack.run(stack.cycle)
    assert places(stack, job) == ["a", "a"]
    assert state(member, job) == "running"
    agree(stack)
    grown = next(spec for spec in specs(stack, node) if spec.replica_id != mine.replica_id and spec.job_id == job)
    assert (grown.fence, grown.index, grown.count) == (mine.fence, 1, 2)
    node.ship(node.report(grown, ReplicaState.STARTING), node.report(grown, ReplicaState.RUNNING))
    for spec in (mine, grown):
        node.ship(node.report(spec, ReplicaState.SUCCEEDED, exit_code=0))
    assert state(member, job) == "succeeded"
    kinds = [event["kind"] for event in member.get(f"/jobs/{job}/events").json["items"]]
    assert "job.resized" in kinds


@pytest.mark.parametrize("kept", [True, False])
def test_a_job_gives_up_what_it_has_beyond_its_fewest_and_goes_on(
    stack: Stack, world: World, member: Caller, kept: bool
) -> None:
    node = join(stack, world, "a", cpus=3)
    job = submit(member, **ELASTIC)
    stack.run(stack.cycle)
    running = run_all(stack, node)
    assert len(running) == 3
    waiting = submit(member)
    stack.run(stack.cycle)
    if not kept:
        stack.mirror = Mirror()
    stack.run(stack.cycle)
    stops = node.beat(*(held(stack, spec) for spec in running)).stop
    assert [(stop.reason, stop.grace_s) for stop in stops] == [("surplus", 30)]
    assert (places(stack, waiting), state(member, job)) == ([], "running")
    (leaving,) = (spec for spec in running if spec.replica_id == stops[0].replica_id)
    node.ship(node.report(leaving, ReplicaState.PREEMPTED, cause=Cause.PREEMPTED))
    assert state(member, job) == "running"
    stack.run(stack.cycle)
    assert places(stack, waiting) == ["a"]
    agree(stack)
    for spec in running:
        if spec is not leaving:
            node.ship(node.report(spec, ReplicaState.SUCCEEDED, exit_code=0))
    assert state(member, job) == "succeeded"
    row = stack.run(lambda uow: uow.session.get_one(Job, UUID(job)))
    assert (row.preemptions, row.retries) == (0, 0)


def test_one_that_fails_while_another_gives_up_its_room_fails_the_job(
    stack: Stack, world: World, member: Caller
) -> None:
    node = join(stack, world, "a", cpus=3)
    job = submit(member, **ELASTIC)
    stack.run(stack.cycle)
    running = run_all(stack, node)
    submit(member)
    stack.run(stack.cycle)
    told = {stop.replica_id for stop in node.beat(*(held(stack, spec) for spec in running)).stop}
    staying = [spec for spec in running if spec.replica_id not in told]
    (leaving,) = (spec for spec in running if spec.replica_id in told)
    node.ship(node.report(leaving, ReplicaState.PREEMPTED, cause=Cause.PREEMPTED))
    node.ship(node.report(staying[0], ReplicaState.FAILED, cause=Cause.EXIT_CODE, exit_code=3))
    for spec in staying[1:]:
        node.ship(node.report(spec, ReplicaState.CANCELLED, cause=Cause.CANCELLED))
    shown = member.get(f"/jobs/{job}").json
    assert (shown["state"], shown["exit_code"]) == ("failed", 3)
    stack.run(stack.cycle)  # who waited has the room by now
    assert stack.run(lambda uow: uow.session.execute(select(Node.cpu_milli_used)).scalar_one()) == 1000


def test_what_changed_since_the_plan_is_left_as_it_is(stack: Stack, world: World, member: Caller) -> None:
    node = join(stack, world, "a", cpus=2)
    job, other = submit(member, **ELASTIC), submit(member)
    stack.run(stack.cycle)
    (rest,) = (spec for spec in run_all(stack, node) if spec.job_id == other)
    node.ship(node.report(rest, ReplicaState.SUCCEEDED, exit_code=0))
    member.patch(f"/jobs/{job}/status", {"action": "cancel"})
    stack.run(stack.cycle)
    live = select(Replica.id).where(Replica.ended_at.is_(None))
    assert len(stack.run(lambda uow: uow.session.execute(live).all())) == 1


@pytest.mark.parametrize("next_by", ["the same", "one that starts", "one that was there"])
def test_what_is_owed_to_a_job_outlives_the_worker_that_promised_it(
    stack: Stack, world: World, member: Caller, next_by: str
) -> None:
    node = join(stack, world, "a", cpus=4)
    four = {"resources": {"cpus": 2, "memory": "1GiB"}}
    for _ in range(2):
        submit(member, **four)
    stack.run(stack.cycle)
    first, second = run_all(stack, node)
    other = Mirror()
    stack.run(lambda uow: run_cycle(uow, other))
    high = submit(member, priority=5, resources={"cpus": 4, "memory": "1GiB"})
    stack.run(stack.cycle)
    owed = stack.run(lambda uow: uow.session.get_one(Job, UUID(high)).owed)
    assert owed is not None
    assert [holding["cpu_milli"] for holding in owed] == [4000]
    node.ship(node.report(first, ReplicaState.PREEMPTED, cause=Cause.PREEMPTED))
    stack.mirror = {"the same": stack.mirror, "one that starts": Mirror(), "one that was there": other}[next_by]
    small = submit(member, priority=4, time_limit="5s")  # so short that it would be gone in time
    stack.run(stack.cycle)
    assert places(stack, small) == []  # half of it is free, and kept
    node.ship(node.report(second, ReplicaState.PREEMPTED, cause=Cause.PREEMPTED))
    stack.run(stack.cycle)
    assert places(stack, high) == ["a"]
    assert stack.run(lambda uow: uow.session.get_one(Job, UUID(high)).owed) is None
    live = select(Allocation.cpu_milli).where(Allocation.released_at.is_(None))
    assert stack.run(lambda uow: list(uow.session.execute(live).scalars())) == [4000]
