"""Why the jobs of a queue wait, as it is told: in order, and of other projects only that they do."""

from random import Random

import pytest

from app.scheduling.classes import Classes
from app.scheduling.cluster import load_snapshot
from app.scheduling.policy import load_policy
from app.scheduling.predictions import Expected
from scheduler.engine import plan
from scheduler.policies import POLICIES
from tests.support.builders import a_queue
from tests.support.fake_node import FakeNode, a_description
from tests.support.stack import Caller, Stack
from tests.support.world import World


def submit(caller: Caller, count: int = 1, **body: object) -> list[str]:
    answer = caller.post("/jobs/batch", {"jobs": [{"command": ["true"], **body}] * count})
    assert answer.status == 201, answer.text
    return [job["id"] for job in answer.json["items"]]


def test_the_heads_of_a_queue_come_in_order_with_their_verdicts(stack: Stack, world: World) -> None:
    FakeNode.join(stack, world, a_description(cpus=2))
    member = stack.client(world.member)
    path = f"/queues/{world.shared_queue.id}/explain"
    many = submit(member, 3, resources={"cpus": 1.5}, name="many")
    assert [head["reason"] for head in member.get(path).json["heads"]] == [None]
    first = submit(member, resources={"cpus": 64}, priority=5, name="huge")
    stack.run(stack.cycle)
    told = member.get(path).json
    assert (told["name"], told["policy"], told["second_policy"]) == ("default", "priority", "slowdown")
    huge, rest = told["heads"]
    assert (huge["job_id"], huge["position"], huge["count"], huge["reason"]) == (first[0], 1, 1, "never_fits")
    assert "64 CPUs" in huge["message"]
    assert (rest["job_id"], rest["position"], rest["count"], rest["name"]) == (many[1], 2, 2, "many")
    assert rest["project"] == world.project.name


def heads_of(caller: Caller, world: World, **query: str) -> list[str]:
    answer = caller.get(f"/queues/{world.shared_queue.id}/explain", query_string=query)
    assert answer.status == 200, answer.text
    return [head["name"] for head in answer.json["heads"]]


def test_the_order_is_that_of_the_queues_policies(stack: Stack, world: World) -> None:
    member, admin = stack.client(world.member), stack.client(world.admin)
    submit(member, name="small", resources={"cpus": 1}, priority=3)
    submit(member, name="large", resources={"cpus": 8}, replicas=2)
    submit(member, name="late", resources={"cpus": 1}, priority=9, deadline="2099-01-01T00:00:00Z")
    FakeNode.join(stack, world, a_description(cpus=16))
    assert heads_of(member, world) == ["late", "small", "large"]
    path = f"/queues/{world.shared_queue.id}"
    for policy, order in (
        ("fifo", ["small", "large", "late"]),
        ("gang", ["large", "small", "late"]),
    ):
        assert admin.patch(path, {"policy": policy, "second_policy": "fifo"}).status == 200
        assert heads_of(member, world) == order


def test_fair_share_puts_first_who_holds_least(stack: Stack, world: World) -> None:
    member, stranger, admin = (stack.client(user) for user in (world.member, world.stranger, world.admin))
    FakeNode.join(stack, world, a_description(cpus=4))
    admin.patch(f"/queues/{world.shared_queue.id}", {"policy": "fair_share"})
    submit(member, resources={"cpus": 4}, name="runs")
    stack.run(stack.cycle)
    submit(member, resources={"cpus": 4}, name="of who holds")
    submit(stranger, resources={"cpus": 4}, name="of who holds nothing")
    assert heads_of(admin, world) == ["of who holds nothing", "of who holds"]
    stack.run(stack.cycle)
    assert heads_of(admin, world) == ["of who holds nothing", "of who holds"]


def test_what_waits_before_one_job_ends_with_its_position(stack: Stack, world: World) -> None:
    member = stack.client(world.member)
    submit(member, 3, name="first", priority=5)
    (job_id,) = submit(member, name="mine")
    submit(member, name="later", priority=-1)
    path = f"/queues/{world.shared_queue.id}/explain"
    told = member.get(path, query_string={"job": job_id}).json
    assert (told["position"], [head["name"] for head in told["heads"]]) == (4, ["first"])
    assert stack.client(world.stranger).get(path, query_string={"job": job_id}).status == 404
    member.patch(f"/jobs/{job_id}/status", {"action": "cancel"})
    assert member.get(path, query_string={"job": job_id}).status == 404


def test_of_other_projects_jobs_only_that_they_wait_is_told(stack: Stack, world: World) -> None:
    member = stack.client(world.member)
    (job_id,) = submit(member, name="the-secret-job")
    stack.run(stack.cycle)
    answer = stack.client(world.stranger).get(f"/queues/{world.shared_queue.id}/explain")
    (head,) = answer.json["heads"]
    assert (head["count"], head["reason"], head["job_id"], head["message"]) == (1, "no_nodes", None, None)
    assert not [mark for mark in (job_id, "the-secret-job", world.project.name) if mark in answer.text]


def test_a_queue_of_its_own_policies_says_so_and_a_strangers_is_not_there(stack: Stack, world: World) -> None:
    queue = stack.add(a_queue(world.project, policy="fair_share", second_policy="priority"))
    path = f"/queues/{queue.id}/explain"
    told = stack.client(world.viewer).get(path).json
    assert (told["policy"], told["second_policy"], told["heads"]) == ("fair_share", "priority", [])
    assert stack.client(world.stranger).get(path).status == 404


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_positions_are_those_of_the_plan(stack: Stack, world: World, policy: str) -> None:
    random, admin = Random(policy), stack.client(world.admin)
    FakeNode.join(stack, world, a_description(cpus=4))
    admin.patch(f"/queues/{world.shared_queue.id}", {"policy": policy, "second_policy": "priority"})
    callers = [stack.client(world.member), stack.client(world.stranger)]
    for _ in range(12):
        wish = {"cpus": random.choice([1, 2, 3])}
        submit(
            random.choice(callers), resources=wish, priority=random.randint(0, 2), time_limit=random.choice([60, 600])
        )
    stack.run(stack.cycle)
    verdicts = stack.run(lambda uow: plan(load_snapshot(uow, Classes(), Expected()), load_policy(uow)).verdicts)
    heads = admin.get(f"/queues/{world.shared_queue.id}/explain").json["heads"]
    assert [(head["position"], head["job_id"], head["count"]) for head in heads] == sorted(
        (verdict.position, verdict.job_ids[0], len(verdict.job_ids)) for verdict in verdicts
    )
