"""What follows an attempt that ended, with real rows."""

from typing import Any

import pytest
from sqlalchemy import text

from app.jobs.losses import end_attempts_on_lost_nodes
from app.jobs.service import requeue_due
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
def node(stack: Stack, world: World) -> FakeNode:
    return FakeNode.join(stack, world)


def begin(stack: Stack, node: FakeNode) -> wire.ReplicaSpec:
    assert plan(stack) == 1
    (spec,) = placed(stack, node)
    node.ship(node.report(spec, ReplicaState.STARTING), node.report(spec, ReplicaState.RUNNING))
    return spec


def end(stack: Stack, node: FakeNode, state: ReplicaState, cause: Cause, exit_code: int | None = None) -> None:
    spec = begin(stack, node)
    node.ship(node.report(spec, state, cause=cause, exit_code=exit_code, message="it is over"))


def lose(stack: Stack) -> None:
    """Every node has said nothing for so long that it is given up."""
    stack.run(lambda uow: uow.session.execute(text("UPDATE nodes SET state = 'lost'")))
    stack.run(end_attempts_on_lost_nodes)


def test_each_cause_with_a_rule_counts_its_own_tries(stack: Stack, node: FakeNode, member: Caller) -> None:
    rules = {"out_of_memory": {"limit": 1, "backoff_s": 0}, "exit_code": {"limit": 2, "backoff_s": 0}}
    job = submit(member, retries={"by_cause": rules})
    for cause in (Cause.EXIT_CODE, Cause.OUT_OF_MEMORY, Cause.EXIT_CODE):
        end(stack, node, ReplicaState.FAILED, cause, 1)
        assert state_of(member, job) == "queued"
    end(stack, node, ReplicaState.FAILED, Cause.OUT_OF_MEMORY, 137)
    found = member.get(f"/jobs/{job['id']}").json
    assert (found["state"], found["cause"], found["attempt"]) == ("failed", "out_of_memory", 4)


def test_an_exit_code_that_was_not_named_ends_the_job(stack: Stack, node: FakeNode, member: Caller) -> None:
    job = submit(member, retries={"limit": 5, "backoff_s": 0, "exit_codes": [75]})
    end(stack, node, ReplicaState.FAILED, Cause.EXIT_CODE, 75)
    assert state_of(member, job) == "queued"
    end(stack, node, ReplicaState.FAILED, Cause.EXIT_CODE, 1)
    assert state_of(member, job) == "failed"


def test_a_job_that_is_preempted_too_often_fails_and_waits_before_it_does(
    stack: Stack, node: FakeNode, member: Caller
) -> None:
    job = submit(member, retries={"by_cause": {"preempted": {"limit": 1, "backoff_s": 3600}}})
    end(stack, node, ReplicaState.PREEMPTED, Cause.PREEMPTED)
    assert state_of(member, job) == "preempted"
    assert plan(stack) == 0
    stack.run(lambda uow: uow.session.execute(text("UPDATE jobs SET run_after = now()")))
    stack.run(requeue_due)
    end(stack, node, ReplicaState.PREEMPTED, Cause.PREEMPTED)
    found = member.get(f"/jobs/{job['id']}").json
    assert (found["state"], found["cause"]) == ("failed", "preempted")


def test_a_job_out_of_time_is_tried_again_where_that_was_said(stack: Stack, node: FakeNode, member: Caller) -> None:
    job = submit(member, retries={"by_cause": {"time_limit": {"limit": 1, "backoff_s": 0}}})
    end(stack, node, ReplicaState.TIMED_OUT, Cause.TIME_LIMIT)
    assert state_of(member, job) == "queued"
    end(stack, node, ReplicaState.TIMED_OUT, Cause.TIME_LIMIT)
    assert state_of(member, job) == "timed_out"


@pytest.mark.parametrize(("wish", "state"), [("requeue", "queued"), ("fail", "lost")])
def test_a_lost_node_is_followed_by_what_was_wished(
    stack: Stack, node: FakeNode, member: Caller, wish: str, state: str
) -> None:
    job = submit(member, on_node_lost=wish)
    assert begin(stack, node).leased
    lose(stack)
    assert state_of(member, job) == state


def waiting(stack: Stack, node: FakeNode, member: Caller) -> tuple[dict[str, Any], wire.ReplicaSpec]:
    """A job that waits for its silent node."""
    job = submit(member, on_node_lost="wait")
    spec = begin(stack, node)
    assert not spec.leased
    lose(stack)
    found = member.get(f"/jobs/{job['id']}").json
    assert (found["state"], "node-1 is silent" in found["why"]) == ("running", True)
    return job, spec


def test_a_job_that_waits_for_its_node_goes_on_with_it(
    stack: Stack, world: World, node: FakeNode, member: Caller
) -> None:
    job, spec = waiting(stack, node, member)
    orders = node.beat(held(spec, ReplicaState.RUNNING))
    assert not orders.stop
    assert member.get(f"/jobs/{job['id']}").json["why"] == ""
    node.ship(node.report(spec, ReplicaState.SUCCEEDED, exit_code=0))
    assert (state_of(member, job), member.get(f"/jobs/{job['id']}").json["attempt"]) == ("succeeded", 1)


def test_a_job_that_waits_for_its_node_runs_elsewhere_once_that_is_given_up(
    stack: Stack, world: World, node: FakeNode, member: Caller
) -> None:
    job, spec = waiting(stack, node, member)
    other = FakeNode.join(stack, world, a_description("node-2"))
    assert change(stack.client(world.stranger), job, "give_up").status == 404
    assert change(member, job, "give_up", reason="it burns").json["state"] == "queued"
    assert plan(stack) == 1
    (again,) = placed(stack, other)
    assert (again.job_id, again.fence) == (job["id"], 2)
    (stop,) = node.beat(held(spec, ReplicaState.RUNNING)).stop
    assert (stop.replica_id, stop.reason, stop.grace_s) == (spec.replica_id, StopReason.STALE, 0)


def test_a_suspended_job_does_not_wait_for_its_node(stack: Stack, node: FakeNode, member: Caller) -> None:
    job = submit(member, on_node_lost="wait")
    spec = begin(stack, node)
    change(member, job, "suspend")
    node.ship(node.report(spec, ReplicaState.SUSPENDED))
    lose(stack)
    assert change(member, job, "resume").json["state"] == "queued"
    node.beat()
    assert plan(stack) == 1
    assert [one.attempt for one in placed(stack, node)] == [2]


def test_nobody_gives_up_a_node_that_answers(stack: Stack, node: FakeNode, member: Caller) -> None:
    job = submit(member)
    begin(stack, node)
    refused = change(member, job, "give_up")
    assert (refused.status, refused.json["code"]) == (409, "not_silent")
    assert state_of(member, job) == "running"


def test_many_who_give_up_the_same_node_lose_the_attempt_once(stack: Stack, node: FakeNode, member: Caller) -> None:
    job, _ = waiting(stack, node, member)
    for _ in range(2):
        change(member, job, "give_up")
    kinds = [event["kind"] for event in member.get(f"/jobs/{job['id']}/events").json["items"]]
    assert kinds.count("replica.lost") == 1
    assert kinds.count("job.retrying") == 1
