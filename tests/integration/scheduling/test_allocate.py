"""Holding a part of a node without a job: by what constraints, for how long, whose it is to give back."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from app.core.amounts import Amounts
from app.core.uow import UnitOfWork
from app.resources.allocations import release_expired
from app.resources.candidates import Part
from app.resources.models import Allocation, Gpu, Node
from app.scheduling.claims import AllocationSpec, allocate
from tests.support.fake_node import FakeNode, a_description
from tests.support.stack import Answer, Caller, Stack
from tests.support.world import World
from trellis.wire import GpuDescription

GIB = 2**30


@pytest.fixture
def member(stack: Stack, world: World) -> Caller:
    return stack.client(world.member)


@pytest.fixture
def admin(stack: Stack, world: World) -> Caller:
    return stack.client(world.admin)


def a_node(stack: Stack, world: World, name: str = "node-1", traits: Any = None, **values: Any) -> str:
    node_id = FakeNode.join(stack, world, a_description(name, **values)).welcome.node_id
    if traits:
        answer = stack.client(world.admin).patch(f"/resources/nodes/{node_id}", traits)
        assert answer.status == 200, answer.text
    return node_id


def hold(caller: Caller, **body: Any) -> Answer:
    return caller.post("/resources/allocate", body)


def used(stack: Stack) -> tuple[int, int, list[int]]:
    def read(uow: Any) -> tuple[int, int, list[int]]:
        cpu, memory = uow.session.execute(select(Node.cpu_milli_used, Node.memory_bytes_used)).one()
        return cpu, memory, list(uow.session.execute(select(Gpu.milli_used).order_by(Gpu.index)).scalars())

    return stack.run(read)


def test_what_is_held_is_answered_listed_and_kept_from_jobs(stack: Stack, world: World, member: Caller) -> None:
    node_id = a_node(stack, world, cpus=8, gpus=2)
    made = hold(member, cpus=2, memory="4GiB", gpus=1, gpu_type="h100", name="notebook", ttl="2h")
    assert made.status == 201, made.text
    assert (made.json["node"], made.json["node_id"], made.json["owner"]) == ("node-1", node_id, world.member.username)
    assert (made.json["gpus"], made.json["job_id"]) == ([{"index": 0, "milli": 1000}], None)
    assert used(stack) == (2000, 4 * GIB, [1000, 0])
    (listed,) = member.get("/resources/allocations").json["items"]
    assert listed == made.json
    assert member.get(f"/resources/allocations/{made.json['id']}").json == made.json
    (holder,) = member.get(f"/resources/nodes/{node_id}").json["jobs"]
    assert (holder["name"], holder["job_id"]) == ("notebook", None)
    member.post("/jobs/batch", {"jobs": [{"command": ["true"], "resources": {"gpus": 1}}] * 2})
    assert stack.run(stack.cycle).started == 1
    assert used(stack)[2] == [1000, 1000]


def test_what_is_given_back_is_free_once_and_wakes_the_scheduler(stack: Stack, world: World, member: Caller) -> None:
    a_node(stack, world, cpus=4, gpus=1)
    made = hold(member, cpus=4, gpus=1).json
    path = f"/resources/allocations/{made['id']}"
    assert [member.delete(path).status for _ in range(2)] == [204, 204]
    assert used(stack) == (0, 0, [0])
    assert stack.events_of(made["id"]) == ["allocation.granted", "allocation.released"]
    assert member.get("/resources/allocations").json["items"] == []
    assert member.get(path).json["released_at"] is not None


def test_a_scheduler_that_has_looked_before_sees_what_was_given_and_given_back(
    stack: Stack, world: World, member: Caller
) -> None:
    a_node(stack, world, gpus=2)
    stack.run(stack.cycle)
    held = hold(member, gpus=2).json
    member.post("/jobs/batch", {"jobs": [{"command": ["true"], "resources": {"gpus": 1}}] * 2})
    assert stack.run(stack.cycle).started == 0
    member.delete(f"/resources/allocations/{held['id']}")
    assert stack.run(stack.cycle).started == 2
    assert hold(member, gpus=1).status == 409


def test_of_64_who_ask_for_the_last_gpu_exactly_one_gets_it(stack: Stack, world: World) -> None:
    a_node(stack, world, cpus=128, gpus=1)
    spec = AllocationSpec(Part(Amounts(1000, GIB, 1000)), project=str(world.project.id))
    actor = stack.actor(world.member)
    outcomes = stack.race(lambda uow: allocate(uow, spec), times=64, actor=actor)
    names = [type(outcome).__name__ for outcome in outcomes]
    assert names.count("Allocation") == 1
    assert set(names) <= {
        "Allocation",
        "CapacityTaken",
        "Unavailable",
    }  # who waits its turn too long is asked to come again
    assert used(stack) == (1000, GIB, [1000])


def test_cycles_and_those_who_ask_beside_them_never_share_a_device(stack: Stack, world: World, member: Caller) -> None:
    a_node(stack, world, cpus=64, gpus=8)
    member.post("/jobs/batch", {"jobs": [{"command": ["true"], "resources": {"gpus": 1}}] * 6})
    spec = AllocationSpec(Part(Amounts(1000, GIB, 1000)), project=str(world.project.id))
    cycles = iter([True, False] * 8)

    def act(uow: UnitOfWork) -> object:
        return stack.cycle(uow) if next(cycles, True) else allocate(uow, spec)

    stack.race(act, times=16)
    while stack.run(stack.cycle).started:
        pass
    held = stack.run(lambda uow: len(uow.session.execute(select(Allocation.id)).all()))
    assert (held, used(stack)[2]) == (8, [1000] * 8)


@pytest.mark.parametrize(
    ("wish", "node"),
    [
        ({"gpus": 1, "gpu_type": "A100"}, "a"),
        ({"labels": {"zone": "south"}}, "b"),
        ({"labels": {"disk": "nvme"}}, "a"),
        ({"pool": "vision"}, "b"),
        ({"pool": "all"}, "b"),
        ({"tolerates": ["drivers"], "labels": {"beta": "yes"}}, "c"),
        ({"labels": {"beta": "yes"}}, None),
        ({"labels": {"zone": "south", "disk": "nvme"}}, None),
        ({"gpus": 1, "gpu_type": "B200"}, None),
    ],
)
def test_constraints_say_which_node(
    stack: Stack, world: World, member: Caller, admin: Caller, wish: dict[str, Any], node: str | None
) -> None:
    for name, parent in (("all", ""), ("vision", "all")):
        admin.post("/resources/pools", {"name": name, "parent": parent})
    a100 = (GpuDescription(0, "GPU-a", "A100", 80 << 30),)
    first = FakeNode.join(stack, world, replace(a_description("a"), gpus=a100)).welcome.node_id
    admin.patch(f"/resources/nodes/{first}", {"labels": {"disk": "nvme"}, "domains": {"zone": "north"}})
    a_node(stack, world, "b", {"domains": {"zone": "south"}, "pool": "vision"}, gpus=1)
    a_node(stack, world, "c", {"labels": {"beta": "yes"}, "taints": [{"key": "drivers"}]}, gpus=1)
    made = hold(member, **wish)
    if node is None:
        assert (made.status, made.json["code"]) == (409, "capacity_taken")
        assert made.json["detail"] == "no node matches"
    else:
        assert (made.status, made.json.get("node")) == (201, node), made.text


def test_a_taint_that_only_warns_keeps_nobody_away(stack: Stack, world: World, member: Caller) -> None:
    a_node(stack, world, traits={"taints": [{"key": "old", "effect": "avoid"}]})
    assert hold(member).status == 201


def test_an_exclusive_node_is_an_empty_one_and_nothing_comes_beside(
    stack: Stack, world: World, member: Caller, admin: Caller
) -> None:
    a_node(stack, world, "busy", cpus=8)
    a_node(stack, world, "empty", cpus=8, gpus=2)
    assert hold(member, cpus=1, labels={}).json["node"] == "busy"
    whole = hold(member, cpus=2, exclusive=True)
    assert (whole.json["node"], whole.json["cpu_milli"], whole.json["memory_bytes"]) == ("empty", 8000, 64 * GIB)
    assert whole.json["gpus"] == [{"index": 0, "milli": 1000}, {"index": 1, "milli": 1000}]
    again = hold(member, exclusive=True)
    assert (again.status, again.json["detail"]) == (409, "0 of 1 such nodes are free; 2 match")
    member.post("/jobs/batch", {"jobs": [{"command": ["true"]}] * 20})
    assert stack.run(stack.cycle).started == 7
    pool = admin.post("/resources/pools", {"name": "dense", "overcommit": {"cpu": 2}}).json
    moved = admin.patch(f"/resources/nodes/{whole.json['node_id']}", {"pool": "dense"})
    assert (moved.status, moved.json["code"]) == (409, "overcommitted")
    admin.delete(f"/resources/allocations/{whole.json['id']}?force=true")
    assert admin.patch(f"/resources/nodes/{whole.json['node_id']}", {"pool": "dense"}).json["pool_id"] == pool["id"]


def test_an_exclusive_wish_takes_the_smallest_node_that_will_do(stack: Stack, world: World, member: Caller) -> None:
    for name, cpus, gpus in (("a-big", 64, 0), ("b-gpu", 8, 4), ("c-small", 8, 0)):
        a_node(stack, world, name, cpus=cpus, gpus=gpus)
    assert hold(member, cpus=4, exclusive=True).json["node"] == "c-small"
    assert hold(member, cpus=4, gpus=1, exclusive=True).json["node"] == "b-gpu"


def test_no_room_says_what_there_is(stack: Stack, world: World, member: Caller) -> None:
    a_node(stack, world, cpus=8, gpus=2)
    hold(member, cpus=2, gpus=0.5)
    answer = hold(member, cpus=1, gpus=2)
    assert (answer.status, answer.json["code"]) == (409, "capacity_taken")
    assert answer.json["detail"] == "there is no room for 1 such; free on the 1 node that matches: 6 CPUs, 1.5 GPUs"


def test_what_is_held_ends_with_its_time(stack: Stack, world: World, member: Caller) -> None:
    a_node(stack, world, cpus=4)
    made = hold(member, cpus=4, ttl=60).json
    stack.run(release_expired)
    assert used(stack)[0] == 4000
    past = {"expires_at": Allocation.expires_at - timedelta(minutes=2)}
    stack.run(lambda uow: uow.session.execute(update(Allocation).values(past)))
    stack.race(release_expired, times=4)
    assert used(stack)[0] == 0
    assert stack.events_of(made["id"]) == ["allocation.granted", "allocation.released"]


def test_what_is_somebody_elses_takes_force_and_an_administrator(stack: Stack, world: World, member: Caller) -> None:
    a_node(stack, world, cpus=4)
    path = f"/resources/allocations/{hold(member).json['id']}"
    chief = stack.client(world.project_admin)
    assert [stack.client(world.viewer).delete(path, query_string=q).status for q in ({}, {"force": "true"})] == [
        403,
        403,
    ]
    assert chief.delete(path).status == 403
    assert stack.client(world.stranger).delete(f"{path}?force=true").status == 404
    assert chief.delete(f"{path}?force=true").status == 204
    assert used(stack)[0] == 0


def test_what_a_job_holds_goes_with_the_job_alone(stack: Stack, world: World, member: Caller, admin: Caller) -> None:
    a_node(stack, world, cpus=4)
    job = member.post("/jobs", {"command": ["true"]}).json
    stack.run(stack.cycle)
    (held,) = member.get("/resources/allocations", query_string={"job_id": job["id"]}).json["items"]
    answer = admin.delete(f"/resources/allocations/{held['id']}?force=true")
    assert (answer.status, answer.json["code"]) == (409, "held_by_job")


def test_a_viewer_holds_nothing_and_a_stranger_nothing_of_ours(stack: Stack, world: World) -> None:
    a_node(stack, world)
    assert hold(stack.client(world.viewer), project=world.project.name).status == 403
    foreign = hold(stack.client(world.stranger), project=str(world.project.id))
    assert (foreign.status, foreign.json["errors"][0]["pointer"]) == (422, "/project")


def test_a_cordoned_node_is_given_to_nobody(stack: Stack, world: World, member: Caller, admin: Caller) -> None:
    node_id = a_node(stack, world)
    admin.put(f"/resources/nodes/{node_id}/cordon")
    assert hold(member).status == 409
