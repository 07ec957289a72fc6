"""Runs with real rows: stages become jobs in order, branches join, what failed is done again, nothing is done twice."""

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, select, text

from app.jobs.models import Job
from app.pipelines import advance
from tests.support.fake_node import FakeNode, a_description
from tests.support.flows import Runner, a_stage, advance_run, apply, runs_of
from tests.support.stack import Caller, Stack
from tests.support.statements import counted
from tests.support.world import World


@pytest.fixture
def member(stack: Stack, world: World) -> Caller:
    return stack.client(world.member)


@pytest.fixture
def node(stack: Stack, world: World) -> FakeNode:
    return FakeNode.join(stack, world, a_description(cpus=64))


def jobs_of(stack: Stack, run_id: str) -> list[Job]:
    wanted = select(Job).where(Job.owner_id == UUID(run_id)).order_by(Job.id)
    return stack.run(lambda uow: list(uow.session.execute(wanted).scalars()))


def test_stages_run_as_jobs_in_the_order_of_the_graph(stack: Stack, member: Caller, node: FakeNode) -> None:
    flow = apply(member, a_stage("a"), a_stage("b", "a"), a_stage("c", "a"), a_stage("d", "b", "c"))
    run = Runner(stack, member, node, flow)
    assert run.states == {"a": "running", "b": "waiting", "c": "waiting", "d": "waiting"}
    run.end("a")
    assert run.states == {"a": "succeeded", "b": "running", "c": "running", "d": "waiting"}
    run.end("b")
    assert run.states["d"] == "waiting"
    run.end("c")
    run.end("d")
    assert run.state == "succeeded"
    assert [job.name for job in jobs_of(stack, run.id)] == ["a", "b", "c", "d"]


def test_an_event_of_a_stages_job_names_its_run_and_a_plain_jobs_does_not(
    stack: Stack, member: Caller, node: FakeNode
) -> None:
    plain = member.post("/jobs", {"command": ["true"]}).json["id"]
    run = Runner(stack, member, node, apply(member, a_stage("a")))
    (job,) = jobs_of(stack, run.id)
    told = text("SELECT DISTINCT data ->> 'owner_id' FROM events WHERE subject_id = :id")

    def owners(subject: object) -> list[str | None]:
        return stack.run(lambda uow: list(uow.session.execute(told, {"id": subject}).scalars()))

    assert (owners(job.id), owners(plain)) == ([run.id], [None])


def test_a_failure_blocks_what_waits_for_it_and_nothing_else(stack: Stack, member: Caller, node: FakeNode) -> None:
    flow = apply(member, a_stage("a"), a_stage("b"), a_stage("after_a", "a"), a_stage("last", "after_a"))
    run = Runner(stack, member, node, flow)
    run.end("a", exit_code=3)
    assert run.states == {"a": "failed", "b": "running", "after_a": "blocked", "last": "blocked"}
    run.end("b")
    shown = run.shown()
    assert (shown["state"], shown["message"]) == ("failed", "a did not succeed")


@pytest.mark.parametrize(
    ("rule", "state"),
    [
        ("all_success", "blocked"), ("all_done", "running"), ("one_failed", "running"), ("any_success", "running"),
        ("none_failed", "blocked"),
    ],
)  # fmt: skip
def test_a_join_begins_by_its_rule(stack: Stack, member: Caller, node: FakeNode, rule: str, state: str) -> None:
    run = Runner(
        stack, member, node, apply(member, a_stage("good"), a_stage("bad"), a_stage("join", "good", "bad", when=rule))
    )
    run.end("good")
    run.end("bad", exit_code=1)
    assert run.states["join"] == state


def test_any_success_makes_up_for_a_failure_and_all_done_does_not(stack: Stack, member: Caller, node: FakeNode) -> None:
    for rule, outcome in (("any_success", "succeeded"), ("all_done", "failed")):
        stages = a_stage("first"), a_stage("mirror"), a_stage("join", "first", "mirror", when=rule)
        run = Runner(stack, member, node, apply(member, *stages))
        run.end("first", exit_code=1)
        run.end("mirror")
        run.end("join")
        assert run.state == outcome


def test_a_branch_is_taken_by_what_a_stage_tells_and_the_ways_join(
    stack: Stack, member: Caller, node: FakeNode
) -> None:
    stages = (
        a_stage("judge"),
        a_stage("train", only_if={"stage": "judge", "equals": "stale"}),
        a_stage("keep", only_if={"stage": "judge", "equals": "fresh"}),
        a_stage("serve", "train", "keep", when="none_failed"),
    )
    run = Runner(stack, member, node, apply(member, *stages))
    run.end("judge", tell="stale")
    assert run.states == {"judge": "succeeded", "train": "running", "keep": "skipped", "serve": "waiting"}
    run.end("train")
    run.end("serve")
    assert run.state == "succeeded"


def test_a_stage_is_mapped_over_a_list_that_is_known_only_then(stack: Stack, member: Caller, node: FakeNode) -> None:
    stages = a_stage("list"), a_stage("each", map={"over": {"stage": "list"}}), a_stage("sum", "each")
    run = Runner(stack, member, node, apply(member, *stages))
    run.end("list", tell=["x", {"y": 1}, 3])
    names = [job.name for job in jobs_of(stack, run.id)]
    assert names == ["list", "each[0]", "each[1]", "each[2]"]
    assert [job.spec["environment"].get("TRELLIS_MAP_VALUE") for job in jobs_of(stack, run.id)][1:] == [
        '"x"', '{"y": 1}', "3",
    ]  # fmt: skip
    run.end("each[0]", "each[2]")
    assert run.states["sum"] == "waiting"
    run.end("each[1]")
    assert run.states == {"list": "succeeded", "each": "succeeded", "sum": "running"}
    elements = member.get(f"/pipelines/runs/{run.id}/stages/each/elements").json["items"]
    assert [(item["element"], item["value"], item["state"]) for item in elements] == [
        (0, "x", "succeeded"), (1, {"y": 1}, "succeeded"), (2, 3, "succeeded"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("told", "state", "word"),
    [
        ([], "succeeded", "nothing"), ({"no": "list"}, "failed", "no list"),
        (list(range(1001)), "failed", "1001 values"), (["x" * 5000], "failed", "longer than"),
        (b"{half", "failed", "no JSON"), (b" " * (1 << 20) + b"[]", "failed", "larger than"),
        (b"[" * 100_000, "failed", "no JSON"),
    ],
)  # fmt: skip
def test_what_a_stage_is_mapped_over_is_bounded(
    stack: Stack, member: Caller, node: FakeNode, told: Any, state: str, word: str
) -> None:
    run = Runner(stack, member, node, apply(member, a_stage("list"), a_stage("each", map={"over": {"stage": "list"}})))
    run.end("list", tell=told)
    shown = run.shown()
    assert shown["state"] == state
    assert any(word in stage["message"] for stage in shown["stages"])
    assert len(jobs_of(stack, run.id)) == 1


def test_a_stage_that_nothing_changed_for_is_not_done_again(stack: Stack, member: Caller, node: FakeNode) -> None:
    stages = a_stage("a", cache=True), a_stage("b", inputs=["a"], cache=True), a_stage("c", "b")
    flow = apply(member, *stages, parameters={"day": {"type": "string", "default": "1"}}, concurrency=9)
    first = Runner(stack, member, node, flow)
    for name in "abc":
        first.end(name)
    assert first.state == "succeeded"
    second = Runner(stack, member, node, flow)
    assert second.states == {"a": "reused", "b": "reused", "c": "running"}
    assert second.shown()["stages"][0]["output_of"] == first.shown()["stages"][0]["job_id"]
    other = Runner(stack, member, node, flow, parameters={"day": "2"})
    assert other.states["a"] == "running"
    assert Runner(stack, member, node, flow, fresh=True).states["a"] == "running"
    changed = {"with": {"command": ["true", "again"]}}
    edited = apply(member, a_stage("a", cache=True) | changed, *stages[1:], parameters=flow["definition"]["parameters"])
    assert edited["number"] == 2
    third = Runner.of(stack, member, node, member.post(f"/pipelines/{flow['id']}/runs").json["id"])
    assert third.states["a"] == "waiting"  # as many runs go on as the edited one allows


def test_part_of_a_pipeline_runs_and_what_is_left_out_counts_as_done(
    stack: Stack, member: Caller, node: FakeNode
) -> None:
    flow = apply(member, a_stage("a"), a_stage("b", "a"), a_stage("c", "b"), a_stage("d", "c"), concurrency=3)
    run = Runner(stack, member, node, flow, **{"from": ["b"], "to": ["c"]})
    assert run.states == {"a": "left_out", "b": "running", "c": "waiting", "d": "left_out"}
    assert Runner(stack, member, node, flow, only=["d"]).states["d"] == "running"
    refused = member.post(f"/pipelines/{flow['id']}/runs", {"from": ["c"], "to": ["a"]})
    assert refused.status == 422
    unknown = member.post(f"/pipelines/{flow['id']}/runs", {"only": ["zz"]})
    assert "zz" in unknown.text


def test_what_failed_is_done_again_and_what_succeeded_is_not(stack: Stack, member: Caller, node: FakeNode) -> None:
    run = Runner(stack, member, node, apply(member, a_stage("a"), a_stage("b", "a"), a_stage("c", "b")))
    assert member.post(f"/pipelines/runs/{run.id}/again").json["code"] == "run_not_ended"
    run.end("a")
    run.end("b", exit_code=1)
    again = member.post(f"/pipelines/runs/{run.id}/again").json
    second = Runner.of(stack, member, node, again["id"])
    assert second.states == {"a": "reused", "b": "running", "c": "waiting"}
    second.end("b")
    second.end("c")
    assert (second.state, again["again_of"]) == ("succeeded", run.id)
    assert member.post(f"/pipelines/runs/{second.id}/again").status == 409


def test_cancelling_a_run_ends_its_jobs_and_begins_no_more(stack: Stack, member: Caller, node: FakeNode) -> None:
    run = Runner(stack, member, node, apply(member, a_stage("a"), a_stage("b", "a")))
    answer = member.post(f"/pipelines/runs/{run.id}/cancel", {"reason": "wrong day"})
    assert answer.status == 200, answer.text
    run.advance()
    assert (run.state, run.states) == ("cancelled", {"a": "cancelled", "b": "cancelled"})
    assert member.post(f"/pipelines/runs/{run.id}/cancel").json["code"] == "illegal_transition"


def test_so_many_runs_of_a_pipeline_go_on_at_once_as_it_allows(stack: Stack, member: Caller, node: FakeNode) -> None:
    flow = apply(member, a_stage("a"), concurrency=2)
    runs = [Runner(stack, member, node, flow) for _ in range(4)]
    assert [run.state for run in runs] == ["running", "running", "queued", "queued"]
    assert stack.run(advance.due_runs) == [UUID(runs[2].id)]
    runs[0].end("a")
    runs[2].advance()
    assert [run.state for run in runs] == ["succeeded", "running", "running", "queued"]


def test_many_that_advance_a_run_at_once_submit_each_stage_once(stack: Stack, member: Caller, node: FakeNode) -> None:
    flow = apply(member, *(a_stage(f"s{number}") for number in range(20)))
    answer = member.post(f"/pipelines/{flow['id']}/runs")
    run_id = UUID(answer.json["id"])
    stack.race(lambda uow: advance.advance(uow, run_id, {}), times=6)
    assert len(jobs_of(stack, str(run_id))) == 20


def test_a_lost_message_is_made_up_for_by_the_sweep(stack: Stack, member: Caller, node: FakeNode) -> None:
    run = Runner(stack, member, node, apply(member, a_stage("a"), a_stage("b", "a")))
    run.advance = lambda: None  # type: ignore[method-assign]  # nobody hears of the end
    run.end("a")
    assert run.states["b"] == "waiting"
    assert stack.run(advance.due_runs) == [UUID(run.id)]
    advance_run(stack, UUID(run.id))
    assert run.states["b"] == "running"
    assert stack.run(advance.due_runs) == []


def test_a_step_takes_as_many_statements_for_many_stages_as_for_one(
    stack: Stack, member: Caller, node: FakeNode
) -> None:
    def step(count: int) -> int:
        layers = [[a_stage(f"a{n}") for n in range(count)], [a_stage(f"b{n}", f"a{n}") for n in range(count)]]
        run = Runner(stack, member, node, apply(member, *layers[0], *layers[1], name=f"flow-{count}"))
        really, run.advance = run.advance, lambda: None  # type: ignore[method-assign]
        run.end(*(f"a{n}" for n in range(count)))
        with counted(stack) as statements:
            really()
        assert list(run.states.values()).count("running") == count
        return len(statements)

    assert step(1) == step(30) <= 14


def test_a_run_goes_on_as_whoever_began_it_and_no_longer_than_they_may(
    stack: Stack, world: World, member: Caller, node: FakeNode
) -> None:
    run = Runner(stack, member, node, apply(member, a_stage("a"), a_stage("b", "a")))
    (job,) = jobs_of(stack, run.id)
    assert job.actor_id == world.member.id
    stack.client(world.project_admin).delete(f"/projects/{world.project.id}/members/{world.member.id}")
    run.caller = stack.client(world.project_admin)
    run.end("a")
    shown = run.shown()
    assert shown["state"] == "failed"
    assert "may no longer submit jobs" in shown["stages"][1]["message"]
    assert stack.run(lambda uow: uow.session.execute(select(func.count(Job.id))).scalar_one()) == 1


def test_a_definition_that_has_not_changed_is_no_new_version_and_a_run_keeps_its_own(
    stack: Stack, member: Caller, node: FakeNode
) -> None:
    first = apply(member, a_stage("a"), a_stage("b", "a"))
    run = Runner(stack, member, node, first)
    assert apply(member, a_stage("a"), a_stage("b", "a"))["changed"] is False
    second = apply(member, a_stage("z"))
    assert (first["number"], second["number"], second["id"]) == (1, 2, first["id"])
    run.end("a")
    assert run.states == {"a": "succeeded", "b": "running"}
    old = member.post(f"/pipelines/{first['id']}/runs", {"version": 1}).json
    assert old["number"] == 1
    versions = member.get(f"/pipelines/{first['id']}/versions").json["items"]
    assert [version["number"] for version in versions] == [2, 1]
    assert len(runs_of(stack)) == 2


def test_stages_are_told_parameters_as_variables(stack: Stack, member: Caller, node: FakeNode) -> None:
    declared = {"day": {"type": "date", "default": "today"}, "rate": {"type": "number"}, "name": {"type": "string"}}
    flow = apply(member, a_stage("a"), parameters=declared)
    wrong = member.post(f"/pipelines/{flow['id']}/runs", {"parameters": {"rate": "fast", "zz": 1, "day": "31.1."}})
    assert {error["pointer"] for error in wrong.json["errors"]} == {
        "/parameters/rate", "/parameters/zz", "/parameters/day", "/parameters/name",
    }  # fmt: skip
    given = {"rate": 0.5, "name": "$(reboot); <b>", "day": "2026-02-28"}
    run = Runner(stack, member, node, flow, parameters=given)
    environment = jobs_of(stack, run.id)[0].spec["environment"]
    assert environment["TRELLIS_PARAMETER_NAME"] == "$(reboot); <b>"
    assert (environment["TRELLIS_PARAMETER_RATE"], environment["TRELLIS_PARAMETER_DAY"]) == ("0.5", "2026-02-28")
    assert jobs_of(stack, run.id)[0].spec["command"] == ["true"]
