"""Arrays and workflows with real rows: accepted at once, shown as one line, changed as one or in part."""

import time
from typing import Any

import pytest

from app.jobs.dependencies import release_forgotten
from tests.integration.jobs.test_life import placed, plan, submit
from tests.integration.jobs.test_suspensions import held
from tests.support.fake_node import FakeNode
from tests.support.stack import Caller, Stack
from tests.support.statements import counted
from tests.support.world import World
from trellis.vocabulary import ReplicaState


@pytest.fixture
def member(stack: Stack, world: World) -> Caller:
    return stack.client(world.member)


@pytest.fixture
def node(stack: Stack, world: World) -> FakeNode:
    return FakeNode.join(stack, world)


def an_array(caller: Caller, indexes: str = "0-3", **body: Any) -> str:
    parallel = {"max_parallel": body.pop("max_parallel")} if "max_parallel" in body else {}
    made = submit(caller, array={"indexes": indexes, **parallel}, **body)
    return str(made["array_id"])


def a_workflow(caller: Caller, **after: list[str]) -> Any:
    jobs = [
        {"name": name, "command": ["true"], "after": [{"job": one} for one in others]} for name, others in after.items()
    ]
    return caller.post("/jobs/workflows", {"name": "nightly", "jobs": jobs})


def states(caller: Caller, kind: str, group_id: str) -> dict[str, int]:
    answer = caller.get(f"/jobs/{kind}s/{group_id}")
    assert answer.status == 200, answer.text
    found: dict[str, int] = answer.json["states"]
    return found


def change(caller: Caller, kind: str, group_id: str, action: str, **body: Any) -> Any:
    return caller.patch(f"/jobs/{kind}s/{group_id}/status", {"action": action, **body})


def test_ten_thousand_elements_are_accepted_and_changed_in_seconds(stack: Stack, member: Caller) -> None:
    began = time.monotonic()
    array_id = an_array(member, "0-9999", max_parallel=100)
    accepted_s = time.monotonic() - began
    assert accepted_s < 5  # a fraction of a second; `make bench ONLY=arrays` measures it
    assert states(member, "array", array_id) == {"queued": 100, "pending": 9900}
    assert change(member, "array", array_id, "cancel").json["changed"] == 10_000
    assert states(member, "array", array_id) == {"cancelled": 10_000}


def test_an_array_is_one_line_of_a_list_with_its_states(stack: Stack, node: FakeNode, member: Caller) -> None:
    single = submit(member, name="single")
    array_id = an_array(member, "3-7", name="sweep")
    plan(stack)
    listed = member.get("/jobs?grouped=true").json["items"]
    assert [(item["name"], item["array_index"]) for item in listed] == [("sweep", 3), ("single", None)]
    group = listed[0]["group"]
    assert (group["id"], group["kind"], group["count"], group["states"]) == (array_id, "array", 5, {"scheduled": 5})
    assert "group" not in listed[1]
    assert single["id"] == listed[1]["id"]
    assert len(member.get("/jobs").json["items"]) == 6
    assert len(member.get(f"/jobs?array_id={array_id}").json["items"]) == 5


def test_a_filtered_list_shows_a_group_of_which_any_matches(stack: Stack, node: FakeNode, member: Caller) -> None:
    array_id = an_array(member, "0-4")
    change(member, "array", array_id, "cancel", elements="0-2")
    (line,) = member.get("/jobs?grouped=true&state=queued").json["items"]
    assert (line["array_index"], line["group"]["states"]) == (3, {"cancelled": 3, "queued": 2})
    assert not member.get("/jobs?grouped=true&state=failed").json["items"]


def test_pages_of_a_grouped_list_follow_each_other(stack: Stack, member: Caller) -> None:
    groups = [an_array(member, "0-9") for _ in range(3)]
    seen, cursor = [], ""
    while True:
        page = member.get(f"/jobs?grouped=true&limit=1{cursor}").json
        seen += [item["group"]["id"] for item in page["items"]]
        if not page["next_cursor"]:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == groups[::-1]


def test_some_elements_are_cancelled_suspended_and_resumed(stack: Stack, node: FakeNode, member: Caller) -> None:
    array_id = an_array(member, "0-9")
    assert change(member, "array", array_id, "suspend", elements="0-4", reason="later").json["changed"] == 5
    assert change(member, "array", array_id, "cancel", elements="8,9").json["changed"] == 2
    assert states(member, "array", array_id) == {"suspended": 5, "queued": 3, "cancelled": 2}
    assert change(member, "array", array_id, "resume", elements="0,1").json["changed"] == 2
    assert change(member, "array", array_id, "resume").json["changed"] == 3
    assert states(member, "array", array_id) == {"queued": 8, "cancelled": 2}


def test_a_running_element_is_parked_with_the_rest(stack: Stack, node: FakeNode, member: Caller) -> None:
    array_id = an_array(member, "0-1", resources={"cpus": 1})
    plan(stack)
    specs = placed(stack, node)
    node.ship(node.report(specs[0], ReplicaState.STARTING), node.report(specs[0], ReplicaState.RUNNING))
    change(member, "array", array_id, "suspend")
    (pause,) = node.beat(held(specs[0], ReplicaState.RUNNING)).pause
    assert (pause.replica_id, pause.paused) == (specs[0].replica_id, True)


def test_those_that_failed_are_submitted_again_and_count_once(stack: Stack, node: FakeNode, member: Caller) -> None:
    array_id = an_array(member, "0-2")
    plan(stack)
    one, two, three = placed(stack, node)
    node.succeed(one)
    node.fail(two)
    node.fail(three)
    assert states(member, "array", array_id) == {"succeeded": 1, "failed": 2}
    assert change(member, "array", array_id, "retry", elements="1").json["changed"] == 1
    assert states(member, "array", array_id) == {"succeeded": 1, "failed": 1, "queued": 1}
    assert change(member, "array", array_id, "retry").json["changed"] == 1
    assert states(member, "array", array_id) == {"succeeded": 1, "queued": 2}
    lineage = {job["array_index"]: job["retry_of"] for job in member.get(f"/jobs?array_id={array_id}").json["items"]}
    assert set(lineage) == {0, 1, 2}


def test_elements_that_there_are_not_are_named_and_nothing_changes(stack: Stack, member: Caller) -> None:
    array_id = an_array(member, "0-2")
    refused = change(member, "array", array_id, "cancel", elements="2-4")
    assert (refused.status, refused.json["errors"][0]["pointer"]) == (422, "/elements")
    assert "3" in refused.json["errors"][0]["message"]
    assert states(member, "array", array_id) == {"queued": 3}


@pytest.mark.parametrize("kind", ["array", "workflow"])
def test_a_group_of_strangers_is_not_there(stack: Stack, world: World, member: Caller, kind: str) -> None:
    group_id = an_array(member) if kind == "array" else a_workflow(member, a=[]).json["id"]
    stranger, viewer = stack.client(world.stranger), stack.client(world.viewer)
    assert stranger.get(f"/jobs/{kind}s/{group_id}").status == 404
    assert change(stranger, kind, group_id, "cancel").status == 404
    assert viewer.get(f"/jobs/{kind}s/{group_id}").status == 200
    assert change(viewer, kind, group_id, "cancel").status == 403


def test_a_workflow_runs_in_the_order_that_it_says(stack: Stack, node: FakeNode, member: Caller) -> None:
    made = a_workflow(member, report=["train", "test"], prepare=[], train=["prepare"], test=["prepare"])
    assert made.status == 201, made.text
    flow = made.json
    assert (flow["kind"], flow["name"], flow["count"]) == ("workflow", "nightly", 4)
    assert flow["states"] == {"queued": 1, "pending": 3}
    ran = []
    for _ in range(3):
        plan(stack)
        for spec in placed(stack, node):
            ran.append(spec.job_name)
            node.succeed(spec)
        stack.run(release_forgotten)
    assert (ran[0], set(ran[1:3]), ran[3]) == ("prepare", {"train", "test"}, "report")
    assert states(member, "workflow", flow["id"]) == {"succeeded": 4}


def test_a_workflow_is_one_line_and_is_cancelled_as_one(stack: Stack, node: FakeNode, member: Caller) -> None:
    flow = a_workflow(member, a=[], b=["a"], c=["b"]).json
    (line,) = member.get("/jobs?grouped=true").json["items"]
    assert (line["workflow"], line["group"]["states"]) == ("nightly", {"pending": 2, "queued": 1})
    assert len(member.get(f"/jobs?workflow_id={flow['id']}").json["items"]) == 3
    assert change(member, "workflow", flow["id"], "cancel", reason="not tonight").json["changed"] == 3
    assert states(member, "workflow", flow["id"]) == {"cancelled": 3}


def test_a_circle_is_refused_by_its_names_and_leaves_nothing(stack: Stack, member: Caller) -> None:
    refused = a_workflow(member, a=[], b=["a", "d"], c=["b"], d=["c"])
    assert refused.status == 422
    (fault,) = refused.json["errors"]
    circle = fault["message"].rpartition(": ")[2].split(" -> ")
    assert (fault["pointer"], set(circle), circle[0] == circle[-1]) == ("/jobs", {"b", "c", "d"}, True)
    assert member.get("/jobs").json["items"] == []


@pytest.mark.parametrize(
    ("jobs", "pointer"),
    [
        ([{"name": "a"}, {"name": "a"}], "/jobs"),
        ([{"name": "a", "after": [{"job": "b"}]}], "/jobs/0/after"),
        ([{"name": "a"}, {"name": "b", "after": [{"job": "a"}, {"job": "a"}]}], "/jobs/1/after"),
        ([{"name": "a", "array": {"indexes": "0-3"}}], "/jobs/0/array"),
        ([{"name": "a"}, {"name": "b", "queue": "nowhere"}], "/jobs/1/queue"),
    ],
)
def test_a_workflow_with_a_fault_names_the_job(member: Caller, jobs: list[dict[str, Any]], pointer: str) -> None:
    refused = member.post("/jobs/workflows", {"name": "x", "jobs": [{"command": ["true"], **job} for job in jobs]})
    assert (refused.status, refused.json["errors"][0]["pointer"]) == (422, pointer)
    assert member.get("/jobs").json["items"] == []


def test_a_dry_run_of_a_workflow_keeps_nothing(member: Caller) -> None:
    checked = member.post(
        "/jobs/workflows", {"name": "x", "jobs": [{"name": "a", "command": ["true"]}], "dry_run": True}
    )
    assert (checked.status, checked.json["count"]) == (200, 1)
    assert member.get("/jobs").json["items"] == []


def test_the_sweep_for_lost_messages_passes_over_those_that_waited_in_vain(
    stack: Stack, node: FakeNode, member: Caller
) -> None:
    flow = a_workflow(member, a=[], b=["a"], c=["b"]).json
    plan(stack)
    (spec,) = placed(stack, node)
    node.fail(spec)
    for _ in range(2):
        stack.run(release_forgotten)
    assert states(member, "workflow", flow["id"]) == {"failed": 1, "cancelled": 2}
    with counted(stack) as statements:
        stack.run(release_forgotten)
    assert len([one for one in statements if "dependencies" in one]) == 1


def test_a_workflow_takes_as_many_statements_for_many_jobs_as_for_one(stack: Stack, member: Caller) -> None:
    def submitted(count: int) -> int:
        with counted(stack) as statements:
            assert a_workflow(member, **{f"job-{i}": [] for i in range(count)}).status == 201
        return len(statements)

    assert submitted(1) == submitted(12)


def test_elements_of_a_pool_are_submitted_again_in_as_many_statements_as_one(
    stack: Stack, world: World, node: FakeNode, member: Caller
) -> None:
    assert stack.client(world.admin).post("/resources/pools", {"name": "gold"}).status == 201

    def again(indexes: str) -> int:
        array_id = an_array(member, indexes, constraints={"pool": "gold"})
        change(member, "array", array_id, "cancel")
        with counted(stack) as statements:
            assert change(member, "array", array_id, "retry").status == 200
        return len(statements)

    assert again("0") == again("0-11")


def test_as_many_elements_run_at_once_as_may_though_some_are_cancelled(
    stack: Stack, node: FakeNode, member: Caller
) -> None:
    array_id = an_array(member, "0-9", max_parallel=2)
    plan(stack)
    one, two = placed(stack, node)
    change(member, "array", array_id, "cancel", elements="2-4,6")
    stack.run(release_forgotten)
    assert states(member, "array", array_id) == {"scheduled": 2, "pending": 4, "cancelled": 4}
    ran = []
    for _ in range(4):
        for spec in placed(stack, node):
            node.succeed(spec)
            ran.append(spec.environment["TRELLIS_ARRAY_INDEX"])
            stack.run(release_forgotten)
        plan(stack)
        assert len(placed(stack, node)) <= 2
    assert sorted(ran) == ["0", "1", "5", "7", "8", "9"]
    assert (one.job_name, two.job_name) == ("true", "true")


def test_elements_that_are_submitted_again_run_as_many_at_once_as_before(stack: Stack, member: Caller) -> None:
    array_id = an_array(member, "0-4", max_parallel=2)
    change(member, "array", array_id, "cancel")
    assert change(member, "array", array_id, "retry").json["changed"] == 5
    assert states(member, "array", array_id) == {"queued": 2, "pending": 3}


def test_elements_that_are_submitted_again_line_up_behind_those_that_run(
    stack: Stack, node: FakeNode, member: Caller
) -> None:
    array_id = an_array(member, "0-3", max_parallel=2)
    plan(stack)
    one, _ = placed(stack, node)
    change(member, "array", array_id, "cancel", elements="2,3")
    assert change(member, "array", array_id, "retry").json["changed"] == 2
    assert states(member, "array", array_id) == {"scheduled": 2, "pending": 2}
    node.succeed(one)
    stack.run(release_forgotten)
    assert states(member, "array", array_id) == {"succeeded": 1, "scheduled": 1, "queued": 1, "pending": 1}
