"""Jobs in containers, from their submission to what a node is told."""

import pytest

from tests.integration.jobs.test_life import placed, plan, start, submit
from tests.support.fake_node import FakeNode, a_description
from tests.support.stack import Caller, Stack
from tests.support.world import World
from trellis.vocabulary import ExecutorKind, Isolation, PullPolicy
from trellis.wire import Container

BOTH = (ExecutorKind.PROCESS, ExecutorKind.CONTAINER)


@pytest.fixture
def member(stack: Stack, world: World) -> Caller:
    return stack.client(world.member)


def test_a_node_is_told_the_image_and_how_to_get_it(stack: Stack, world: World, member: Caller) -> None:
    node = FakeNode.join(stack, world, a_description(executors=BOTH))
    submit(member, image="tool:1", pull="always", security={"read_only_root": False})
    spec = start(stack, node)
    assert (spec.executor, spec.container) == (ExecutorKind.CONTAINER, Container("tool:1", PullPolicy.ALWAYS, False))


def test_a_job_without_an_image_is_a_process(stack: Stack, world: World, member: Caller) -> None:
    node = FakeNode.join(stack, world, a_description(executors=BOTH))
    submit(member)
    spec = start(stack, node)
    assert (spec.executor, spec.container) == (ExecutorKind.PROCESS, None)


def test_where_no_node_has_an_engine_it_waits_and_hears_why(stack: Stack, world: World, member: Caller) -> None:
    FakeNode.join(stack, world)
    job = submit(member, image="tool:1")
    assert plan(stack) == 0
    assert "having no container engine" in member.get(f"/jobs/{job['id']}?verbose=true").text
    FakeNode.join(stack, world, a_description("with-engine", executors=BOTH))
    assert plan(stack) == 1
    verbose = member.get(f"/jobs/{job['id']}?verbose=true").json
    assert verbose["attempts"][0]["replicas"][0]["node"] == "with-engine"


def test_a_container_keeps_in_as_far_as_the_strongest_level(stack: Stack, world: World, member: Caller) -> None:
    FakeNode.join(stack, world, a_description(executors=BOTH, isolation=Isolation.BASIC))
    strict = {"min_isolation": "namespaces"}
    submit(member, constraints=strict)
    assert plan(stack) == 0
    submit(member, image="tool:1", constraints=strict)
    assert plan(stack) == 1


def test_simulated_nodes_play_it(stack: Stack, world: World, member: Caller) -> None:
    FakeNode.join(stack, world, a_description(executors=(ExecutorKind.SIMULATED,)))
    submit(member, image="tool:1")
    assert plan(stack) == 1


def test_roles_run_each_in_its_own_image(stack: Stack, world: World, member: Caller) -> None:
    node = FakeNode.join(stack, world, a_description(executors=BOTH))
    submit(member, roles=[{"name": "a", "image": "one"}, {"name": "b"}], image="other")
    plan(stack)
    told = {spec.role: spec for spec in placed(stack, node)}
    assert {role: spec.container and spec.container.image for role, spec in told.items()} == {"a": "one", "b": "other"}


def test_a_job_that_is_tried_again_by_its_owner_keeps_its_image(stack: Stack, world: World, member: Caller) -> None:
    node = FakeNode.join(stack, world, a_description(executors=BOTH))
    job = submit(member, image="tool:1", pull="never")
    node.succeed(start(stack, node))
    answer = member.patch(f"/jobs/{job['id']}/status", {"action": "retry"})
    assert answer.status == 200, answer.text
    assert start(stack, node).container == Container("tool:1", PullPolicy.NEVER)
