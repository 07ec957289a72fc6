"""Lists of jobs: filters, order, stable pages."""

from typing import Any

import pytest

from tests.support.stack import Caller, Stack
from tests.support.statements import counted
from tests.support.world import World


@pytest.fixture
def member(stack: Stack, world: World) -> Caller:
    return stack.client(world.member)


def submit(caller: Caller, count: int = 1, **body: Any) -> list[dict[str, Any]]:
    answer = caller.post("/jobs/batch", {"jobs": [{"command": ["true"], **body}] * count})
    assert answer.status == 201, answer.text
    items: list[dict[str, Any]] = answer.json["items"]
    return items


def names(caller: Caller, query: str) -> list[str]:
    answer = caller.get(f"/jobs?{query}")
    assert answer.status == 200, answer.text
    return [job["name"] for job in answer.json["items"]]


def test_each_filter_keeps_what_it_names(stack: Stack, world: World, member: Caller) -> None:
    submit(member, name="a", labels={"team": "vision", "stage": "dev"}, priority=5)
    (b,) = submit(member, name="b", labels={"team": "audio"})
    member.patch(f"/jobs/{b['id']}/status", {"action": "cancel"})
    submit(stack.client(world.project_admin), name="c")
    assert names(member, "label=team:vision") == ["a"]
    assert names(member, "label=team:vision&label=stage:prod") == []
    assert names(member, "state=cancelled") == ["b"]
    assert names(member, "state=cancelled&state=queued&sort=name") == ["a", "b", "c"]
    assert names(member, f"user={world.project_admin.username}") == ["c"]
    assert names(member, f"project={world.project.name}&sort=-name") == ["c", "b", "a"]
    assert names(member, "queue=default&sort=-priority&limit=1") == ["a"]
    assert names(member, "submitted_after=2001-01-01T00:00:00Z&sort=submitted_at") == ["a", "b", "c"]
    assert names(member, "submitted_before=2001-01-01T00:00:00Z") == []
    assert names(member, "ended_after=2001-01-01T00:00:00Z") == ["b"]
    assert names(member, f"project={world.strangers_project.name}") == []


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("state=great", "/state/0"),
        ("limit=0", "/limit"),
        ("limit=501", "/limit"),
        ("limit=-1", "/limit"),
        ("limit=1e2", "/limit"),
        ("sort=password", "/sort"),
        ("label=team", "/label/0"),
        ("submitted_after=yesterday", "/submitted_after"),
        ("cursor=AAAA", "/cursor"),
        ("colour=red", "/colour"),
    ],
)
def test_a_filter_that_makes_no_sense_is_named(member: Caller, query: str, pointer: str) -> None:
    answer = member.get(f"/jobs?{query}")
    assert (answer.status, answer.json["errors"][0]["pointer"]) == (422, pointer), answer.text


@pytest.mark.parametrize("order", ["-submitted_at", "submitted_at", "-priority", "name"])
def test_pages_hold_every_job_once_though_jobs_come_in_between(member: Caller, order: str) -> None:
    known = {job["id"] for job in submit(member, 25)}
    seen: list[str] = []
    path = f"/jobs?limit=10&sort={order}"
    cursor = ""
    while True:
        page = member.get(path + cursor).json
        seen += [job["id"] for job in page["items"]]
        submit(member, 1, priority=-1000, name="zzz")
        if page["next_cursor"] is None or len(seen) > 60:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert len(seen) == len(set(seen))
    assert known <= set(seen)


def test_a_cursor_holds_for_its_own_list_only(stack: Stack, world: World, member: Caller) -> None:
    submit(member, 3)
    cursor = member.get("/jobs?limit=1").json["next_cursor"]
    assert member.get(f"/jobs?limit=1&cursor={cursor}").status == 200
    assert member.get(f"/jobs?limit=1&state=queued&cursor={cursor}").status == 422
    other = stack.client(world.viewer).get(f"/jobs?limit=1&cursor={cursor}")
    assert other.status == 422


def test_a_page_costs_as_many_statements_for_fifty_jobs_as_for_one(stack: Stack, member: Caller) -> None:
    submit(member, 60)
    counts = []
    for limit in (1, 50):
        with counted(stack) as executed:
            member.get(f"/jobs?limit={limit}")
        counts.append(len(executed))
    assert counts[0] == counts[1] <= 6


def test_a_submission_takes_five_statements(stack: Stack, member: Caller) -> None:
    member.post("/jobs", {"command": ["true"]})
    with counted(stack) as executed:
        answer = member.post("/jobs", {"command": ["true"]}, headers={"Idempotency-Key": "k"})
    assert answer.status == 201
    assert len(executed) == 5, executed
