"""Checkpoints of several replicas: the latest is the newest step of which every part is there, for all the same."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.scheduling.test_asks import specs
from tests.support.fake_node import FakeNode
from tests.support.saving import contents, lose, save, send, store_files
from tests.support.stack import Caller, Stack
from tests.support.world import World
from trellis import wire
from trellis.vocabulary import ReplicaState

SIZE = 3


@pytest.fixture
def node(stack: Stack, world: World) -> FakeNode:
    return FakeNode.join(stack, world)


@pytest.fixture
def member(stack: Stack, world: World) -> Caller:
    return stack.client(world.member)


def gang(stack: Stack, caller: Caller, node: FakeNode, **checkpoint: Any) -> list[wire.ReplicaSpec]:
    wish = {"command": ["true"], "replicas": SIZE, "resources": {"cpus": 1}, "checkpoint": {"every": 60, **checkpoint}}
    answer = caller.post("/jobs", wish)
    assert answer.status == 201, answer.text
    return begin(stack, node)


def begin(stack: Stack, node: FakeNode) -> list[wire.ReplicaSpec]:
    stack.run(stack.cycle)
    found = specs(stack, node)
    for spec in found:
        node.ship(node.report(spec, ReplicaState.STARTING), node.report(spec, ReplicaState.RUNNING))
    return found


def end(node: FakeNode, found: list[wire.ReplicaSpec]) -> None:
    for spec in found:
        lose(node, spec)


def part(index: int, step: int, attempt: int = 1) -> dict[str, bytes]:
    return {"part": f"part {index} of step {step} of attempt {attempt}".encode()}


def given_to(stack: Stack, found: list[wire.ReplicaSpec]) -> list[str]:
    """What each would find, in words."""
    said = []
    for spec in found:
        plan = spec.checkpoint
        assert plan is not None
        assert plan.shared
        assert len(plan.restore) <= 1  # no second choice, that only one of them would make
        said += [contents(stack, key, plan.public_key)["part"].decode() for key in plan.restore] or [""]
    return said


@settings(
    max_examples=15, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(attempts=st.lists(st.lists(st.integers(0, 5), min_size=SIZE, max_size=SIZE), min_size=1, max_size=3))
def test_wherever_a_gang_is_killed_all_go_on_from_the_newest_step_that_all_have(
    stack: Stack, member: Caller, node: FakeNode, attempts: list[list[int]]
) -> None:
    """Each attempt ends when replica 0 has saved so many steps, replica 1 so many, and so on."""
    found = gang(stack, member, node, by="all", keep={"last": 1})
    latest = [""] * SIZE
    first = 0
    for number, ends in enumerate(attempts, 1):
        assert given_to(stack, found) == latest
        for step in range(1, max(ends) + 1):
            for spec in found:
                if step <= ends[spec.index]:
                    save(stack, node, spec, part(spec.index, first + step, number), step=first + step)
        if common := min(ends):
            latest = [part(index, first + common, number)["part"].decode() for index in range(SIZE)]
            first += common
        end(node, found)
        found = begin(stack, node)
    assert given_to(stack, found) == latest
    member.patch(f"/jobs/{found[0].job_id}/status", {"action": "cancel"})
    for spec in found:
        node.ship(node.report(spec, ReplicaState.CANCELLED))


def test_a_part_without_a_step_is_refused_with_the_reason(stack: Stack, member: Caller, node: FakeNode) -> None:
    spec, *_ = gang(stack, member, node, by="all")
    answer = send(node, spec, store_files(stack, spec, part(0, 1), step=None))
    assert answer.status == 422
    assert "by their step" in answer.text


def test_a_damaged_part_is_of_no_use_to_the_others_either(stack: Stack, member: Caller, node: FakeNode) -> None:
    found = gang(stack, member, node, by="all")
    for step in (1, 2):
        for spec in found:
            save(stack, node, spec, part(spec.index, step), step=step)
    end(node, found)
    found = begin(stack, node)
    assert given_to(stack, found)[2] == "part 2 of step 2 of attempt 1"
    plan = found[1].checkpoint
    assert plan is not None
    told = wire.Restored(found[1].fence, "", (f"{plan.restore[0]} is damaged",))
    assert node.caller.post(f"/agent/replicas/{found[1].replica_id}/restored", wire.pack(told)).status == 200
    end(node, found)
    assert given_to(stack, begin(stack, node)) == [f"part {index} of step 1 of attempt 1" for index in range(SIZE)]


def test_usually_the_first_replica_saves_for_all(stack: Stack, member: Caller, node: FakeNode) -> None:
    found = gang(stack, member, node)
    assert [spec.checkpoint and spec.checkpoint.saves for spec in found] == [True, False, False]
    save(stack, node, found[0], part(0, 7), step=7)
    refused = send(node, found[1], store_files(stack, found[1], part(1, 8), step=8))
    assert (refused.status, "replica 0" in refused.text) == (422, True)
    member.post(f"/jobs/{found[0].job_id}/checkpoints", {})
    saves = node.beat(*(wire.Held(spec.replica_id, spec.fence, ReplicaState.RUNNING) for spec in found)).save
    assert [one.replica_id for one in saves] == [found[0].replica_id]
    end(node, found)
    assert given_to(stack, begin(stack, node)) == ["part 0 of step 7 of attempt 1"] * SIZE


def test_replicas_that_have_nothing_to_do_with_each_other_each_go_on_by_themselves(
    stack: Stack, member: Caller, node: FakeNode
) -> None:
    found = gang(stack, member, node, by="each")
    for spec, step in zip(found, (4, 5, 6), strict=True):
        save(stack, node, spec, part(spec.index, step), step=step)
    end(node, found)
    again = [spec.checkpoint for spec in begin(stack, node)]
    said = [contents(stack, plan.restore[0], plan.public_key)["part"].decode() for plan in again if plan]
    assert said == ["part 0 of step 4 of attempt 1", "part 1 of step 5 of attempt 1", "part 2 of step 6 of attempt 1"]
