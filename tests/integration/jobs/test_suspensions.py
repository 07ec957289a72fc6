"""Jobs that are suspended and resumed, with real rows: held back, parked on a node, taken up, displaced."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from app.core.uow import UnitOfWork
from app.jobs.evictions import Order, evict
from app.jobs.models import Job
from app.jobs.service import end_overdue
from app.jobs.suspensions import resume_job, suspend_job
from tests.integration.jobs.test_life import placed, plan, submit
from tests.support.fake_node import FakeNode, a_description
from tests.support.stack import Answer, Caller, Stack
from tests.support.statements import counted
from tests.support.world import World
from trellis import wire
from trellis.vocabulary import Cause, ReplicaState, StopReason

WHOLE = {"cpus": 1, "memory": "1GiB", "gpus": 1}


@pytest.fixture
def member(stack: Stack, world: World) -> Caller:
    return stack.client(world.member)


@pytest.fixture
def node(stack: Stack, world: World) -> FakeNode:
    return FakeNode.join(stack, world, a_description(gpus=2))


def change(caller: Caller, job: dict[str, Any], action: str, **body: Any) -> Answer:
    return caller.patch(f"/jobs/{job['id']}/status", {"action": action, **body})


def state_of(caller: Caller, job: dict[str, Any]) -> str:
    found: str = caller.get(f"/jobs/{job['id']}").json["state"]
    return found


def held(spec: wire.ReplicaSpec, state: ReplicaState) -> wire.Held:
    return wire.Held(spec.replica_id, spec.fence, state)


def run(stack: Stack, node: FakeNode, caller: Caller, **body: Any) -> tuple[dict[str, Any], wire.ReplicaSpec]:
    """A job that runs on the node, alone of those that are not known yet."""
    known = {spec.replica_id for spec in placed(stack, node)}
    job = submit(caller, **{"resources": WHOLE, **body})
    plan(stack)
    (spec,) = [spec for spec in placed(stack, node) if spec.replica_id not in known]
    node.ship(node.report(spec, ReplicaState.STARTING), node.report(spec, ReplicaState.RUNNING))
    return job, spec


def park(stack: Stack, node: FakeNode, caller: Caller, **body: Any) -> tuple[dict[str, Any], wire.ReplicaSpec]:
    """A job that ran and stands still now."""
    job, spec = run(stack, node, caller, **body)
    assert change(caller, job, "suspend").status == 200
    (pause,) = node.beat(held(spec, ReplicaState.RUNNING)).pause
    assert (pause.replica_id, pause.paused) == (spec.replica_id, True)
    node.ship(node.report(spec, ReplicaState.SUSPENDED))
    return job, spec


def used(stack: Stack, world: World) -> tuple[int, list[int]]:
    """What is held of the one node: CPUs in thousandths, and of each device."""
    item = stack.client(world.admin).get("/resources/nodes").json["items"][0]
    return item["cpu_milli_used"], [gpu["milli_used"] for gpu in item["gpus"]]


def test_a_job_that_waits_is_held_back_until_it_is_resumed(stack: Stack, node: FakeNode, member: Caller) -> None:
    job = submit(member)
    told = change(member, job, "suspend", reason="after the meeting").json
    assert (told["state"], told["message"]) == ("suspended", "after the meeting")
    assert "held back" in told["why"]
    assert plan(stack) == 0
    assert change(member, job, "resume").json["state"] == "queued"
    assert plan(stack) == 1


def test_a_job_that_runs_is_parked_and_gives_back_what_it_held(
    stack: Stack, world: World, node: FakeNode, member: Caller
) -> None:
    job, _ = park(stack, node, member)
    assert used(stack, world) == (0, [0, 0])
    found = member.get(f"/jobs/{job['id']}?verbose=true").json
    assert (found["state"], found["attempt"]) == ("suspended", 1)
    assert found["attempts"][0]["state"] == "suspended"
    assert "stand still" in found["why"]


def test_a_parked_job_goes_on_in_the_same_attempt_on_the_same_device(
    stack: Stack, world: World, node: FakeNode, member: Caller
) -> None:
    _, blocker = run(stack, node, member)
    job, spec = park(stack, node, member)
    assert spec.gpus[0].index == 1
    node.ship(
        node.report(blocker, ReplicaState.SUCCEEDED, exit_code=0)
    )  # device 0 is free now, and would be taken first
    began = member.get(f"/jobs/{job['id']}").json["started_at"]
    assert change(member, job, "resume").json["state"] == "queued"
    assert plan(stack) == 1
    assert used(stack, world)[1] == [0, 1000]
    (pause,) = node.beat(held(spec, ReplicaState.SUSPENDED)).pause
    assert (pause.replica_id, pause.paused) == (spec.replica_id, False)
    node.ship(node.report(spec, ReplicaState.RUNNING))
    again = member.get(f"/jobs/{job['id']}?verbose=true").json
    assert (again["state"], again["attempt"], again["started_at"]) == ("running", 1, began)
    assert not node.beat(held(spec, ReplicaState.RUNNING)).pause
    node.ship(node.report(spec, ReplicaState.SUCCEEDED, exit_code=0))
    assert state_of(member, job) == "succeeded"
    assert used(stack, world) == (0, [0, 0])


def test_a_job_suspended_twice_keeps_the_record_of_what_it_held(
    stack: Stack, world: World, node: FakeNode, member: Caller
) -> None:
    job, spec = park(stack, node, member)
    for _ in range(2):
        change(member, job, "resume")
        assert plan(stack) == 1
        node.ship(node.report(spec, ReplicaState.RUNNING))
        change(member, job, "suspend")
        node.ship(node.report(spec, ReplicaState.SUSPENDED))
    assert stack.dump().count('"holder_name": "true"') == 3
    assert used(stack, world) == (0, [0, 0])


def test_a_parked_job_whose_room_was_taken_begins_anew_without_spending_a_retry(
    stack: Stack, world: World, node: FakeNode, member: Caller
) -> None:
    job, spec = park(stack, node, member, retries={"limit": 0})
    both = submit(member, resources={**WHOLE, "gpus": 2})
    assert plan(stack) == 1
    (told,) = node.beat(held(spec, ReplicaState.SUSPENDED)).stop
    assert (told.replica_id, told.reason) == (spec.replica_id, StopReason.DISPLACED)
    (taker,) = [one for one in placed(stack, node) if one.job_id == both["id"]]
    assert taker.after == (f"{spec.replica_id}.{spec.fence}",)
    displaced = member.get(f"/jobs/{job['id']}/events?kind=job.displaced").json["items"]
    assert [event["data"]["for_jobs"] for event in displaced] == [[both["id"]]]
    node.ship(node.report(spec, ReplicaState.PREEMPTED, cause=Cause.SUSPENDED, message="made way"))
    assert state_of(member, job) == "suspended"
    assert [one.after for one in placed(stack, node)] == [()]
    assert change(member, job, "resume").json["state"] == "queued"
    assert plan(stack) == 0
    node.succeed(taker)
    assert plan(stack) == 1
    (again,) = placed(stack, node)
    assert (again.job_id, again.attempt, again.fence) == (job["id"], 2, 2)


def test_a_resumed_job_that_finds_room_elsewhere_alone_leaves_its_node_first(
    stack: Stack, world: World, node: FakeNode, member: Caller
) -> None:
    job, spec = park(stack, node, member)
    blocker = submit(member, resources={"cpus": 8, "memory": "1GiB"})
    assert plan(stack) == 1
    assert not node.beat(held(spec, ReplicaState.SUSPENDED)).stop  # it is in nobody's way
    other = FakeNode.join(stack, world, a_description("node-2", gpus=1))
    change(member, job, "resume")
    plan(stack)
    assert state_of(member, job) == "suspended"
    (told,) = node.beat(held(spec, ReplicaState.SUSPENDED)).stop
    assert told.reason == StopReason.DISPLACED
    node.ship(node.report(spec, ReplicaState.PREEMPTED, cause=Cause.SUSPENDED))
    assert state_of(member, job) == "queued"
    assert plan(stack) == 1
    (again,) = placed(stack, other)
    assert (again.job_id, again.attempt) == (job["id"], 2)
    assert state_of(member, blocker) == "scheduled"


def test_what_is_parked_keeps_its_memory_as_long_as_nobody_needs_it(
    stack: Stack, world: World, node: FakeNode, member: Caller
) -> None:
    _, older = park(stack, node, member, resources={"memory": "1GiB"})
    _, newer = park(stack, node, member, resources={"memory": "1GiB"})
    submit(member, resources={"cpus": 1, "memory": "62GiB"})
    assert plan(stack) == 1
    both = held(older, ReplicaState.SUSPENDED), held(newer, ReplicaState.SUSPENDED)
    assert not node.beat(*both).stop
    submit(member, resources={"cpus": 1, "memory": "1GiB"})
    assert plan(stack) == 1
    assert [one.replica_id for one in node.beat(*both).stop] == [older.replica_id]


def test_who_goes_on_waits_for_those_to_be_gone_whose_room_it_takes(
    stack: Stack, world: World, node: FakeNode, member: Caller
) -> None:
    _, older = park(stack, node, member, resources={"memory": "40GiB"})
    job, spec = run(stack, node, member, resources={"memory": "20GiB"})
    change(member, job, "suspend")
    node.ship(node.report(spec, ReplicaState.SUSPENDED))
    third = submit(member, resources={"memory": "10GiB"})  # 40 + 20 + 10 GiB are more than there are
    plan(stack)
    change(member, job, "resume")
    assert plan(stack) == 1
    both = held(older, ReplicaState.SUSPENDED), held(spec, ReplicaState.SUSPENDED)
    orders = node.beat(*both)
    assert [one.replica_id for one in orders.stop] == [older.replica_id]
    assert not orders.pause
    node.ship(node.report(older, ReplicaState.PREEMPTED, cause=Cause.SUSPENDED))
    (pause,) = node.beat(both[1]).pause
    assert (pause.replica_id, pause.paused) == (spec.replica_id, False)
    assert state_of(member, third) == "scheduled"


def test_all_of_a_gang_is_parked_and_taken_up_together(
    stack: Stack, world: World, node: FakeNode, member: Caller
) -> None:
    job = submit(member, resources=WHOLE, replicas=2)
    plan(stack)
    one, two = placed(stack, node)
    for spec in (one, two):
        node.ship(node.report(spec, ReplicaState.STARTING), node.report(spec, ReplicaState.RUNNING))
    change(member, job, "suspend")
    node.ship(node.report(one, ReplicaState.SUSPENDED))
    assert state_of(member, job) == "running"
    node.ship(node.report(two, ReplicaState.SUSPENDED))
    assert state_of(member, job) == "suspended"
    change(member, job, "resume")
    assert plan(stack) == 1
    assert used(stack, world)[1] == [1000, 1000]
    node.ship(node.report(one, ReplicaState.RUNNING), node.report(two, ReplicaState.RUNNING))
    assert state_of(member, job) == "running"


def test_all_of_a_gang_goes_where_one_of_it_is_displaced(
    stack: Stack, world: World, node: FakeNode, member: Caller
) -> None:
    job = submit(member, resources=WHOLE, replicas=2)
    plan(stack)
    specs = placed(stack, node)
    for spec in specs:
        node.ship(node.report(spec, ReplicaState.STARTING), node.report(spec, ReplicaState.RUNNING))
    change(member, job, "suspend")
    node.ship(*(node.report(spec, ReplicaState.SUSPENDED) for spec in specs))
    submit(member, resources=WHOLE)
    plan(stack)
    stops = node.beat(*(held(spec, ReplicaState.SUSPENDED) for spec in specs)).stop
    assert {stop.replica_id for stop in stops} == {spec.replica_id for spec in specs}
    node.ship(node.report(specs[0], ReplicaState.PREEMPTED, cause=Cause.SUSPENDED))
    node.ship(node.report(specs[1], ReplicaState.PREEMPTED, cause=Cause.SUSPENDED))
    assert state_of(member, job) == "suspended"
    assert member.get(f"/jobs/{job['id']}").json["cause"] == "suspended"


def test_resuming_before_it_has_come_to_rest_lets_it_go_on_once_it_has(
    stack: Stack, world: World, node: FakeNode, member: Caller
) -> None:
    job, spec = run(stack, node, member)
    change(member, job, "suspend")
    assert change(member, job, "resume").json["state"] == "running"
    node.ship(node.report(spec, ReplicaState.SUSPENDED))
    assert state_of(member, job) == "queued"
    assert plan(stack) == 1
    (pause,) = node.beat(held(spec, ReplicaState.SUSPENDED)).pause
    assert not pause.paused


def test_suspending_what_is_about_to_go_on_parks_it_again(
    stack: Stack, world: World, node: FakeNode, member: Caller
) -> None:
    job, spec = park(stack, node, member)
    change(member, job, "resume")
    plan(stack)
    change(member, job, "suspend")
    node.ship(node.report(spec, ReplicaState.RUNNING))
    (pause,) = node.beat(held(spec, ReplicaState.RUNNING)).pause
    assert pause.paused
    node.ship(node.report(spec, ReplicaState.SUSPENDED))
    assert state_of(member, job) == "suspended"
    assert used(stack, world) == (0, [0, 0])


def test_a_job_that_is_suspended_before_its_node_has_it_is_parked_as_soon_as_it_runs(
    stack: Stack, node: FakeNode, member: Caller
) -> None:
    job = submit(member, resources=WHOLE)
    plan(stack)
    change(member, job, "suspend")
    (spec,) = placed(stack, node)
    node.ship(node.report(spec, ReplicaState.STARTING))
    (pause,) = node.beat(held(spec, ReplicaState.STARTING)).pause
    assert pause.paused
    node.ship(node.report(spec, ReplicaState.RUNNING), node.report(spec, ReplicaState.SUSPENDED))
    assert state_of(member, job) == "suspended"


def test_a_job_that_ends_while_it_is_being_suspended_has_ended(stack: Stack, node: FakeNode, member: Caller) -> None:
    job, spec = run(stack, node, member)
    change(member, job, "suspend")
    node.ship(node.report(spec, ReplicaState.SUCCEEDED, exit_code=0))
    assert state_of(member, job) == "succeeded"
    for action in ("suspend", "resume"):
        refused = change(member, job, action)
        assert (refused.status, refused.json["code"]) == (409, "illegal_transition")


def test_a_failing_job_that_is_to_be_suspended_waits_for_its_next_try_suspended(
    stack: Stack, node: FakeNode, member: Caller
) -> None:
    job, spec = run(stack, node, member, retries={"limit": 1, "backoff_s": 0})
    change(member, job, "suspend")
    node.ship(node.report(spec, ReplicaState.FAILED, exit_code=3, cause=Cause.EXIT_CODE))
    assert state_of(member, job) == "suspended"
    assert change(member, job, "resume").json["state"] == "queued"


def test_a_parked_job_is_cancelled(stack: Stack, node: FakeNode, member: Caller) -> None:
    job, spec = park(stack, node, member)
    change(member, job, "cancel")
    (told,) = node.beat(held(spec, ReplicaState.SUSPENDED)).stop
    assert told.reason == StopReason.CANCELLED
    node.ship(node.report(spec, ReplicaState.CANCELLED, cause=Cause.CANCELLED))
    assert state_of(member, job) == "cancelled"


def test_a_parked_job_whose_node_lost_it_stays_suspended_and_begins_anew(
    stack: Stack, world: World, node: FakeNode, member: Caller
) -> None:
    job, spec = park(stack, node, member)
    node.ship(node.report(spec, ReplicaState.LOST, cause=Cause.NODE_LOST, message="gone"))
    assert state_of(member, job) == "suspended"
    change(member, job, "resume")
    assert plan(stack) == 1
    (again,) = placed(stack, node)
    assert again.attempt == 2
    assert 'parked": 0' in stack.dump()


def test_a_job_that_waits_for_another_and_is_suspended_waits_on_when_resumed(
    stack: Stack, node: FakeNode, member: Caller
) -> None:
    first, _ = run(stack, node, member)
    later = submit(member, depends_on=[{"job": first["id"]}])
    assert change(member, later, "suspend").json["state"] == "suspended"
    assert change(member, later, "resume").json["state"] == "pending"


def test_suspending_and_resuming_at_once_from_many_sides_ends_in_one_of_both(
    stack: Stack, world: World, node: FakeNode, member: Caller
) -> None:
    job, spec = run(stack, node, member)
    actor, turn = stack.actor(world.member), iter(range(16))

    def either(uow: UnitOfWork) -> str:
        act = suspend_job if next(turn) % 2 else resume_job
        return str(act(uow, UUID(job["id"]), None).state)

    outcomes = stack.race(either, times=16, actor=actor)
    assert set(outcomes) == {"running"}
    node.ship(node.report(spec, ReplicaState.SUSPENDED))
    change(member, job, "resume")
    assert state_of(member, job) == "queued"
    assert plan(stack) == 1
    assert used(stack, world)[1].count(1000) == 1


def test_a_job_whose_end_is_told_while_it_is_suspended_has_ended(
    stack: Stack, world: World, node: FakeNode, member: Caller
) -> None:
    actor = stack.actor(world.member)
    for _ in range(5):
        job, spec = run(stack, node, member)
        turn = iter(range(2))

        def either(uow: UnitOfWork, job: Any = job, spec: Any = spec, turn: Any = turn) -> None:
            if next(turn):
                suspend_job(uow, UUID(job["id"]), None)
            else:
                node.ship(node.report(spec, ReplicaState.SUCCEEDED, exit_code=0))

        stack.race(either, times=2, actor=actor)
        assert state_of(member, job) == "succeeded"
        assert used(stack, world) == (0, [0, 0])


def test_who_is_resumed_while_others_are_placed_never_shares_a_device(
    stack: Stack, world: World, node: FakeNode, member: Caller
) -> None:
    actor, whole = stack.actor(world.member), {**WHOLE, "gpus": 2}
    for _ in range(5):
        job, spec = park(stack, node, member, resources=whole)
        other = submit(member, resources=whole)
        turn = iter(range(2))

        def either(uow: UnitOfWork, job: Any = job, turn: Any = turn) -> object:
            return resume_job(uow, UUID(job["id"]), None).state if next(turn) else stack.cycle(uow).started

        stack.race(either, times=2, actor=actor)
        plan(stack)
        assert used(stack, world)[1] == [1000, 1000]
        live = {one.job_id: one for one in placed(stack, node)}
        if node.beat(held(spec, ReplicaState.SUSPENDED)).stop:
            assert live[other["id"]].after == (f"{spec.replica_id}.1",)
            node.ship(node.report(spec, ReplicaState.PREEMPTED, cause=Cause.SUSPENDED))
        else:
            assert other["id"] not in live
            node.ship(node.report(spec, ReplicaState.RUNNING), node.report(spec, ReplicaState.SUCCEEDED, exit_code=0))
        while states := {state_of(member, one) for one in (job, other)} - {"succeeded"}:
            plan(stack)
            for one in placed(stack, node):
                node.succeed(one)
            assert states <= {"queued", "scheduled"}


@pytest.mark.parametrize("action", ["suspend", "resume"])
def test_only_members_suspend_and_resume(
    stack: Stack, world: World, node: FakeNode, member: Caller, action: str
) -> None:
    job = submit(member)
    assert change(stack.client(world.stranger), job, action).status == 404
    assert change(stack.client(world.viewer), job, action).status == 403


def a_gang(stack: Stack, node: FakeNode, caller: Caller) -> tuple[dict[str, Any], list[wire.ReplicaSpec]]:
    """A job of two that stands still and was resumed: it is about to go on where it was."""
    job = submit(caller, resources=WHOLE, replicas=2)
    plan(stack)
    specs = placed(stack, node)
    for spec in specs:
        node.ship(node.report(spec, ReplicaState.STARTING), node.report(spec, ReplicaState.RUNNING))
    change(caller, job, "suspend")
    node.ship(*(node.report(spec, ReplicaState.SUSPENDED) for spec in specs))
    change(caller, job, "resume")
    assert plan(stack) == 1
    return job, specs


def test_a_gang_of_which_one_goes_on_already_is_parked_again(
    stack: Stack, world: World, node: FakeNode, member: Caller
) -> None:
    job, (one, two) = a_gang(stack, node, member)
    node.ship(node.report(one, ReplicaState.RUNNING))
    change(member, job, "suspend")
    node.ship(node.report(one, ReplicaState.SUSPENDED))
    assert state_of(member, job) == "scheduled"  # the other holds its device and is about to run
    node.ship(node.report(two, ReplicaState.RUNNING))
    node.ship(node.report(two, ReplicaState.SUSPENDED))
    assert state_of(member, job) == "suspended"
    assert used(stack, world) == (0, [0, 0])
    change(member, job, "resume")
    assert plan(stack) == 1
    node.ship(node.report(one, ReplicaState.RUNNING), node.report(two, ReplicaState.RUNNING))
    assert state_of(member, job) == "running"


def test_a_job_that_is_told_to_make_way_keeps_its_grace_when_it_is_suspended(
    stack: Stack, node: FakeNode, member: Caller
) -> None:
    job, spec = run(stack, node, member, grace="90s")
    order = Order("made way", "priority", job["id"], 60)
    assert stack.run(lambda uow: evict(uow, {UUID(job["id"]): order})) == 1
    change(member, job, "suspend")
    orders = node.beat(held(spec, ReplicaState.RUNNING))
    assert [(one.reason, one.grace_s) for one in orders.stop] == [(StopReason.PREEMPTED, 60)]
    assert not orders.pause
    node.ship(node.report(spec, ReplicaState.PREEMPTED, cause=Cause.PREEMPTED))
    assert state_of(member, job) == "suspended"


def test_a_parked_job_that_gave_back_its_room_already_is_not_told_to_make_way(
    stack: Stack, node: FakeNode, member: Caller
) -> None:
    job, spec = park(stack, node, member)
    order = Order("made way", "priority", job["id"], 60)
    assert stack.run(lambda uow: evict(uow, {UUID(job["id"]): order})) == 0
    assert not node.beat(held(spec, ReplicaState.SUSPENDED)).stop


def test_the_time_that_an_ended_job_was_parked_is_no_run_time(stack: Stack, node: FakeNode, member: Caller) -> None:
    job, spec = park(stack, node, member)

    def long_ago(uow: UnitOfWork) -> None:
        row = uow.get(Job, UUID(job["id"]))
        assert row.started_at is not None
        row.started_at, row.parked_at = uow.clock.now() - timedelta(hours=3), uow.clock.now() - timedelta(hours=2)

    stack.run(long_ago)
    change(member, job, "cancel")
    node.ship(node.report(spec, ReplicaState.CANCELLED, cause=Cause.CANCELLED))
    assert member.get(f"/jobs/{job['id']}").json["run_s"] == pytest.approx(3600, abs=60)


def test_going_on_takes_no_lock_of_a_node_behind_that_of_a_job(stack: Stack, node: FakeNode, member: Caller) -> None:
    job, spec = park(stack, node, member)
    change(member, job, "resume")
    plan(stack)
    with counted(stack) as statements:
        node.ship(node.report(spec, ReplicaState.RUNNING))
    assert state_of(member, job) == "running"
    assert not [one for one in statements if "UPDATE nodes" in one]


def test_a_queued_job_whose_parked_processes_are_gone_is_looked_at_again(
    stack: Stack, node: FakeNode, member: Caller
) -> None:
    job, spec = park(stack, node, member)
    assert change(member, job, "resume").json["state"] == "queued"
    node.ship(node.report(spec, ReplicaState.LOST, cause=Cause.NODE_LOST, message="gone"))
    assert state_of(member, job) == "queued"
    said = [event["kind"] for event in member.get(f"/jobs/{job['id']}/events").json["items"]]
    assert said[said.index("replica.lost") :].count("job.queued") == 1
    assert plan(stack) == 1
    (again,) = placed(stack, node)
    assert again.attempt == 2


def test_a_resumed_job_whose_processes_are_being_ended_says_what_it_waits_for(
    stack: Stack, world: World, node: FakeNode, member: Caller
) -> None:
    job, _ = park(stack, node, member)
    submit(member, resources={"cpus": 1, "gpus": 2})
    plan(stack)
    shown = change(member, job, "resume").json
    assert shown["state"] == "suspended"
    assert "trellis resume" not in shown["why"]
    assert "waits for its processes" in shown["why"]


def test_what_ends_where_it_can_not_stand_still_made_way_for_nobody(
    stack: Stack, node: FakeNode, member: Caller
) -> None:
    job, spec = run(stack, node, member)
    change(member, job, "suspend")
    node.ship(node.report(spec, ReplicaState.PREEMPTED, cause=Cause.SUSPENDED))
    assert state_of(member, job) == "suspended"
    assert '"preemptions": 0' in stack.dump()


def overdue(stack: Stack, job: dict[str, Any]) -> None:
    """Let its deadline lie in the past."""

    def shift(uow: UnitOfWork) -> None:
        uow.get(Job, UUID(job["id"])).deadline_at = uow.clock.now() - timedelta(seconds=1)

    stack.run(shift)


def test_a_deadline_ends_what_is_parked_and_is_told_once(stack: Stack, node: FakeNode, member: Caller) -> None:
    job, spec = park(stack, node, member)
    overdue(stack, job)
    stack.run(end_overdue)
    (told,) = node.beat(held(spec, ReplicaState.SUSPENDED)).stop
    assert told.reason == StopReason.TIMED_OUT
    with counted(stack) as statements:
        stack.run(end_overdue)
    assert len([one for one in statements if "FROM replicas" in one and "FROM jobs" not in one]) == 0
    node.ship(node.report(spec, ReplicaState.TIMED_OUT, cause=Cause.TIME_LIMIT))
    assert state_of(member, job) == "timed_out"


def test_a_job_that_ran_before_its_deadline_passed_is_not_said_to_have_never_started(
    stack: Stack, node: FakeNode, member: Caller
) -> None:
    job, spec = park(stack, node, member)
    node.ship(node.report(spec, ReplicaState.LOST, cause=Cause.NODE_LOST, message="gone"))
    overdue(stack, job)
    stack.run(end_overdue)
    ended = member.get(f"/jobs/{job['id']}").json
    assert (ended["state"], ended["message"]) == ("timed_out", "its deadline passed before it could go on")
