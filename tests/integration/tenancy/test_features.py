"""Features: said for the platform, a project, a job; the nearer word counts, and what is not there is refused by name."""

from typing import Any

import pytest
from sqlalchemy import select

from app.core.events import Event
from app.jobs.models import Job, Replica
from app.jobs.service import spec_of
from tests.support.fake_node import FakeNode
from tests.support.stack import Caller, Stack
from tests.support.world import World
from trellis.features import FEATURES


@pytest.fixture
def member(stack: Stack, world: World) -> Caller:
    return stack.client(world.member)


def features_of(caller: Caller, **job: Any) -> list[str]:
    answer = caller.post("/jobs", {"command": ["true"], **job})
    assert answer.status == 201, answer.text
    found: list[str] = answer.json["features"]
    return found


def say(caller: Caller, name: str, enabled: bool | None, **more: Any) -> Any:
    return caller.put("/features", {"name": name, "enabled": enabled, **more})


def test_every_feature_is_described_has_an_owner_and_is_off_until_somebody_says_otherwise(member: Caller) -> None:
    items = member.get("/features").json["items"]
    assert {item["name"] for item in items} == FEATURES.keys()
    assert all(item["description"] and item["owner"] and not item["enabled"] for item in items)
    assert features_of(member) == []


def test_the_nearer_word_counts(stack: Stack, world: World, member: Caller) -> None:
    admin, chief = stack.client(world.admin), stack.client(world.project_admin)
    assert say(admin, "fine_metrics", True).json["enabled"] is True
    assert features_of(member) == ["fine_metrics"]
    assert say(chief, "fine_metrics", False, project=world.project.name).json["enabled"] is False
    assert features_of(member) == []
    assert features_of(member, features={"fine_metrics": True, "crash_traces": True}) == [
        "fine_metrics",
        "crash_traces",
    ]
    say(chief, "fine_metrics", None, project=world.project.name)
    assert features_of(member, features={"fine_metrics": False}) == []
    assert features_of(member) == ["fine_metrics"]
    say(admin, "fine_metrics", None)
    assert features_of(member) == []


def test_a_job_tells_its_features_to_its_node_and_keeps_them_when_tried_again(
    stack: Stack, world: World, member: Caller
) -> None:
    node = FakeNode.join(stack, world)
    job_id = member.post("/jobs", {"command": ["true"], "features": {"crash_traces": True}}).json["id"]
    stack.run(stack.cycle)
    replica = stack.run(lambda uow: uow.session.execute(select(Replica)).scalar_one())
    (spec,) = node.specs((str(replica.id), replica.fence))
    assert spec.features == ("crash_traces",)
    node.fail(spec)
    say(stack.client(world.admin), "fine_metrics", True)
    again = member.patch(f"/jobs/{job_id}/status", {"action": "retry"}).json
    assert again["features"] == ["crash_traces"]
    kept = stack.run(lambda uow: spec_of(uow.session.execute(select(Job).where(Job.id == again["id"])).scalar_one()))
    assert kept.features == {"fine_metrics": False, "crash_traces": True}


def test_what_is_not_there_is_refused_with_what_there_is(stack: Stack, world: World, member: Caller) -> None:
    refused = member.post("/jobs", {"command": ["true"], "features": {"no_limits": True}})
    assert (refused.status, refused.json["errors"][0]["pointer"]) == (422, "/features/no_limits")
    assert "fine_metrics" in refused.text
    missing = say(stack.client(world.admin), "no_limits", True)
    assert (missing.status, "fine_metrics" in missing.json["detail"]) == (404, True)
    assert member.post("/jobs", {"command": ["true"], "features": {"fine_metrics": "yes"}}).status == 422
    assert member.post("/jobs", {"command": ["true"], "features": ["fine_metrics"]}).status == 422


def test_who_may_not_switches_nothing(stack: Stack, world: World, member: Caller) -> None:
    assert say(member, "fine_metrics", True).status == 403
    assert say(member, "fine_metrics", True, project=world.project.name).status == 403
    assert say(stack.client(world.project_admin), "fine_metrics", True).status == 403
    assert say(stack.client(world.stranger), "fine_metrics", True, project=str(world.project.id)).status == 422
    assert features_of(member) == []


def test_switching_leaves_a_record(stack: Stack, world: World) -> None:
    admin = stack.client(world.admin)
    for enabled in (True, True, False, None, None):
        say(admin, "crash_traces", enabled)
    told = select(Event.data).where(Event.kind == "feature.changed").order_by(Event.id)
    found = stack.run(lambda uow: list(uow.session.execute(told).scalars()))
    assert [(data["before"], data["after"]) for data in found] == [(None, True), (True, False), (False, None)]
