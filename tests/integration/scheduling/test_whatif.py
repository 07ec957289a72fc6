"""What is said before a submission is what happens after it, and saying it changes nothing."""

from datetime import datetime, timedelta
from random import Random
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import InternalError

from app.core.events import Event
from app.http.transaction import reading
from app.scheduling.mirror import Mirror
from tests.support.fake_node import FakeNode, a_description
from tests.support.stack import Answer, Caller, Stack
from tests.support.world import World

WHAT_IF = "/resources/what-if"


@pytest.fixture
def member(stack: Stack, world: World) -> Caller:
    return stack.client(world.member)


def ask(caller: Caller, copies: int = 1, more: object = None, without: object = None, **job: object) -> Answer:
    said = {"more": more, "without": without}
    return caller.post(
        WHAT_IF, {"job": job, "copies": copies} | {key: value for key, value in said.items() if value is not None}
    )


def submit(caller: Caller, count: int = 1, **body: object) -> list[str]:
    answer = caller.post("/jobs/batch", {"jobs": [{"command": ["true"], **body}] * count})
    assert answer.status == 201, answer.text
    return [job["id"] for job in answer.json["items"]]


def test_a_job_that_fits_is_told_where_and_then_starts_there(stack: Stack, world: World, member: Caller) -> None:
    for name in ("a", "b"):
        FakeNode.join(stack, world, a_description(name, gpus=4))
    submit(member, resources={"gpus": 3})
    answer = ask(member, resources={"gpus": 2}, replicas=2)
    assert answer.status == 200, answer.text
    (copy,) = answer.json["copies"]
    assert (copy["certainty"], copy["position"], answer.json["why"]) == ("now", None, None)
    (job_id,) = submit(member, resources={"gpus": 2}, replicas=2)
    stack.run(stack.cycle)
    (attempt,) = member.get(f"/jobs/{job_id}?verbose=true").json["attempts"]
    assert [seat["node"] for seat in copy["replicas"]] == [replica["node"] for replica in attempt["replicas"]]
    assert [[gpu["index"] for gpu in seat["gpus"]] for seat in copy["replicas"]] == [
        [gpu["index"] for gpu in replica["gpus"]] for replica in attempt["replicas"]
    ]


def test_asking_changes_no_row_and_no_sequence(stack: Stack, world: World, member: Caller) -> None:
    FakeNode.join(stack, world, a_description(gpus=2))
    submit(member, 3, resources={"gpus": 1})
    stack.run(stack.cycle)
    sequences = text("SELECT string_agg(sequencename || last_value, ',' ORDER BY sequencename) FROM pg_sequences")
    before = stack.dump(), stack.run(lambda uow: uow.session.execute(sequences).scalar_one())
    answer = ask(member, copies=3, more=[{"like": "node-1"}], without=["node-1"], resources={"gpus": 2}, priority=1000)
    assert answer.status == 200, answer.text
    after = stack.dump(), stack.run(lambda uow: uow.session.execute(sequences).scalar_one())
    assert before == after


def test_a_question_is_asked_in_a_unit_that_can_write_nothing(stack: Stack, member: Caller) -> None:
    with stack.app.test_request_context(headers=member.headers), pytest.raises(InternalError, match="read-only"):
        reading(lambda uow: uow.session.execute(text("DELETE FROM events")))


def test_what_waits_is_told_its_place_why_and_when(stack: Stack, world: World, member: Caller) -> None:
    FakeNode.join(stack, world, a_description(cpus=4))
    submit(member, resources={"cpus": 4}, time_limit="1h")
    stack.run(stack.cycle)
    head, later = ask(member, copies=2, resources={"cpus": 3}, time_limit="10m").json["copies"]
    assert (head["certainty"], head["position"], head["nodes"]) == ("promised", 1, ["node-1"])
    assert (later["certainty"], later["position"], later["nodes"]) == ("expected", 2, ["node-1"])
    starts = [datetime.fromisoformat(copy["starts_at"]) for copy in (head, later)]
    assert starts[1] - starts[0] == timedelta(minutes=10)
    waiting = ask(member, resources={"cpus": 3}).json
    assert waiting["why"] == {"reason": "no_room", "message": "1 of 1 node fits but for CPUs: 3 CPUs short"}


def test_behind_jobs_without_a_limit_nobody_knows_when(stack: Stack, world: World, member: Caller) -> None:
    FakeNode.join(stack, world, a_description(cpus=4))
    submit(member, resources={"cpus": 4})
    stack.run(stack.cycle)
    (copy,) = ask(member, resources={"cpus": 1}).json["copies"]
    assert (copy["certainty"], copy["starts_at"]) == ("unknown", None)


def test_what_could_never_start_is_told_so(stack: Stack, world: World, member: Caller) -> None:
    FakeNode.join(stack, world, a_description(gpus=4))
    told = ask(member, resources={"gpus": 8}).json
    assert (told["could_ever_start"], told["copies"][0]["certainty"]) == (False, "never")
    assert "asks for 8 GPUs a replica, the largest node has 4" in told["why"]["message"]


def test_one_sees_which_of_ones_own_jobs_would_go_and_of_others_how_many(
    stack: Stack, world: World, member: Caller
) -> None:
    FakeNode.join(stack, world, a_description(cpus=4))
    stranger = stack.client(world.stranger)
    (foreign,) = submit(stranger, resources={"cpus": 2}, name="the-secret-job")
    (own,) = submit(member, resources={"cpus": 2}, name="mine")
    stack.run(stack.cycle)
    long_ago = text("UPDATE jobs SET started_at = now() - interval '1 day'")
    stack.run(lambda uow: uow.session.execute(long_ago))
    answer = ask(member, resources={"cpus": 4}, priority=10)
    displaced = answer.json["displaced"]
    assert [(one["job_id"], one["name"], one["how"]) for one in displaced["jobs"]] == [(own, "mine", "preempt")]
    assert displaced["others"] == 1
    marks = (foreign, "the-secret-job", str(world.strangers_project.id), world.strangers_project.name)
    assert not [mark for mark in (*marks, world.stranger.username) if mark in answer.text]
    seen_by_admin = ask(stack.client(world.admin), resources={"cpus": 4}, priority=10, project=str(world.project.id))
    assert {one["job_id"] for one in seen_by_admin.json["displaced"]["jobs"]} == {own, foreign}


def test_of_a_foreign_head_that_would_be_delayed_nothing_is_told(stack: Stack, world: World, member: Caller) -> None:
    FakeNode.join(stack, world, a_description(cpus=4))
    stranger = stack.client(world.stranger)
    submit(stranger, resources={"cpus": 2}, time_limit="5m")
    (head,) = submit(stranger, resources={"cpus": 4}, name="the-secret-job", time_limit="10m")
    stack.run(stack.cycle)
    answer = ask(member, resources={"cpus": 2}, time_limit="2h")
    assert answer.json["why"]["reason"] == "behind_head"
    assert head not in answer.text


def test_nodes_more_and_nodes_fewer_are_supposed(stack: Stack, world: World, member: Caller) -> None:
    FakeNode.join(stack, world, a_description("a", gpus=4))
    FakeNode.join(stack, world, a_description("b", gpus=2, profile="small"))
    submit(member, resources={"gpus": 4})
    stack.run(stack.cycle)
    wish: dict[str, Any] = {"resources": {"gpus": 4}}
    assert ask(member, **wish).json["starting_now"] == 0
    grown = ask(member, copies=3, more=[{"like": "a", "count": 2}], **wish).json
    assert [copy["nodes"] for copy in grown["copies"]] == [["a+1"], ["a+2"], []]
    by_profile = ask(member, more=[{"like": "small"}], resources={"gpus": 2}, replicas=2).json
    assert sorted(by_profile["copies"][0]["nodes"]) == ["b", "b+1"]
    lost = ask(member, without=["a"], **wish).json
    assert (lost["requeued"], lost["could_ever_start"]) == (1, False)
    refused = ask(member, more=[{"like": "nobody"}], **wish)
    assert [fault["pointer"] for fault in refused.json["errors"]] == ["/more/0/like"]
    refused = ask(member, without=["a", "nobody"], **wish)
    assert [fault["pointer"] for fault in refused.json["errors"]] == ["/without/1"]


def test_faults_of_the_job_are_those_of_a_submission(stack: Stack, world: World, member: Caller) -> None:
    wrong = ask(member, resources={"gpus": 1.5}, queue="default")
    assert (wrong.status, wrong.json["errors"][0]["pointer"]) == (422, "/job/resources/gpus")
    unknown = ask(member, project="nobody")
    assert (unknown.status, unknown.json["errors"][0]["pointer"]) == (422, "/job/project")
    late = ask(member, deadline="2020-01-01T00:00:00Z")
    assert late.json["errors"][0]["pointer"] == "/job/deadline"
    array = ask(member, array={"indexes": "0-3"})
    assert array.status == 422, array.text
    assert array.json["errors"][0]["pointer"] == "/job/array"
    assert ask(stack.client(world.viewer), project=world.project.name).status == 403


def test_a_quota_that_stands_in_the_way_is_named(stack: Stack, world: World, member: Caller) -> None:
    FakeNode.join(stack, world, a_description(gpus=8))
    path = f"/projects/{world.project.id}/quota"
    assert stack.client(world.admin).put(path, {"hard": {"gpus": 4, "jobs": 2}}).status == 200
    submit(member, resources={"gpus": 3})
    stack.run(stack.cycle)
    waits = ask(member, resources={"gpus": 2}).json
    assert (waits["why"]["reason"], waits["refused"], waits["could_ever_start"]) == ("quota", None, True)
    assert "holds 3 GPUs of the 4 GPUs it may hold" in waits["why"]["message"]
    never = ask(member, resources={"gpus": 8}).json
    assert (never["could_ever_start"], never["copies"][0]["certainty"]) == (False, "never")
    assert "the project may never hold more than 4 GPUs" in never["refused"]
    assert "may have 2 jobs that have not ended" in ask(member, copies=2).json["refused"]


def test_one_question_at_a_time_is_answered(stack: Stack, member: Caller) -> None:
    with stack.app.extensions["what_if"].turn():
        busy = ask(member)
    assert (busy.status, busy.headers["Retry-After"]) == (429, "2")
    assert ask(member).status == 200


def test_after_an_error_the_next_is_answered(stack: Stack, member: Caller) -> None:
    assert ask(member, project="nobody").status == 422
    assert ask(member).status == 200


@pytest.mark.parametrize("seed", range(6))
def test_what_is_foreseen_in_a_random_cluster_is_what_the_next_cycles_do(
    stack: Stack, world: World, member: Caller, seed: int
) -> None:
    random, stranger = Random(seed), stack.client(world.stranger)
    for number in range(random.randint(1, 4)):
        FakeNode.join(stack, world, a_description(f"n{number}", cpus=random.randint(4, 8), gpus=random.choice([2, 4])))
    for _ in range(random.randint(2, 8)):
        submit(random.choice([member, stranger]), **a_random_job(random))
    stack.run(stack.cycle)
    stack.run(lambda uow: uow.session.execute(text("UPDATE jobs SET started_at = now() - interval '1 hour'")))
    for _ in range(6):
        wish = a_random_job(random)
        stack.mirror = Mirror()
        told = ask(member, **wish).json
        (job_id,) = submit(member, **wish)
        while stack.run(stack.cycle).more:
            pass
        job = member.get(f"/jobs/{job_id}?verbose=true").json
        (copy,) = told["copies"]
        assert (copy["certainty"] == "now") == (job["state"] == "scheduled"), (wish, told, job)
        if job["state"] == "scheduled":
            assert copy["nodes"] == list(dict.fromkeys(one["node"] for one in job["attempts"][0]["replicas"]))
        else:
            assert job["why"].startswith(told["why"]["message"])
        foreseen = {one["job_id"] for one in told["displaced"]["jobs"]}
        told_to_end = displaced_for(stack, job_id)
        assert foreseen <= told_to_end
        assert len(foreseen) + told["displaced"]["others"] == len(told_to_end)


def displaced_for(stack: Stack, job_id: str) -> set[str]:
    """The jobs that were told to end for this one."""
    asked = select(Event.job_id, Event.data).where(Event.kind == "job.eviction_asked")
    return stack.run(lambda uow: {str(row.job_id) for row in uow.execute(asked) if row.data["for_job"] == job_id})


def a_random_job(random: Random) -> dict[str, Any]:
    """A wish that may or may not fit a small cluster."""
    return {
        "resources": {"cpus": random.randint(1, 4), "gpus": random.choice([0, 0, 0.5, 1, 2])},
        "replicas": random.choice([1, 1, 2]),
        "priority": random.choice([0, 0, 5]),
        "time_limit": random.choice([None, "10m", "2h"]),
    }


def test_the_worked_example_of_the_guide_holds(stack: Stack, world: World, member: Caller) -> None:
    """docs/guides/capacity.md shows these four answers."""
    for name in ("gpu-1", "gpu-2"):
        FakeNode.join(stack, world, a_description(name, cpus=64, gpus=8))
    submit(member, name="train", resources={"gpus": 8}, time_limit="3h")
    stack.run(stack.cycle)
    submit(member, name="tune", resources={"gpus": 2}, time_limit="2h")
    stack.run(stack.cycle)
    begun = text("UPDATE jobs SET started_at = now() - interval '1 hour'")
    stack.run(lambda uow: uow.session.execute(begun))
    wish: dict[str, Any] = {"resources": {"gpus": 8, "gpu_type": "h100"}, "replicas": 2, "time_limit": "1h"}

    def hours_until_start(told: Answer) -> float:
        (copy,) = told.json["copies"]
        waits = datetime.fromisoformat(copy["starts_at"]) - datetime.fromisoformat(told.json["asked_at"])
        return round(waits / timedelta(hours=1), 1)

    waits = ask(member, **wish)
    assert (waits.json["copies"][0]["certainty"], hours_until_start(waits)) == ("promised", 2.0)
    assert waits.json["why"]["message"] == "needs 8 H100 GPUs on one node; the best node has 6 free"
    grown = ask(member, more=[{"like": "gpu-1"}], **wish)
    assert (grown.json["copies"][0]["nodes"], hours_until_start(grown)) == (["gpu-1+1", "gpu-2"], 1.0)
    urgent = ask(member, priority=10, **wish).json
    assert sorted(one["name"] for one in urgent["displaced"]["jobs"]) == ["train", "tune"]
    fewer = ask(member, without=["gpu-2"], **wish).json
    assert (fewer["could_ever_start"], fewer["requeued"]) == (False, 1)
    assert fewer["why"]["message"] == "asks for 2 replicas; the whole cluster has room for 1 if empty"
