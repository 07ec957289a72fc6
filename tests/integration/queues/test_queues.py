"""Queues: whose they are, who may hold them, which one a job means."""

import pytest

from app.queues.service import find_queue
from tests.support.builders import a_pool, a_queue
from tests.support.fake_node import FakeNode, a_description
from tests.support.stack import Stack
from tests.support.world import World
from trellis.errors import Invalid


def test_a_shared_queue_takes_a_platform_administrator(stack: Stack, world: World) -> None:
    for user, status in ((world.member, 403), (world.project_admin, 403), (world.admin, 201)):
        assert stack.client(user).post("/queues", {"name": "nightly"}).status == status


def test_a_projects_queue_takes_an_administrator_of_it(stack: Stack, world: World) -> None:
    body = {"name": "nightly", "project_id": str(world.project.id), "weight": 3}
    for user, status in ((world.stranger, 404), (world.member, 403), (world.project_admin, 201)):
        assert stack.client(user).post("/queues", body).status == status
    again = stack.client(world.project_admin).post("/queues", body)
    assert (again.status, again.json["code"]) == (409, "already_exists")


def test_a_new_queue_says_everything_about_itself(stack: Stack, world: World) -> None:
    made = stack.client(world.admin).post("/queues", {"name": "nightly", "weight": 3, "policy": "fifo"})
    assert made.json | {"id": ""} == {
        "id": "", "name": "nightly", "project_id": None, "state": "open", "weight": 3, "policy": "fifo",
        "second_policy": "", "pool": None, "pool_id": None, "most": {}, "most_running": None, "waiting_since": None,
        "held": {"cpu_milli": 0, "memory_bytes": 0, "gpu_milli": 0}, "pending": 0, "running": 0, "version": 1,
    }  # fmt: skip


@pytest.mark.parametrize("weight", [0, 1001, -1, 1.5, True, "3", None])
def test_a_weight_is_a_whole_number_from_1_to_1000(stack: Stack, world: World, weight: object) -> None:
    answer = stack.client(world.admin).post("/queues", {"name": "nightly", "weight": weight})
    assert (answer.status, answer.json["errors"][0]["pointer"]) == (422, "/weight")


def test_a_member_sees_the_shared_queues_and_those_of_their_projects(stack: Stack, world: World) -> None:
    stack.add(a_queue(world.project, name="ours"))
    stack.add(a_queue(world.strangers_project, name="theirs"))
    assert [q["name"] for q in stack.client(world.member).get("/queues").json["items"]] == ["default", "ours"]
    assert [q["name"] for q in stack.client(world.admin).get("/queues").json["items"]] == ["default", "ours", "theirs"]


LIMITS = {"weight": 5, "policy": "fair_share", "second_policy": "fifo", "most": {"gpus": 8}, "most_running": 20}


def test_a_queue_is_changed_and_what_is_left_out_stays(stack: Stack, world: World) -> None:
    queue = stack.add(a_queue(world.project, name="ours"))
    chief, path = stack.client(world.project_admin), f"/queues/{queue.id}"
    changed = chief.patch(path, LIMITS, headers={"If-Match": '"1"'})
    assert {name: changed.json[name] for name in LIMITS} == LIMITS | {"most": {"gpu_milli": 8000}}
    assert chief.patch(path, {"weight": 6}).json | {"weight": 5, "version": 2} == changed.json
    assert chief.patch(path, {"weight": 6}).json["version"] == 3
    assert chief.patch(path, LIMITS, headers={"If-Match": '"1"'}).json["code"] == "stale_version"
    assert chief.patch(path, {"most": {}, "most_running": None}).json["most"] == {}
    assert stack.events_of(queue.id) == ["queue.changed"] * 3


def test_whose_hardware_a_queue_is_charged_for_is_the_platforms_to_say(stack: Stack, world: World) -> None:
    pool = stack.add(a_pool(name="research"))
    queue = stack.add(a_queue(world.project, name="ours"))
    chief, admin = stack.client(world.project_admin), stack.client(world.admin)
    mine = {"name": "mine", "project_id": str(world.project.id), "pool": "research"}
    assert chief.post("/queues", mine).status == 403
    assert chief.patch(f"/queues/{queue.id}", {"pool": "research"}).status == 403
    assert admin.patch(f"/queues/{queue.id}", {"pool": "research"}).json["pool_id"] == str(pool.id)
    assert chief.patch(f"/queues/{queue.id}", {"pool": ""}).status == 403
    assert admin.patch(f"/queues/{queue.id}", {"pool": ""}).json["pool"] is None


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"policy": "lottery"}, "/policy"),
        ({"second_policy": "lottery"}, "/second_policy"),
        ({"pool": "nowhere"}, "/pool"),
        ({"most": {"gpus": -1}}, "/most/gpus"),
        ({"most": {"gpus": float(2**60)}}, "/most/gpus"),
        ({"most": {"cpus": True}}, "/most/cpus"),
        ({"most": {"disks": 1}}, "/most/disks"),
        ({"most_running": -1}, "/most_running"),
        ({"most_running": 1.5}, "/most_running"),
        ({"name": "other"}, "/name"),
    ],
)
def test_a_queue_refuses_what_no_plan_could_be_made_with(
    stack: Stack, world: World, change: dict[str, object], pointer: str
) -> None:
    admin = stack.client(world.admin)
    answer = admin.patch(f"/queues/{world.shared_queue.id}", change)
    assert (answer.status, [error["pointer"] for error in answer.json["errors"]]) == (422, [pointer])


def test_a_queue_says_what_its_jobs_hold_and_since_when_one_waits(stack: Stack, world: World) -> None:
    FakeNode.join(stack, world, a_description(cpus=4, gpus=1))
    member = stack.client(world.member)
    for _ in range(2):
        member.post("/jobs", {"command": ["true"], "resources": {"cpus": 3, "gpus": 0.5}})
    stack.run(stack.cycle)
    queue = member.get(f"/queues/{world.shared_queue.id}").json
    assert queue["held"] == {"cpu_milli": 3000, "memory_bytes": 1 << 30, "gpu_milli": 500}
    (waiting,) = member.get("/jobs", query_string={"state": "queued"}).json["items"]
    assert queue["waiting_since"] == waiting["submitted_at"]


def test_a_queue_is_held_and_let_go(stack: Stack, world: World) -> None:
    queue = stack.add(a_queue(world.project))
    chief, path = stack.client(world.project_admin), f"/queues/{queue.id}"
    held = chief.put(f"{path}/pause", {"reason": "maintenance"}, headers={"If-Match": '"1"'})
    assert (held.json["state"], held.headers["ETag"]) == ("paused", '"2"')
    assert chief.put(f"{path}/pause").json["version"] == 2
    assert chief.put(f"{path}/resume", headers={"If-Match": '"1"'}).json["code"] == "stale_version"
    assert chief.put(f"{path}/resume", headers={"If-Match": '"2"'}).json["state"] == "open"
    assert stack.events_of(queue.id) == ["queue.paused", "queue.open"]


def test_a_queue_is_held_without_a_body_too(stack: Stack, world: World) -> None:
    path = f"/queues/{world.shared_queue.id}/pause"
    assert stack.client(world.admin).call("PUT", path).json["state"] == "paused"


def test_a_member_holds_no_queue(stack: Stack, world: World) -> None:
    queue = stack.add(a_queue(world.project))
    assert stack.client(world.member).put(f"/queues/{queue.id}/pause").status == 403
    assert stack.client(world.project_admin).put(f"/queues/{world.shared_queue.id}/pause").status == 403


def test_a_queue_counts_its_jobs(stack: Stack, world: World) -> None:
    for _ in range(3):
        stack.client(world.member).post("/jobs", {"command": ["true"]})
    (queue,) = stack.client(world.member).get("/queues").json["items"]
    assert (queue["pending"], queue["running"]) == (3, 0)


def test_a_projects_own_queue_goes_before_the_shared_one_of_that_name(stack: Stack, world: World) -> None:
    own = stack.add(a_queue(world.project, name="default"))
    assert stack.run(lambda uow: find_queue(uow, world.project.id, "default")).id == own.id
    assert stack.run(lambda uow: find_queue(uow, world.strangers_project.id, "default")).id == world.shared_queue.id


def test_a_queue_that_is_not_there_is_answered_with_those_that_are(stack: Stack, world: World) -> None:
    stack.add(a_queue(world.project, name="nightly"))
    stack.add(a_queue(world.strangers_project, name="theirs"))
    with pytest.raises(Invalid) as refused:
        stack.run(lambda uow: find_queue(uow, world.project.id, "weekly"))
    (fault,) = refused.value.fields
    assert (fault.pointer, fault.message) == ("/queue", "is no queue of this project; there are: default, nightly")
