"""Pools: nested, counted, overcommitted; and a whole cluster said at once."""

from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml

from app.resources.pools import change_pool, list_pools
from tests.support.fake_node import FakeNode, a_description
from tests.support.stack import Caller, Stack
from tests.support.world import World

GIB = 2**30
FILE: dict[str, Any] = {
    "levels": ["zone", "rack"],
    "pools": [
        {"name": "vision", "parent": "all", "weight": 3, "nominal": {"gpus": 8}, "lends": {"gpus": 4}},
        {"name": "all", "overcommit": {"cpu": 1.5}},
    ],
    "clusters": [
        {
            "name": "lab",
            "domains": {"zone": "north"},
            "pool": "vision",
            "labels": {"site": "lab"},
            "nodes": [
                {"name": "gpu", "count": 2, "gpus": 2, "gpu_type": "H100", "domains": {"rack": "r1"}, "spot": True},
                {"name": "cpu", "cpu_cores": 8, "pool": "all", "labels": {"disk": "nvme"}},
                {"name": "late", "usd_per_hour": 1},
            ],
        }
    ],
}


@pytest.fixture
def admin(stack: Stack, world: World) -> Caller:
    return stack.client(world.admin)


@pytest.fixture
def member(stack: Stack, world: World) -> Caller:
    return stack.client(world.member)


def make(admin: Caller, name: str, **body: Any) -> str:
    answer = admin.post("/resources/pools", {"name": name, **body})
    assert answer.status == 201, answer.text
    return str(answer.json["id"])


def put_into(admin: Caller, node: FakeNode, pool: str) -> None:
    assert admin.patch(f"/resources/nodes/{node.welcome.node_id}", {"pool": pool}).status == 200


def test_a_pool_says_everything_about_itself(stack: Stack, world: World, admin: Caller, member: Caller) -> None:
    make(admin, "all")
    limits = {"nominal": {"cpus": 4, "gpus": 8}, "lends": {"gpus": 2}, "borrows": {"memory": "1GiB"}}
    pool_id = make(admin, "vision", parent="all", weight=3, overcommit={"cpu": 1.5, "memory": 2}, **limits)
    shown = member.get(f"/resources/pools/{pool_id}").json
    assert shown | {"id": "", "parent_id": ""} == {
        "id": "", "name": "vision", "parent_id": "", "parent": "all", "weight": 3, "version": 1,
        "nominal": {"cpu_milli": 4000, "gpu_milli": 8000}, "lends": {"gpu_milli": 2000},
        "borrows": {"memory_bytes": GIB}, "overcommit": {"cpu": 1.5, "memory": 2.0},
        "figures": {"nodes": 0, "nodes_ready": 0, "allocations": 0, "running": 0, "pending": 0,
                    "capacity": {"cpu_milli": 0, "memory_bytes": 0, "gpu_milli": 0},
                    "held": {"cpu_milli": 0, "memory_bytes": 0, "gpu_milli": 0}},
        "utilisation": {"cpu_milli": None, "memory_bytes": None, "gpu_milli": None},
    }  # fmt: skip


def test_a_pool_counts_what_lies_in_the_pools_within_it(
    stack: Stack, world: World, admin: Caller, member: Caller
) -> None:
    for name, parent in (("all", ""), ("vision", "all"), ("speech", "all")):
        make(admin, name, parent=parent)
    put_into(admin, FakeNode.join(stack, world, a_description("a", cpus=8, gpus=2)), "vision")
    put_into(admin, FakeNode.join(stack, world, a_description("b", cpus=4)), "speech")
    assert admin.patch(f"/queues/{world.shared_queue.id}", {"pool": "speech"}).json["pool"] == "speech"
    jobs = [{"command": ["true"], "resources": {"cpus": 2, "gpus": 1}}] * 3
    assert member.post("/jobs/batch", {"jobs": jobs}).status == 201
    stack.run(stack.cycle)
    pools = {pool["name"]: pool for pool in member.get("/resources/pools").json["items"]}
    assert pools["vision"]["figures"]["held"] == {"cpu_milli": 4000, "memory_bytes": 2 * GIB, "gpu_milli": 2000}
    assert pools["vision"]["utilisation"]["gpu_milli"] == 1.0
    everything = pools["all"]["figures"]
    assert everything["capacity"] == {"cpu_milli": 12_000, "memory_bytes": 128 * GIB, "gpu_milli": 2000}
    assert [everything[name] for name in ("nodes", "allocations", "running", "pending")] == [2, 2, 2, 1]
    assert [pools["speech"]["figures"][name] for name in ("running", "pending")] == [0, 1]


def test_an_overcommitted_pool_gives_its_cpus_away_more_than_once_and_its_gpus_never(
    stack: Stack, world: World, admin: Caller, member: Caller
) -> None:
    pool_id = make(admin, "dense", overcommit={"cpu": 2, "memory": 1.25})
    assert admin.patch(f"/queues/{world.shared_queue.id}", {"pool": "dense"}).status == 200
    node = FakeNode.join(stack, world, a_description(cpus=4, gpus=1))
    put_into(admin, node, "dense")
    shown = admin.get(f"/resources/nodes/{node.welcome.node_id}").json
    assert (shown["cpu_milli"], shown["real_cpu_milli"]) == (8000, 4000)
    assert (shown["memory_bytes"], shown["real_memory_bytes"]) == (80 * GIB, 64 * GIB)
    assert member.post("/jobs/batch", {"jobs": [{"command": ["true"]}] * 9}).status == 201
    assert stack.run(stack.cycle).started == 8
    back = admin.patch(f"/resources/pools/{pool_id}", {"overcommit": {"cpu": 1}})
    assert (back.status, back.json["code"]) == (409, "overcommitted")
    assert "node-1" in back.json["detail"]
    assert admin.patch(f"/resources/pools/{pool_id}", {"overcommit": {"cpu": 3}}).status == 200
    FakeNode.join(stack, world, a_description(cpus=4, gpus=1))
    assert admin.get(f"/resources/nodes/{node.welcome.node_id}").json["cpu_milli"] == 12_000


def test_pools_never_form_a_ring(admin: Caller) -> None:
    top, middle = make(admin, "top"), make(admin, "middle", parent="top")
    make(admin, "low", parent="middle")
    for pool_id, parent in ((top, "low"), (top, "top"), (middle, "low")):
        answer = admin.patch(f"/resources/pools/{pool_id}", {"parent": parent})
        assert (answer.status, answer.json["errors"][0]["pointer"]) == (422, "/parent")
    assert admin.patch(f"/resources/pools/{middle}", {"parent": ""}).json["parent_id"] is None


def test_two_moves_at_once_never_form_a_ring(stack: Stack, world: World, admin: Caller) -> None:
    ids = {name: make(admin, name) for name in ("a", "b")}
    moves = iter([("a", "b"), ("b", "a")] * 8)

    def move(uow: Any) -> None:
        pool, parent = next(moves)
        change_pool(uow, UUID(ids[pool]), {"parent": parent}, None)

    stack.race(move, times=16)
    depths = [pool.parent_id for pool in stack.run(list_pools)]  # would not end for a ring
    assert sorted(parent is None for parent in depths) == [False, True]


def test_pools_nest_at_most_eight_deep(admin: Caller) -> None:
    parent = ""
    for depth in range(8):
        make(admin, f"level-{depth}", parent=parent)
        parent = f"level-{depth}"
    answer = admin.post("/resources/pools", {"name": "too-deep", "parent": parent})
    assert (answer.status, answer.json["errors"][0]["pointer"]) == (422, "/parent")
    other = make(admin, "other")
    make(admin, "within", parent="other")
    assert admin.patch(f"/resources/pools/{other}", {"parent": "level-6"}).status == 422
    assert admin.patch(f"/resources/pools/{other}", {"parent": "level-5"}).status == 200


@pytest.mark.parametrize("user", ["node", "pool", "queue"])
def test_a_pool_that_something_belongs_to_stays(stack: Stack, world: World, admin: Caller, user: str) -> None:
    pool_id = make(admin, "used")
    if user == "node":
        put_into(admin, FakeNode.join(stack, world), "used")
    elif user == "pool":
        make(admin, "within", parent="used")
    else:
        admin.patch(f"/queues/{world.shared_queue.id}", {"pool": "used"})
    answer = admin.delete(f"/resources/pools/{pool_id}")
    assert (answer.status, answer.json["code"]) == (409, "pool_in_use")
    assert user in answer.json["detail"]


def test_a_pool_goes_once_nothing_belongs_to_it(stack: Stack, admin: Caller) -> None:
    pool_id = make(admin, "empty")
    assert admin.delete(f"/resources/pools/{pool_id}", headers={"If-Match": '"2"'}).status == 409
    assert admin.delete(f"/resources/pools/{pool_id}").status == 204
    assert admin.get(f"/resources/pools/{pool_id}").status == 404


@pytest.mark.parametrize("word", ["POST", "PATCH", "DELETE", "PUT"])
def test_pools_are_the_platforms_to_change(stack: Stack, world: World, admin: Caller, word: str) -> None:
    path = {"POST": "/resources/pools", "PUT": "/resources/cluster"}.get(word) or f"/resources/pools/{make(admin, 'p')}"
    body = {"POST": {"name": "q"}, "PATCH": {"weight": 2}, "PUT": FILE}.get(word)
    assert stack.client(world.project_admin).call(word, path, json=body).status == 403


def test_a_whole_cluster_is_said_at_once_and_again_without_effect(stack: Stack, world: World, admin: Caller) -> None:
    for name in ("gpu-1", "gpu-2", "cpu"):
        FakeNode.join(stack, world, a_description(name))
    first = admin.put("/resources/cluster", FILE)
    assert first.json == {"pools": ["all", "vision"], "nodes": ["gpu-1", "gpu-2", "cpu"], "missing": ["late"]}
    nodes = {node["name"]: node for node in admin.get("/resources/nodes").json["items"]}
    assert nodes["gpu-2"]["domains"] == {"zone": "north", "rack": "r1"}
    assert (nodes["gpu-2"]["pool"], nodes["gpu-2"]["spot"]) == ("vision", True)
    assert (nodes["cpu"]["pool"], nodes["cpu"]["labels"]) == ("all", {"site": "lab", "disk": "nvme"})
    assert (nodes["cpu"]["cpu_milli"], nodes["gpu-1"]["cpu_milli"]) == (12_000, 8000)
    before = stack.dump()
    assert admin.put("/resources/cluster", FILE).json == {"pools": [], "nodes": [], "missing": ["late"]}
    assert stack.dump() == before


def test_the_example_of_a_cluster_can_be_applied(stack: Stack, world: World, admin: Caller) -> None:
    example = yaml.safe_load((Path(__file__).parents[3] / "examples" / "cluster.yaml").read_text())
    for name in ("train-1", "train-2", "cpu", "shared"):
        FakeNode.join(stack, world, a_description(name))
    applied = admin.put("/resources/cluster", example)
    assert applied.json == {
        "pools": ["all", "batch", "research"], "nodes": ["train-1", "train-2", "cpu", "shared"],
        "missing": [],
    }  # fmt: skip
    dry = stack.client(world.member).post("/jobs", {"command": ["true"], "dry_run": True})
    assert (dry.json["could_start"], dry.json["why"]) == (True, "")  # in the queue that everybody has


@pytest.mark.parametrize(
    ("part", "pointer"),
    [
        ({"clusters": [{"nodes": [{"name": "gpu-1", "domains": {"hall": "x"}}]}]}, "/clusters/0/nodes/0/domains/hall"),
        ({"clusters": [{"nodes": [{"name": "gpu-1", "pool": "none"}]}]}, "/clusters/0/nodes/0/pool"),
        ({"clusters": [{"nodes": [{"name": "x"}, {"name": "x"}]}]}, "/clusters"),
        ({"clusters": [{"nodes": [{"name": "x", "count": 10_001}]}]}, "/clusters/0/nodes/0/count"),
        ({"clusters": [{"nodes": [{"name": "x", "count": 9999}, {"name": "y", "count": 2}]}]}, "/clusters"),
        ({"clusters": [{"nodes": [{"name": "x", "colour": 1}]}]}, "/clusters/0/nodes/0/colour"),
        ({"pools": [{"name": "new", "parent": "nobody"}]}, "/pools/0/parent"),
        ({"pools": [{"name": "new"}, {"name": "new"}]}, "/pools"),
        ({"pools": [{"name": "new", "overcommit": {"cpu": 0.5}}]}, "/pools/0/overcommit/cpu"),
        ({"pools": [{"name": "new", "overcommit": {"gpu": 2}}]}, "/pools/0/overcommit/gpu"),
        ({"pools": [{"weight": 1}]}, "/pools/0/name"),
        ({"levels": ["a", "a"]}, "/levels"),
    ],
)
def test_a_fault_in_a_cluster_is_named_and_nothing_of_it_is_written(
    stack: Stack, world: World, admin: Caller, part: dict[str, Any], pointer: str
) -> None:
    FakeNode.join(stack, world, a_description("gpu-1"))
    before = stack.dump()
    answer = admin.put("/resources/cluster", {"pools": [{"name": "first"}]} | part)
    assert answer.status == 422, answer.text
    assert [error["pointer"] for error in answer.json["errors"]] == [pointer]
    assert stack.dump() == before
