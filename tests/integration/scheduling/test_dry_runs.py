"""A dry run says what would happen, and then that happens; it changes nothing."""

from typing import Any

import pytest
from sqlalchemy import text

from app.scheduling.dry_runs import MOST_COPIES, MOST_KINDS
from tests.support.fake_node import FakeNode, a_description
from tests.support.stack import Answer, Caller, Stack
from tests.support.statements import counted
from tests.support.world import World

FLOW: list[dict[str, Any]] = [
    {"name": "prepare", "command": ["true"]},
    {"name": "train", "command": ["true"], "after": [{"job": "prepare"}], "resources": {"gpus": 2}, "time_limit": "1h"},
]


@pytest.fixture
def member(stack: Stack, world: World) -> Caller:
    return stack.client(world.member)


def ask(caller: Caller, **body: Any) -> Answer:
    return caller.post("/jobs/dry-run", body)


def a_job(**body: Any) -> dict[str, Any]:
    return {"command": ["python", "train.py"], **body}


def test_it_says_what_would_be_stored_and_that_is_stored(stack: Stack, world: World, member: Caller) -> None:
    FakeNode.join(stack, world, a_description(gpus=4))
    body = a_job(
        resources={"gpus": 2, "memory": "2GiB"},
        replicas=2,
        environment={"A": "b"},
        labels={"team": "x"},
        retries={"limit": 3},
    )
    (told,) = ask(member, job=body).json["jobs"]
    made = member.post("/jobs", body).json
    kept = member.get(f"/jobs/{made['id']}?verbose=true").json
    assert (told["spec"], told["labels"]) == (kept["spec"], kept["labels"])
    assert (told["name"], told["project"], told["queue"], told["count"]) == (
        kept["name"],
        kept["project"],
        kept["queue"],
        1,
    )


def test_it_says_where_it_would_start_and_there_it_starts(stack: Stack, world: World, member: Caller) -> None:
    for name in ("a", "b"):
        FakeNode.join(stack, world, a_description(name, gpus=4))
    member.post("/jobs", a_job(resources={"gpus": 3}))
    stack.run(stack.cycle)
    told = ask(member, job=a_job(resources={"gpus": 4})).json
    (copy,) = told["forecasts"][told["jobs"][0]["forecast"]]["copies"]
    made = member.post("/jobs", a_job(resources={"gpus": 4})).json
    stack.run(stack.cycle)
    (attempt,) = member.get(f"/jobs/{made['id']}?verbose=true").json["attempts"]
    assert (copy["certainty"], copy["nodes"]) == ("now", [replica["node"] for replica in attempt["replicas"]])


def test_it_says_what_it_would_hold_and_for_how_long_at_most(stack: Stack, world: World, member: Caller) -> None:
    body = a_job(resources={"gpus": 2, "cpus": 3}, replicas=2, time_limit="1h", array={"indexes": "0-9"})
    told = ask(member, job=body).json
    assert (told["count"], told["jobs"][0]["count"]) == (10, 10)
    assert (told["total"]["gpu_milli"], told["total"]["cpu_milli"]) == (40_000, 60_000)
    assert told["total"]["gpu_seconds_at_most"] == 40 * 3600
    assert ask(member, job=a_job(resources={"gpus": 1})).json["total"]["gpu_seconds_at_most"] is None
    assert ask(member, job=a_job()).json["total"]["gpu_seconds_at_most"] == 0


def test_nothing_is_changed_whatever_is_asked(stack: Stack, world: World, member: Caller) -> None:
    FakeNode.join(stack, world, a_description(gpus=2))
    member.post("/jobs", a_job(resources={"gpus": 1}))
    stack.run(stack.cycle)
    sequences = text("SELECT string_agg(sequencename || last_value, ',' ORDER BY sequencename) FROM pg_sequences")
    before = stack.dump(), stack.run(lambda uow: uow.session.execute(sequences).scalar_one())
    bodies: list[dict[str, Any]] = [
        {"job": a_job(priority=1000, resources={"gpus": 2})}, {"job": a_job(array={"indexes": "0-999", "max_parallel": 10})},
        {"jobs": [a_job(), a_job(resources={"gpus": 9})]}, {"workflow": {"name": "w", "jobs": FLOW}},
    ]  # fmt: skip
    for body in bodies:
        assert ask(member, **body).status == 200
    assert (stack.dump(), stack.run(lambda uow: uow.session.execute(sequences).scalar_one())) == before


def test_a_quota_that_would_refuse_is_told_in_its_words(stack: Stack, world: World, member: Caller) -> None:
    limits = {"hard": {"jobs": 3}}
    admin = stack.client(world.admin)
    assert admin.put(f"/projects/{world.project.id}/quota", limits).status == 200
    assert ask(member, jobs=[a_job()] * 3).json["refused"] is None
    told = ask(member, jobs=[a_job()] * 4).json["refused"]
    refused = member.post("/jobs/batch", {"jobs": [a_job()] * 4})
    assert (refused.status, refused.json["detail"]) == (403, told)
    assert ask(member, job=a_job(array={"indexes": "0-3"})).json["refused"] == told


def test_who_waits_for_others_is_told_for_whom(stack: Stack, world: World, member: Caller) -> None:
    FakeNode.join(stack, world, a_description(gpus=2))
    there = member.post("/jobs", a_job()).json["id"]
    told = ask(member, workflow={"name": "w", "jobs": FLOW}).json
    prepare, train = told["jobs"]
    assert (prepare["waits_for"], prepare["forecast"], train["waits_for"], train["forecast"]) == (
        [],
        0,
        ["prepare"],
        None,
    )
    answer = ask(member, job=a_job(depends_on=[{"job": there}]))
    assert answer.status == 200, answer.text
    (waits,) = answer.json["jobs"]
    assert waits["waits_for"] == [there]


def test_jobs_of_one_submission_compete_with_one_another(stack: Stack, world: World, member: Caller) -> None:
    FakeNode.join(stack, world, a_description(cpus=4))
    jobs = [a_job(resources={"cpus": 3}), a_job(resources={"cpus": 2}, priority=500)]
    low, high = ask(member, jobs=jobs).json["forecasts"]
    assert (low["starting_now"], high["starting_now"]) == (0, 1)


def test_what_could_never_start_is_said_with_the_reason(stack: Stack, world: World, member: Caller) -> None:
    FakeNode.join(stack, world, a_description(gpus=2))
    told = ask(member, job=a_job(resources={"gpus": 4})).json
    assert (told["could_ever_start"], "4" in told["forecasts"][0]["why"]["message"]) == (False, True)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/job"), ({"job": a_job(), "jobs": [a_job()]}, "/job"), ({"jobs": []}, "/jobs"),
        ({"job": a_job(queue="nowhere")}, "/job/queue"), ({"job": a_job(deadline="2020-01-01T00:00:00Z")}, "/job/deadline"),
        ({"jobs": [a_job(), a_job(deadline="2020-01-01T00:00:00Z")]}, "/jobs/1/deadline"),
        ({"jobs": [a_job(array={"indexes": "0-3"})]}, "/jobs"),
        ({"workflow": {"name": "w", "jobs": [{**FLOW[0], "after": [{"job": "nobody"}]}]}}, "/jobs/0/after"),
        ({"job": {"resources": {}}}, "/job/command"), ({"job": a_job(surprise=1)}, "/job/surprise"),
    ],
    ids=str,
)  # fmt: skip
def test_what_a_submission_would_refuse_is_refused_by_its_field(
    member: Caller, body: dict[str, Any], pointer: str
) -> None:
    answer = ask(member, **body)
    assert (answer.status, answer.json["errors"][0]["pointer"]) == (422, pointer), answer.text


def test_many_kinds_and_many_copies_are_bounded_and_that_is_said(stack: Stack, world: World, member: Caller) -> None:
    FakeNode.join(stack, world, a_description(cpus=4))
    told = ask(member, jobs=[a_job(priority=number) for number in range(MOST_KINDS + 2)]).json
    assert [job["forecast"] for job in told["jobs"]] == [*range(MOST_KINDS), None, None]
    told = ask(member, job=a_job(array={"indexes": "0-999"})).json
    assert (told["count"], len(told["forecasts"][0]["copies"])) == (1000, MOST_COPIES)


def test_the_statements_do_not_grow_with_the_jobs(stack: Stack, world: World, member: Caller) -> None:
    counts = []
    for many in (2, 200):
        with counted(stack) as statements:
            assert ask(member, jobs=[a_job()] * many).status == 200
        counts.append(len(statements))
    assert counts[0] == counts[1]
