"""A job's life over HTTP, with real rows: submit, plan, launch, report, end."""

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from app.core.uow import UnitOfWork
from app.jobs.dependencies import release_dependents_of
from app.jobs.models import Replica
from tests.support.fake_node import FakeNode, a_description
from tests.support.stack import Caller, Stack
from tests.support.world import World
from trellis import wire
from trellis.vocabulary import Cause, ReplicaState


@pytest.fixture
def member(stack: Stack, world: World) -> Caller:
    return stack.client(world.member)


def submit(caller: Caller, **body: Any) -> dict[str, Any]:
    answer = caller.post("/jobs", {"command": ["true"], **body})
    assert answer.status == 201, answer.text
    job: dict[str, Any] = answer.json
    return job


def plan(stack: Stack) -> int:
    return stack.run(stack.cycle).started


def placed(stack: Stack, node: FakeNode) -> list[wire.ReplicaSpec]:
    """The specs of what the cycle placed on the node, as its message would name them."""

    def pairs(uow: UnitOfWork) -> list[tuple[str, int]]:
        rows = uow.session.query(Replica).filter(Replica.ended_at.is_(None)).order_by(Replica.id)
        return [(str(row.id), row.fence) for row in rows if str(row.node_id) == node.welcome.node_id]

    return node.specs(*stack.run(pairs))


def start(stack: Stack, node: FakeNode) -> wire.ReplicaSpec:
    plan(stack)
    (spec,) = placed(stack, node)
    return spec


def test_a_job_goes_from_submit_to_success(stack: Stack, world: World, member: Caller) -> None:
    node = FakeNode.join(stack, world)
    job = submit(member, name="train", command=["python", "x.py"], resources={"cpus": 2, "memory": "1GiB"})
    assert job["state"] == "queued"
    spec = start(stack, node)
    assert spec.command == ("python", "x.py")
    assert (spec.cpu_milli, spec.memory_bytes) == (2000, 1 << 30)
    node.succeed(spec)
    ended = member.get(f"/jobs/{job['id']}?verbose=true").json
    assert (ended["state"], ended["exit_code"], ended["attempt"]) == ("succeeded", 0, 1)
    assert ended["attempts"][0]["replicas"][0]["node"] == "node-1"
    kinds = [event["kind"] for event in member.get(f"/jobs/{job['id']}/events").json["items"]]
    assert [kind for kind in kinds if kind.startswith("job.")] == [
        "job.submitted", "job.queued", "job.scheduled", "job.starting", "job.running", "job.succeeded",
    ]  # fmt: skip
    seen = stack.client(world.admin).get("/resources/nodes").json["items"][0]
    assert (seen["cpu_milli_used"], seen["memory_bytes_used"], seen["jobs"]) == (0, 0, [])


def test_logs_are_taken_in_once_and_in_order(stack: Stack, world: World, member: Caller) -> None:
    node = FakeNode.join(stack, world)
    job = submit(member)
    spec = start(stack, node)
    first = wire.LogChunk(spec.replica_id, spec.fence, 0, "1 o one\n2 e two\n")
    receipt = node.ship(node.report(spec, ReplicaState.STARTING), logs=(first,))
    end = len(first.text)
    assert receipt.logs == {spec.replica_id: end}
    gap = wire.LogChunk(spec.replica_id, spec.fence, end + 5, "9 o lost\n")
    assert node.ship(logs=(gap,)).logs == {spec.replica_id: end}
    overlap = wire.LogChunk(spec.replica_id, spec.fence, 0, first.text + "3 o three\n")
    node.ship(logs=(overlap, first))
    lines = member.get(f"/jobs/{job['id']}/logs").json["lines"]
    assert [(line["stream"], line["text"]) for line in lines] == [
        ("stdout", "one"), ("stderr", "two"), ("stdout", "three"),
    ]  # fmt: skip
    tail = member.get(f"/jobs/{job['id']}/logs?tail=1&stream=stdout").json
    assert [line["text"] for line in tail["lines"]] == ["three"]


def test_a_known_report_changes_nothing_and_an_old_fence_is_stale(stack: Stack, world: World, member: Caller) -> None:
    node = FakeNode.join(stack, world)
    job = submit(member, retries={"limit": 1, "backoff_s": 0})
    spec = start(stack, node)
    running = node.report(spec, ReplicaState.STARTING)
    node.ship(running)
    node.ship(running)
    node.fail(spec, exit_code=3)
    assert member.get(f"/jobs/{job['id']}").json["state"] == "queued"
    second = start(stack, node)
    assert second.fence == spec.fence + 1
    late = wire.Report(spec.replica_id, spec.fence, 9, ReplicaState.RUNNING, "2026-01-01T00:00:00+00:00")
    assert node.ship(late).stale == (spec.replica_id,)
    node.fail(second, exit_code=4)
    ended = member.get(f"/jobs/{job['id']}").json
    assert (ended["state"], ended["exit_code"], ended["cause"], ended["attempt"]) == ("failed", 4, "exit_code", 2)


def test_cancel_ends_what_waits_at_once_and_tells_the_node_of_what_runs(
    stack: Stack, world: World, member: Caller
) -> None:
    node = FakeNode.join(stack, world)
    running = submit(member)
    spec = start(stack, node)
    node.ship(node.report(spec, ReplicaState.STARTING), node.report(spec, ReplicaState.RUNNING))
    answer = member.patch(f"/jobs/{running['id']}/status", {"action": "cancel", "reason": "enough"})
    assert answer.json["state"] == "running"
    (stop,) = node.beat(wire.Held(spec.replica_id, spec.fence, ReplicaState.RUNNING)).stop
    assert (stop.replica_id, stop.reason, stop.grace_s) == (spec.replica_id, "cancelled", 10)
    node.ship(node.report(spec, ReplicaState.CANCELLED, cause=Cause.CANCELLED, signal=15))
    assert member.get(f"/jobs/{running['id']}").json["state"] == "cancelled"
    waiting = submit(member)
    assert member.patch(f"/jobs/{waiting['id']}/status", {"action": "cancel"}).json["state"] == "cancelled"
    again = member.patch(f"/jobs/{waiting['id']}/status", {"action": "cancel"})
    assert (again.status, again.json["code"]) == (409, "illegal_transition")


def test_retry_makes_a_new_job_that_remembers_the_old_one(stack: Stack, member: Caller) -> None:
    job = submit(member, labels={"team": "vision"})
    refused = member.patch(f"/jobs/{job['id']}/status", {"action": "retry"})
    assert (refused.status, refused.json["code"]) == (409, "not_ended")
    member.patch(f"/jobs/{job['id']}/status", {"action": "cancel"})
    again = member.patch(f"/jobs/{job['id']}/status", {"action": "retry"}).json
    assert again["retry_of"] == job["id"]
    assert (again["state"], again["labels"]) == ("queued", {"team": "vision"})


def test_a_heartbeat_brings_what_a_lost_message_did_not(stack: Stack, world: World, member: Caller) -> None:
    node = FakeNode.join(stack, world)
    submit(member)
    spec = start(stack, node)
    assert node.beat().launch == ()  # its message may still be on its way
    stack.run(lambda uow: uow.session.execute(text("UPDATE replicas SET created_at = now() - interval '3 seconds'")))
    assert node.beat().launch == (spec,)
    assert node.beat(wire.Held(spec.replica_id, spec.fence, ReplicaState.PLACED)).launch == ()
    (stop,) = node.beat(wire.Held("00000000-0000-7000-8000-000000000000", 1, ReplicaState.RUNNING)).stop
    assert stop.reason == "stale"


def test_dependents_wait_and_are_released_or_given_up(stack: Stack, world: World, member: Caller) -> None:
    node = FakeNode.join(stack, world)
    first = submit(member)
    then = submit(member, depends_on=[{"job": first["id"]}])
    instead = submit(member, depends_on=[{"job": first["id"], "kind": "after_failure"}])
    assert then["state"] == "pending"
    assert "waits for 1 other job" in then["why"]
    node.succeed(start(stack, node))
    for _ in range(2):
        stack.run(lambda uow: release_dependents_of(uow, [UUID(first["id"])]))
    assert member.get(f"/jobs/{then['id']}").json["state"] == "queued"
    assert member.get(f"/jobs/{instead['id']}").json["state"] == "cancelled"
    late = submit(member, depends_on=[{"job": first["id"], "kind": "after_any"}])
    assert late["state"] == "queued"


def test_a_waiting_job_says_why_in_words(stack: Stack, world: World, member: Caller) -> None:
    FakeNode.join(stack, world, a_description(cpus=2, gpus=2))
    job = submit(member, resources={"gpus": 4})
    plan(stack)
    why = member.get(f"/jobs/{job['id']}").json["why"]
    assert "4" in why
    assert "2" in why


def test_an_array_is_accepted_whole_with_at_most_so_many_at_once(stack: Stack, world: World, member: Caller) -> None:
    FakeNode.join(stack, world)
    answer = member.post("/jobs", {"command": ["true"], "array": {"indexes": "0-9", "max_parallel": 2}})
    assert (answer.status, answer.json["count"]) == (201, 10)
    states = [job["state"] for job in answer.json["items"]]
    assert states == ["queued"] * 2 + ["pending"] * 8
    assert plan(stack) == 2
