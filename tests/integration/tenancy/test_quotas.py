"""Quotas: whose they are to set, what they refuse, what they only tell, and that no two pass where one may."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update

from app.core.amounts import Limits
from app.jobs.service import submit_job
from app.jobs.spec import JobSpec
from app.tenancy.models import Quota
from app.tenancy.quotas import list_quotas, watch_quotas
from tests.support.builders import a_project, a_service_account
from tests.support.fake_node import FakeNode, a_description
from tests.support.stack import Answer, Caller, Stack
from tests.support.world import World

GIB = 2**30


@pytest.fixture
def admin(stack: Stack, world: World) -> Caller:
    return stack.client(world.admin)


@pytest.fixture
def member(stack: Stack, world: World) -> Caller:
    return stack.client(world.member)


def of_project(world: World) -> str:
    return f"/projects/{world.project.id}/quota"


def of_member(world: World) -> str:
    return f"/projects/{world.project.id}/members/{world.member.id}/quota"


def of_organisation(world: World) -> str:
    return f"/organisations/{world.organisation.id}/quota"


def put(admin: Caller, path: str, **body: Any) -> Answer:
    answer = admin.put(path, body)
    assert answer.status == 200, answer.text
    return answer


def submit(caller: Caller, **body: Any) -> Answer:
    return caller.post("/jobs", {"command": ["true"], **body})


def test_a_quota_is_set_whole_and_shown_with_what_is_used(
    stack: Stack, world: World, admin: Caller, member: Caller
) -> None:
    FakeNode.join(stack, world, a_description(cpus=8, gpus=2))
    assert member.get(of_project(world)).json["version"] == 0
    body = {"hard": {"gpus": 4, "jobs": 10}, "soft": {"gpus": 2}, "burst": {"gpus": 2, "for": "1h", "every": "1d"}}
    made = put(admin, of_project(world), **body)
    assert made.headers["ETag"] == '"1"'
    for _ in range(3):
        assert submit(member, resources={"cpus": 2, "gpus": 1}).status == 201
    stack.run(stack.cycle)
    shown = member.get(of_project(world)).json
    assert shown | {"most": shown["most"]} == {
        "hard": {"gpu_milli": 4000}, "hard_jobs": 10, "soft": {"gpu_milli": 2000}, "soft_jobs": None,
        "burst": {"gpu_milli": 2000}, "burst_for_s": 3600, "burst_every_s": 86_400, "burst_until": None,
        "most": {"cpu_milli": None, "memory_bytes": None, "gpu_milli": 6000}, "soft_exceeded_at": None, "version": 1,
        "usage": {"held": {"cpu_milli": 4000, "memory_bytes": 2 * GIB, "gpu_milli": 2000}, "jobs": 3},
    }  # fmt: skip
    assert put(admin, of_project(world), **body).headers["ETag"] == '"1"'
    assert put(admin, of_project(world)).json["hard"] == {}
    assert admin.put(of_project(world), body, headers={"If-Match": '"1"'}).json["code"] == "stale_version"


@pytest.mark.parametrize("whose", [of_project, of_organisation, of_member])
def test_jobs_over_the_hard_limit_are_refused_until_others_have_ended(
    stack: Stack, world: World, admin: Caller, member: Caller, whose: Any
) -> None:
    put(admin, whose(world), hard={"jobs": 2})
    first = submit(member).json["id"]
    assert submit(member).status == 201
    third = submit(member)
    assert (third.status, third.json["code"]) == (403, "quota_exceeded")
    assert "2 jobs that have not ended; there are 2, and 1 would come" in third.json["detail"]
    assert member.patch(f"/jobs/{first}/status", {"action": "cancel"}).status == 200
    assert submit(member).status == 201


def test_arrays_batches_and_retries_count_as_what_they_become(
    stack: Stack, world: World, admin: Caller, member: Caller
) -> None:
    put(admin, of_project(world), hard={"jobs": 3})
    before = stack.dump()
    assert submit(member, array={"indexes": "0-3"}).json["code"] == "quota_exceeded"
    assert member.post("/jobs/batch", {"jobs": [{"command": ["true"]}] * 4}).json["code"] == "quota_exceeded"
    assert stack.dump() == before
    jobs = submit(member, array={"indexes": "0-2"}).json["items"]
    member.patch(f"/jobs/{jobs[0]['id']}/status", {"action": "cancel"})
    assert member.patch(f"/jobs/{jobs[0]['id']}/status", {"action": "retry"}).status == 200
    member.patch(f"/jobs/{jobs[1]['id']}/status", {"action": "cancel"})
    assert submit(member).status == 201
    assert member.patch(f"/jobs/{jobs[1]['id']}/status", {"action": "retry"}).json["code"] == "quota_exceeded"


@pytest.mark.parametrize("whose", [of_project, of_organisation, of_member])
def test_of_32_submissions_at_once_no_more_pass_than_may(stack: Stack, world: World, admin: Caller, whose: Any) -> None:
    put(admin, whose(world), hard={"jobs": 5})
    spec = JobSpec(command=("true",), project=str(world.project.id))
    actor = stack.actor(world.member)
    outcomes = stack.race(lambda uow: submit_job(uow, spec), times=32, actor=actor)
    names = [type(outcome).__name__ for outcome in outcomes]
    assert (names.count("tuple"), names.count("QuotaExceeded")) == (5, 27)


def test_a_job_that_could_never_start_is_refused_at_once(
    stack: Stack, world: World, admin: Caller, member: Caller
) -> None:
    put(admin, of_project(world), hard={"gpus": 4, "memory": "8GiB"}, burst={"gpus": 4, "for": "1h", "every": "1d"})
    assert submit(member, resources={"gpus": 8}).status == 201
    assert submit(member, resources={"gpus": 4}, replicas=2).status == 201
    for body in ({"resources": {"gpus": 9}}, {"resources": {"gpus": 3}, "replicas": 3}):
        answer = submit(member, **body)
        assert (answer.status, answer.json["code"]) == (403, "quota_exceeded")
        assert "it asks for 9 GPUs at once, of which the project may never hold more than 8 GPUs" in answer.text
    assert submit(member, resources={"memory": "9GiB"}).status == 403
    assert submit(member, resources={"gpus": 9}, dry_run=True).status == 403


def test_what_is_held_without_a_job_keeps_to_the_quota_too(
    stack: Stack, world: World, admin: Caller, member: Caller
) -> None:
    FakeNode.join(stack, world, a_description(cpus=8, gpus=4))
    put(admin, of_project(world), hard={"gpus": 2})
    submit(member, resources={"gpus": 1})
    stack.run(stack.cycle)
    assert member.post("/resources/allocate", {"gpus": 1}).status == 201
    third = member.post("/resources/allocate", {"gpus": 0.5})
    assert (third.status, third.json["code"], third.json["errors"][0]["pointer"]) == (403, "quota_exceeded", "/gpus")
    assert "may hold 2 GPUs at once; it holds 2 GPUs" in third.json["detail"]
    whole = member.post("/resources/allocate", {"exclusive": True})
    assert whole.status in (403, 409)


def test_an_exclusive_node_counts_with_all_there_is_of_it(
    stack: Stack, world: World, admin: Caller, member: Caller
) -> None:
    FakeNode.join(stack, world, a_description(cpus=8, gpus=4))
    put(admin, of_project(world), hard={"gpus": 2})
    answer = member.post("/resources/allocate", {"exclusive": True})
    assert (answer.status, answer.json["code"]) == (403, "quota_exceeded")
    chief = stack.client(world.project_admin)
    claim = {"ends_at": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}
    assert chief.post("/resources/reserve", claim | {"gpus": 3}).json["code"] == "quota_exceeded"


def test_going_over_a_soft_limit_is_told_once_and_hinders_nothing(
    stack: Stack, world: World, admin: Caller, member: Caller
) -> None:
    FakeNode.join(stack, world, a_description(cpus=8, gpus=4))
    put(admin, of_project(world), soft={"gpus": 1, "jobs": 5})
    quota_id = stack.run(lambda uow: uow.session.query(Quota).one().id)
    for _ in range(2):
        assert submit(member, resources={"gpus": 1}).status == 201
    stack.run(stack.cycle)
    for _ in range(3):
        stack.run(watch_quotas)
    assert stack.events_of(quota_id) == ["quota.changed", "quota.soft_exceeded"]
    assert member.get(of_project(world)).json["soft_exceeded_at"] is not None
    put(admin, of_project(world), soft={"gpus": 2})
    stack.run(watch_quotas)
    assert member.get(of_project(world)).json["soft_exceeded_at"] is None


def test_a_burst_begins_when_it_is_needed_lasts_its_time_and_rests(
    stack: Stack, world: World, admin: Caller, member: Caller
) -> None:
    FakeNode.join(stack, world, a_description(cpus=8, gpus=4))
    put(admin, of_project(world), hard={"gpus": 1}, burst={"gpus": 2, "for": "1h", "every": "1d"})
    quota_id = stack.run(lambda uow: uow.session.query(Quota).one().id)

    def most() -> int | None:
        stack.run(watch_quotas)
        (found,) = stack.run(list_quotas)
        return found.most.gpu_milli

    def later(**time: int) -> None:
        began = {"burst_began_at": Quota.burst_began_at - timedelta(**time)}
        stack.run(lambda uow: uow.session.execute(update(Quota).values(began)))

    held = [member.post("/resources/allocate", {"gpus": 1}) for _ in range(4)]
    assert [answer.status for answer in held] == [201, 201, 201, 403]
    assert most() == 3000
    assert member.get(of_project(world)).json["burst_until"] is not None
    later(minutes=61)
    assert most() == 1000
    assert member.delete(f"/resources/allocations/{held[0].json['id']}").status == 204
    assert member.post("/resources/allocate", {"gpus": 1}).status == 403
    for answer in held[1:3]:
        member.delete(f"/resources/allocations/{answer.json['id']}")
    later(hours=23)
    assert most() == 3000
    assert stack.events_of(quota_id) == ["quota.changed", "quota.burst_began", "quota.burst_rested"]


def test_an_organisations_quota_counts_all_of_its_projects(
    stack: Stack, world: World, admin: Caller, member: Caller
) -> None:
    other = stack.add(a_project(world.organisation))
    put(admin, of_organisation(world), hard={"jobs": 2})
    assert submit(admin, project=str(other.id), queue="default").status == 201
    assert submit(member).status == 201
    assert submit(member).json["code"] == "quota_exceeded"
    assert submit(admin, project=str(world.strangers_project.id)).status == 201


def test_a_members_quota_is_theirs_alone(stack: Stack, world: World, admin: Caller, member: Caller) -> None:
    chief = stack.client(world.project_admin)
    put(chief, of_member(world), hard={"jobs": 1})
    assert [submit(member).status for _ in range(2)] == [201, 403]
    assert submit(chief).status == 201
    stack.run(watch_quotas)
    (kept,) = stack.run(list_quotas)
    assert (kept.subject.actor_id, kept.most) == (world.member.id, Limits())


def test_who_may_set_which_quota(stack: Stack, world: World, admin: Caller, member: Caller) -> None:
    chief, stranger, body = stack.client(world.project_admin), stack.client(world.stranger), {"hard": {"jobs": 1}}
    for path, statuses in (
        (of_organisation(world), (404, 403, 403, 200)),
        (of_project(world), (404, 403, 403, 200)),
        (of_member(world), (404, 403, 200, 200)),
    ):
        found = tuple(caller.put(path, body).status for caller in (stranger, member, chief, admin))
        assert found == statuses, path
        assert stranger.get(path).status == 404
        assert member.get(path).status == 200


def test_a_program_of_the_project_may_have_a_quota_and_a_stranger_not(
    stack: Stack, world: World, admin: Caller
) -> None:
    robot = stack.add(a_service_account(world.project))
    path = f"/projects/{world.project.id}/members"
    assert admin.put(f"{path}/{robot.id}/quota", {"hard": {"jobs": 1}}).status == 200
    assert admin.put(f"{path}/{world.stranger.id}/quota", {"hard": {"jobs": 1}}).status == 404


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"hard": {"gpus": 1}, "soft": {"gpus": 2}}, "/soft/gpus"),
        ({"hard": {"jobs": 1}, "soft": {"jobs": 2}}, "/soft/jobs"),
        ({"burst": {"gpus": 1, "for": 60, "every": 60}}, "/burst/gpus"),
        ({"hard": {"gpus": 1}, "burst": {"gpus": 1, "every": 60}}, "/burst/for"),
        ({"hard": {"gpus": 1}, "burst": {"gpus": 1, "for": 60, "every": 59}}, "/burst/every"),
        ({"hard": {"gpus": -1}}, "/hard/gpus"),
        ({"hard": {"gpus": "NaN"}}, "/hard/gpus"),
        ({"hard": {"memory": 10**30}}, "/hard/memory"),
        ({"hard": {"jobs": 1.0}}, "/hard/jobs"),
        ({"hard": {"jobs": True}}, "/hard/jobs"),
        ({"hard": {"disks": 1}}, "/hard/disks"),
        ({"firm": {}}, "/firm"),
    ],
)
def test_a_quota_that_makes_no_sense_is_refused_by_its_field(
    stack: Stack, world: World, admin: Caller, body: dict[str, Any], pointer: str
) -> None:
    before = stack.dump()
    answer = admin.put(of_project(world), body)
    assert (answer.status, [error["pointer"] for error in answer.json["errors"]]) == (422, [pointer])
    assert stack.dump() == before
