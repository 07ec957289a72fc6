"""What the cluster has, and how much of what is idle nobody could use."""

from tests.support.fake_node import FakeNode, a_description
from tests.support.stack import Stack
from tests.support.world import World


def test_idle_devices_are_measured_by_what_was_asked_for_lately(stack: Stack, world: World) -> None:
    member = stack.client(world.member)
    for name in ("a", "b"):
        FakeNode.join(stack, world, a_description(name, gpus=2))
    FakeNode.join(stack, world, a_description("cpu"))
    (before,) = member.get("/resources/capacity").json["gpus"]
    assert before == {
        "gpu_type": "H100", "nodes": 2, "devices": 4, "idle_milli": 4000, "whole": 4, "most_on_one_node": 2,
        "useless_milli": None,
    }  # fmt: skip
    spread = {"command": ["true"], "resources": {"gpus": 2, "cpus": 1}}
    small = {"command": ["true"], "resources": {"gpus": 0.6, "cpus": 1}}
    assert member.post("/jobs/batch", {"jobs": [small, small, spread]}).status == 201
    stack.run(stack.cycle)
    told = member.get("/resources/capacity").json
    (gpus,) = told["gpus"]
    assert (told["nodes"], told["nodes_ready"], told["cpu_milli"]) == (3, 3, {"capacity": 24_000, "held": 3000})
    # Of the 0.4 beside each share a third of the jobs, the large ones, and the small ones as well, can use nothing.
    assert (gpus["idle_milli"], gpus["whole"], gpus["useless_milli"]) == (800, 0, 800)


def test_who_has_nothing_to_do_with_any_project_sees_it_too(stack: Stack, world: World) -> None:
    assert stack.client(world.stranger).get("/resources/capacity").json["nodes"] == 0
    assert stack.client().get("/resources/capacity").status == 401
