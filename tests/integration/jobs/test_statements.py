"""What many jobs cost beside one: a unit takes as many statements, whatever it holds."""

from collections.abc import Callable

import pytest

from tests.integration.jobs.test_life import placed, plan, submit
from tests.support.fake_node import FakeNode, a_description
from tests.support.stack import Caller, Stack
from tests.support.statements import counted
from tests.support.world import World
from trellis import wire
from trellis.vocabulary import ReplicaState

FEW, MANY = 1, 12


@pytest.fixture
def member(stack: Stack, world: World) -> Caller:
    return stack.client(world.member)


@pytest.fixture
def node(stack: Stack, world: World) -> FakeNode:
    return FakeNode.join(stack, world, a_description(cpus=64, gpus=16))


def statements_for(stack: Stack, act: Callable[[], object]) -> int:
    with counted(stack) as statements:
        act()
    return len(statements)


def started(stack: Stack, member: Caller, node: FakeNode, count: int) -> list[wire.ReplicaSpec]:
    for _ in range(count):
        submit(member, resources={"gpus": 1})
    assert plan(stack) == count
    return placed(stack, node)


def test_a_cycle_takes_as_many_statements_for_many_jobs_as_for_one(
    stack: Stack, member: Caller, node: FakeNode
) -> None:
    started(stack, member, node, FEW)  # the first cycle of a process reads the cluster

    def cycle(count: int) -> int:
        for _ in range(count):
            submit(member, resources={"gpus": 1})
        with counted(stack) as statements:
            assert plan(stack) == count
        return len(statements)

    assert cycle(FEW) == cycle(MANY) <= 24


def test_specs_are_fetched_in_two_statements(stack: Stack, member: Caller, node: FakeNode) -> None:
    pairs = [(spec.replica_id, spec.fence) for spec in started(stack, member, node, MANY)]
    assert statements_for(stack, lambda: node.specs(*pairs)) == 2


def test_a_shipment_takes_as_many_statements_for_many_jobs_as_for_one(
    stack: Stack, member: Caller, node: FakeNode
) -> None:
    def shipment(count: int, *states: ReplicaState) -> int:
        specs = started(stack, member, node, count)
        reports = [node.report(spec, state) for spec in specs for state in states]
        chunks = tuple(wire.LogChunk(spec.replica_id, spec.fence, 0, "1 o hello\n") for spec in specs)
        taken = statements_for(stack, lambda: node.ship(*reports, logs=chunks))
        node.ship(*(node.report(spec, ReplicaState.FAILED) for spec in specs))
        return taken

    assert shipment(FEW, ReplicaState.STARTING) == shipment(MANY, ReplicaState.STARTING) <= 8
    both = (ReplicaState.STARTING, ReplicaState.RUNNING)
    assert shipment(FEW, *both) == shipment(MANY, *both) <= 8


def test_an_end_takes_as_many_statements_for_many_jobs_as_for_one(stack: Stack, member: Caller, node: FakeNode) -> None:
    def end(count: int) -> int:
        specs = started(stack, member, node, count)
        states = (ReplicaState.STARTING, ReplicaState.RUNNING, ReplicaState.SUCCEEDED)
        reports = [node.report(spec, state) for spec in specs for state in states]
        return statements_for(stack, lambda: node.ship(*reports))

    assert end(FEW) == end(MANY) <= 9
    seen = member.get("/resources/nodes").json["items"][0]
    assert (seen["cpu_milli_used"], seen["memory_bytes_used"]) == (0, 0)
    assert not any(gpu["milli_used"] for gpu in seen["gpus"])
