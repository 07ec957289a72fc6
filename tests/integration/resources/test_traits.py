"""What operators say of nodes: kept, shown, found again, and never undone by the node itself."""

from typing import Any

import pytest
from sqlalchemy import select

from app.resources.models import Node
from app.resources.nodes import mark_silent
from tests.support.builders import a_pool
from tests.support.fake_node import FakeNode, a_description
from tests.support.stack import Answer, Caller, Stack
from tests.support.world import World

SAID: dict[str, Any] = {
    "labels": {"disk": "nvme", "owner": "vision"},
    "taints": [{"key": "drivers", "value": "beta"}, {"key": "old", "effect": "avoid"}],
    "domains": {"zone": "north", "rack": "r7"},
    "spot": True,
    "usd_per_hour": 12.5,
    "caches": ["imagenet", "llama"],
}


@pytest.fixture
def admin(stack: Stack, world: World) -> Caller:
    return stack.client(world.admin)


def joined(stack: Stack, world: World, name: str = "node-1", **values: Any) -> str:
    return FakeNode.join(stack, world, a_description(name, **values)).welcome.node_id


def pointers(answer: Answer) -> list[str]:
    return [error["pointer"] for error in answer.json["errors"]]


def test_what_is_said_of_a_node_is_shown(stack: Stack, world: World, admin: Caller) -> None:
    pool = stack.add(a_pool(name="research"))
    path = f"/resources/nodes/{joined(stack, world)}"
    answer = admin.patch(path, {**SAID, "pool": "research"}, headers={"If-Match": '"1"'})
    assert answer.status == 200, answer.text
    shown = stack.client(world.member).get(path).json
    assert {name: shown[name] for name in SAID} == SAID | {
        "taints": [
            {"key": "drivers", "value": "beta", "effect": "refuse"},
            {"key": "old", "value": "", "effect": "avoid"},
        ]
    }
    assert (shown["pool"], shown["pool_id"], answer.headers["ETag"]) == ("research", str(pool.id), '"2"')


def test_what_is_not_named_stays_and_saying_the_same_again_changes_nothing(
    stack: Stack, world: World, admin: Caller
) -> None:
    node_id = joined(stack, world)
    path = f"/resources/nodes/{node_id}"
    admin.patch(path, SAID)
    again = admin.patch(path, {"labels": SAID["labels"]})
    assert (again.json["caches"], again.json["version"]) == (SAID["caches"], 2)
    assert admin.patch(path, {"taints": [], "labels": {}}).json["domains"] == SAID["domains"]
    events = stack.run(lambda uow: uow.session.execute(select(Node.id)).scalar_one())
    assert stack.events_of(events) == ["node.joined", "node.changed", "node.changed"]


def test_a_node_that_joins_again_keeps_what_operators_said_of_it(stack: Stack, world: World, admin: Caller) -> None:
    node_id = joined(stack, world, labels={"kernel": "6.1", "disk": "hdd"})
    admin.patch(f"/resources/nodes/{node_id}", SAID)
    assert joined(stack, world, labels={"kernel": "6.8", "disk": "hdd"}) == node_id
    labels = admin.get(f"/resources/nodes/{node_id}").json["labels"]
    assert labels == {"kernel": "6.8", "disk": "nvme", "owner": "vision"}


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"label": "disk:nvme"}, ["node-1"]),
        ({"label": "disk:hdd"}, ["node-2"]),
        ({"label": "zone:north"}, ["node-1"]),
        ({"label": ["zone:north", "disk:hdd"]}, []),
        ({"pool": "research"}, ["node-1"]),
        ({"pool": "none"}, []),
        ({"name": "node-2"}, ["node-2"]),
        ({"name": ["node-2", "node-1"]}, ["node-1", "node-2"]),
        ({"name": "node"}, []),
    ],
)
def test_nodes_are_found_by_name_label_domain_and_pool(
    stack: Stack, world: World, admin: Caller, query: dict[str, Any], found: list[str]
) -> None:
    stack.add(a_pool(name="research"))
    first = joined(stack, world, labels={"disk": "hdd"})
    joined(stack, world, "node-2", labels={"disk": "hdd"})
    admin.patch(f"/resources/nodes/{first}", SAID | {"pool": "research"})
    answer = admin.get("/resources/nodes", query_string=query)
    assert [node["name"] for node in answer.json["items"]] == found


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"labels": {"no spaces": "x"}}, "/labels/no spaces"),
        ({"labels": {"zone": "x"}}, "/labels/zone"),
        ({"labels": {"gpu_model": "x"}}, "/labels/gpu_model"),
        ({"labels": {"a": 1}}, "/labels/a"),
        ({"domains": {"building": "x"}}, "/domains/building"),
        ({"taints": [{"value": "x"}]}, "/taints/0/key"),
        ({"taints": [{"key": "a", "effect": "kill"}]}, "/taints/0/effect"),
        ({"pool": "nowhere"}, "/pool"),
        ({"usd_per_hour": -1}, "/usd_per_hour"),
        ({"usd_per_hour": 10**7}, "/usd_per_hour"),
        ({"usd_per_hour": True}, "/usd_per_hour"),
        ({"spot": "yes"}, "/spot"),
        ({"caches": ["a b"]}, "/caches/0"),
        ({"cpu_milli": 1}, "/cpu_milli"),
        ({"state": "ready"}, "/state"),
    ],
)
def test_a_fault_is_named_and_nothing_is_written(
    stack: Stack, world: World, admin: Caller, body: dict[str, Any], pointer: str
) -> None:
    node_id = joined(stack, world)
    before = stack.dump()
    answer = admin.patch(f"/resources/nodes/{node_id}", body)
    assert (answer.status, pointers(answer)) == (422, [pointer])
    assert stack.dump() == before


def test_a_node_is_the_platforms_to_change(stack: Stack, world: World, admin: Caller) -> None:
    path = f"/resources/nodes/{joined(stack, world)}"
    assert stack.client(world.project_admin).patch(path, SAID).status == 403
    assert admin.patch(path, SAID, headers={"If-Match": '"7"'}).json["code"] == "stale_version"


def test_levels_are_named_anew_and_nodes_lie_in_those_alone(stack: Stack, world: World, admin: Caller) -> None:
    first = admin.get("/resources/topology")
    assert (first.json, first.headers["ETag"]) == ({"levels": ["zone", "rack"]}, '"0"')
    changed = admin.put("/resources/topology", {"levels": ["hall", "row"]}, headers={"If-Match": '"0"'})
    assert (changed.status, changed.headers["ETag"]) == (200, '"1"')
    assert admin.put("/resources/topology", {"levels": ["x"]}, headers={"If-Match": '"0"'}).status == 409
    path = f"/resources/nodes/{joined(stack, world)}"
    assert admin.patch(path, {"domains": {"zone": "a"}}).status == 422
    assert admin.patch(path, {"domains": {"hall": "a"}}).status == 200


@pytest.mark.parametrize("levels", [["zone", "zone"], ["pool"], ["Zone"], ["a"] * 9, "zone", [1], None])
def test_levels_that_make_no_sense_are_refused(stack: Stack, world: World, admin: Caller, levels: Any) -> None:
    answer = admin.put("/resources/topology", {"levels": levels})
    assert answer.status == 422
    assert pointers(answer)[0].startswith("/levels")


def test_a_cordoned_node_gets_nothing_new_and_what_runs_goes_on(stack: Stack, world: World, admin: Caller) -> None:
    node = FakeNode.join(stack, world)
    path = f"/resources/nodes/{node.welcome.node_id}"
    cordoned = admin.put(f"{path}/cordon", {"reason": "new drivers"})
    assert (cordoned.json["state"], cordoned.json["cordon_reason"]) == ("cordoned", "new drivers")
    node.beat()
    assert admin.get(path).json["state"] == "cordoned"
    assert admin.put(f"{path}/cordon").json["version"] == cordoned.json["version"]
    opened = admin.put(f"{path}/uncordon").json
    assert (opened["state"], opened["cordoned_at"], opened["cordon_reason"]) == ("ready", None, "")


def test_a_silent_node_that_was_cordoned_comes_back_cordoned(stack: Stack, world: World, admin: Caller) -> None:
    node = FakeNode.join(stack, world)
    path = f"/resources/nodes/{node.welcome.node_id}"
    stack.run(lambda uow: mark_silent(uow, 0.0, 1000.0))
    assert admin.get(path).json["state"] == "unreachable"
    assert admin.put(f"{path}/cordon").json["state"] == "unreachable"
    node.beat()
    assert admin.get(path).json["state"] == "cordoned"
    stack.run(lambda uow: mark_silent(uow, 0.0, 1000.0))
    assert admin.get(path).json["state"] == "unreachable"
    admin.put(f"{path}/uncordon")
    node.beat()
    assert admin.get(path).json["state"] == "ready"
