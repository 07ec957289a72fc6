"""Replicas that begin together, and what becomes of all of them when one fails, over HTTP with real rows."""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

import pytest

from app.jobs.models import Job
from tests.integration.scheduling.test_asks import join, specs
from tests.support.fake_node import FakeNode
from tests.support.stack import Caller, Stack
from tests.support.statements import counted
from tests.support.world import World
from trellis import wire
from trellis.vocabulary import Cause, ReplicaState

EACH = {"cpus": 1, "memory": "1GiB"}
ELASTIC = {"min_replicas": 2, "max_replicas": 3, "on_replica_failure": "shrink"}


@pytest.fixture
def member(stack: Stack, world: World) -> Caller:
    policy = {"preemption": {"grace_period": 30, "min_run_time": 0}, "restart_cost": 0, "enable_consolidation": False}
    assert stack.client(world.admin).put("/scheduling/policy", policy).status == 200
    return stack.client(world.member)


@pytest.fixture
def nodes(stack: Stack, world: World) -> list[FakeNode]:
    return [join(stack, world, name, cpus=2) for name in ("a", "b")]


def gang(stack: Stack, caller: Caller, **body: Any) -> str:
    sizes = {} if body.keys() & {"max_replicas", "roles"} else {"replicas": 4}
    wish = {"command": ["true"], "network": "host", **({} if "roles" in body else {"resources": EACH}), **sizes, **body}
    answer = caller.post("/jobs", wish)
    assert answer.status == 201, answer.text
    stack.run(stack.cycle)
    return str(answer.json["id"])


def live(stack: Stack, nodes: Iterable[FakeNode]) -> list[tuple[FakeNode, wire.ReplicaSpec]]:
    return sorted(((node, spec) for node in nodes for spec in specs(stack, node)), key=lambda pair: pair[1].index)


def get_ready(
    node: FakeNode, spec: wire.ReplicaSpec, restored: str = "", state: ReplicaState = ReplicaState.STARTING
) -> None:
    ready = wire.Ready(f"10.0.0.{spec.index}", 20_000 + spec.index, restored)
    node.ship(node.report(spec, ReplicaState.STARTING), node.report(spec, state, ready=ready))


def begun(node: FakeNode, *mine: wire.ReplicaSpec) -> tuple[wire.World, ...]:
    return node.beat(*(wire.Held(spec.replica_id, spec.fence, ReplicaState.STARTING) for spec in mine)).begin


def run_all(stack: Stack, nodes: list[FakeNode]) -> list[tuple[FakeNode, wire.ReplicaSpec]]:
    pairs = live(stack, nodes)
    for node, spec in pairs:
        get_ready(node, spec)
    for node, spec in pairs:
        node.ship(node.report(spec, ReplicaState.RUNNING))
    return pairs


def shown(caller: Caller, job: str) -> dict[str, Any]:
    found: dict[str, Any] = caller.get(f"/jobs/{job}?verbose=true").json
    return found


def test_nobody_begins_before_all_are_ready_and_then_each_is_told_of_all(
    stack: Stack, member: Caller, nodes: list[FakeNode]
) -> None:
    job = gang(stack, member)
    pairs = live(stack, nodes)
    assert [spec.index for _, spec in pairs] == [0, 1, 2, 3]
    assert [node is pairs[0][0] for node, _ in pairs] == [True, True, False, False]  # neighbours share a node
    assert all(spec.gang for _, spec in pairs)
    for node, spec in pairs[:-1]:
        get_ready(node, spec)
    first = pairs[0][0]
    mine = [spec for node, spec in pairs if node is first]
    assert begun(first, *mine) == ()
    get_ready(*pairs[-1])
    (world,) = begun(first, *mine)
    assert world.ranks == {f"{spec.replica_id}.{spec.fence}": spec.index for spec in mine}
    assert (world.places, world.ports) == ((0, 0, 1, 1), (20_000, 20_001, 20_002, 20_003))
    assert (world.hosts, world.roles) == (("10.0.0.0", "10.0.0.2"), (0, 0, 0, 0))
    kinds = [event["kind"] for event in member.get(f"/jobs/{job}/events").json["items"]]
    assert kinds.count("replica.gang_ready") == 2  # one a node
    for node, spec in pairs:
        node.ship(node.report(spec, ReplicaState.RUNNING))
    assert begun(first, *mine) == ()
    replicas = shown(member, job)["attempts"][0]["replicas"]
    assert [one["address"] for one in replicas] == [f"10.0.0.{rank}:{20_000 + rank}" for rank in range(4)]


def test_a_plain_job_waits_for_nobody(stack: Stack, member: Caller, nodes: list[FakeNode]) -> None:
    gang(stack, member, replicas=1)
    ((_, spec),) = live(stack, nodes)
    assert not spec.gang


def test_what_a_gangs_start_costs_does_not_grow_with_it(stack: Stack, world: World, member: Caller) -> None:
    took = []
    for number, size in enumerate((2, 24)):
        node = join(stack, world, f"large{number}", cpus=size)
        gang(stack, member, replicas=size, constraints={"labels": {"name": f"large{number}"}})
        mine = specs(stack, node)
        for spec in mine:
            node.report(spec, ReplicaState.STARTING)
        with counted(stack) as statements:
            node.ship(*(node.report(spec, ReplicaState.STARTING, ready=wire.Ready("h", 20_000)) for spec in mine))
            (told,) = begun(node, *mine)
        assert len(told.places) == size
        took.append(len(statements))
    assert took[0] == took[1]


def test_replicas_that_were_given_different_checkpoints_begin_anew(
    stack: Stack, member: Caller, nodes: list[FakeNode]
) -> None:
    job = gang(stack, member, replicas=2)
    pairs = live(stack, nodes)
    get_ready(*pairs[0], restored="1/5")
    get_ready(*pairs[1], restored="1/4")
    for node, spec in pairs:
        held = wire.Held(spec.replica_id, spec.fence, ReplicaState.STARTING)
        orders = node.beat(held)
        assert orders.begin == ()
        assert "unmatched" in [stop.reason for stop in orders.stop]
        node.ship(node.report(spec, ReplicaState.FAILED, cause=Cause.RENDEZVOUS_FAILED, message="different"))
    after = shown(member, job)
    assert (after["state"], after["attempts"][0]["cause"]) == ("queued", "rendezvous_failed")


def test_one_that_cannot_start_takes_the_gang_back_to_the_queue_and_says_who_it_was(
    stack: Stack, member: Caller, nodes: list[FakeNode]
) -> None:
    job = gang(stack, member, replicas=2)
    (first, one), (second, other) = live(stack, nodes)
    get_ready(first, one)
    second.ship(
        second.report(other, ReplicaState.STARTING),
        second.report(other, ReplicaState.FAILED, cause=Cause.START_FAILED, message="no code"),
    )
    (stop,) = first.beat(wire.Held(one.replica_id, one.fence, ReplicaState.STARTING)).stop
    assert stop.reason == "cancelled"
    first.ship(first.report(one, ReplicaState.CANCELLED, cause=Cause.CANCELLED))
    after = shown(member, job)
    node = after["attempts"][0]["replicas"][1]["node"]
    assert (after["state"], after["message"]) == ("retrying", f"replica 1 on {node}: no code")
    assert [one["state"] for one in after["attempts"][0]["replicas"]] == ["cancelled", "failed"]


def test_those_that_fail_for_want_of_a_lost_one_are_not_the_reason(
    stack: Stack, member: Caller, nodes: list[FakeNode]
) -> None:
    job = gang(stack, member)
    pairs = run_all(stack, nodes)
    for node, spec in pairs[:3]:
        node.ship(node.report(spec, ReplicaState.FAILED, cause=Cause.EXIT_CODE, exit_code=1))
    node, lost = pairs[3]
    node.ship(node.report(lost, ReplicaState.LOST, cause=Cause.NODE_LOST, message="its node is gone"))
    after = shown(member, job)
    assert (after["state"], after["cause"]) == ("queued", "node_lost")
    assert after["message"].startswith("replica 3 on ")


def test_each_failure_costs_an_elastic_gang_one_place_until_it_has_its_fewest(
    stack: Stack, member: Caller, nodes: list[FakeNode]
) -> None:
    job = gang(stack, member, **ELASTIC)
    for size in (3, 2):
        assert shown(member, job)["max_replicas"] == size
        pairs = run_all(stack, nodes)
        assert len(pairs) == size
        (node, spec), *others = pairs
        node.ship(node.report(spec, ReplicaState.FAILED, cause=Cause.EXIT_CODE, exit_code=3, message="exit 3"))
        for node, spec in others:
            node.ship(node.report(spec, ReplicaState.CANCELLED, cause=Cause.CANCELLED))
        stack.run(stack.cycle)
    after = shown(member, job)
    assert (after["state"], after["exit_code"], after["attempt"]) == ("failed", 3, 2)
    assert stack.run(lambda uow: uow.session.get_one(Job, UUID(job)).retries) == 0
    kinds = [event["kind"] for event in member.get(f"/jobs/{job}/events").json["items"]]
    assert kinds.count("job.shrunk") == 1


def test_a_checkpointable_gang_begins_again_when_it_grows_where_it_was_and_beyond(
    stack: Stack, member: Caller, nodes: list[FakeNode]
) -> None:
    other = gang(stack, member, replicas=2)
    job = gang(stack, member, min_replicas=1, max_replicas=4, checkpointable=True)
    pairs = run_all(stack, nodes)
    mine = [pair for pair in pairs if pair[1].job_id == job]
    assert len(mine) == 2
    member.patch(f"/jobs/{other}/status", {"action": "cancel"})
    for node, spec in pairs:
        if spec.job_id == other:
            node.ship(node.report(spec, ReplicaState.CANCELLED, cause=Cause.CANCELLED))
    stack.run(stack.cycle)
    held = [wire.Held(spec.replica_id, spec.fence, ReplicaState.RUNNING) for _, spec in mine]
    stops = [stop for node in nodes for stop in node.beat(*held).stop]
    told = {(stop.replica_id, stop.reason) for stop in stops if stop.reason != "stale"}
    assert told == {(spec.replica_id, "resized") for _, spec in mine}
    for node, spec in mine:
        node.ship(node.report(spec, ReplicaState.PREEMPTED, cause=Cause.RESIZED))
    stack.run(stack.cycle)
    again = [spec for _, spec in live(stack, nodes)]
    assert [(spec.index, spec.attempt, spec.count) for spec in again] == [(rank, 2, 4) for rank in range(4)]
    row = stack.run(lambda uow: uow.session.get_one(Job, UUID(job)))
    assert (row.preemptions, row.retries, row.owed) == (0, 0, None)


def test_a_checkpointable_gang_gives_room_up_by_beginning_again_with_fewer(
    stack: Stack, member: Caller, nodes: list[FakeNode]
) -> None:
    job = gang(stack, member, min_replicas=1, max_replicas=4, checkpointable=True)
    pairs = run_all(stack, nodes)
    assert len(pairs) == 4
    urgent = gang(stack, member, replicas=2)
    stops: dict[str, str] = {}
    for node in nodes:
        held = [wire.Held(spec.replica_id, spec.fence, ReplicaState.RUNNING) for at, spec in pairs if at is node]
        stops |= {stop.replica_id: stop.reason for stop in node.beat(*held).stop}
    assert sorted(stops.values()) == ["resized", "resized", "surplus", "surplus"]
    for node, spec in pairs:
        cause = Cause.RESIZED if stops[spec.replica_id] == "resized" else Cause.PREEMPTED
        node.ship(node.report(spec, ReplicaState.PREEMPTED, cause=cause))
    stack.run(stack.cycle)
    now = [spec for _, spec in live(stack, nodes)]
    assert sorted(spec.job_id for spec in now) == sorted([job, job, urgent, urgent])
    assert {spec.count for spec in now} == {2}


def test_who_submits_hears_that_replicas_without_a_network_reach_nobody(
    stack: Stack, world: World, member: Caller
) -> None:
    alone = {"command": ["true"], "resources": EACH}
    assert member.post("/jobs", alone).json["notes"] == []
    (note,) = member.post("/jobs", {**alone, "replicas": 2}).json["notes"]
    assert "network: host" in note
    assert member.post("/jobs", {**alone, "replicas": 2, "network": "host"}).json["notes"] == []


def test_a_node_that_talks_nonsense_of_where_it_is_breaks_nothing(
    stack: Stack, member: Caller, nodes: list[FakeNode]
) -> None:
    job = gang(stack, member, replicas=2)
    pairs = live(stack, nodes)
    for node, spec in pairs:
        ready = wire.Ready("a\0b" * 1000, 99_999_999, "\0" * 1000)
        node.ship(node.report(spec, ReplicaState.STARTING), node.report(spec, ReplicaState.STARTING, ready=ready))
    (world,) = begun(pairs[0][0], pairs[0][1])
    assert world.ports == (0, 0)
    assert all(len(host) == 255 and "\0" not in host for host in world.hosts)
    assert shown(member, job)["state"] == "starting"


def test_a_node_can_not_say_that_the_replica_of_another_is_ready(
    stack: Stack, member: Caller, nodes: list[FakeNode]
) -> None:
    gang(stack, member)
    pairs = live(stack, nodes)
    for node, spec in pairs[:-1]:
        get_ready(node, spec)
    stranger = next(node for node in nodes if node is not pairs[-1][0])
    receipt = stranger.ship(stranger.report(pairs[-1][1], ReplicaState.STARTING, ready=wire.Ready("evil", 1)))
    assert receipt.stale == (pairs[-1][1].replica_id,)
    assert begun(pairs[0][0], pairs[0][1]) == ()
