"""Schedules with real rows: one run for each fire time, whoever looks; the past is caught up and filled as was asked."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from app.core.uow import UnitOfWork
from app.pipelines import advance, schedules
from app.pipelines.models import PipelineSchedule
from tests.support.fake_node import FakeNode, a_description
from tests.support.flows import Runner, a_pipeline, a_stage, apply, runs_of
from tests.support.stack import Caller, Stack
from tests.support.statements import counted
from tests.support.world import World


@pytest.fixture
def member(stack: Stack, world: World) -> Caller:
    return stack.client(world.member)


@pytest.fixture
def node(stack: Stack, world: World) -> FakeNode:
    return FakeNode.join(stack, world, a_description(cpus=64))


def make_due(stack: Stack, ago: timedelta = timedelta(0)) -> datetime:
    """Have every schedule be due since then."""

    def change(uow: UnitOfWork) -> datetime:
        due = uow.clock.now() - ago
        for schedule in uow.session.query(PipelineSchedule):
            schedule.fires_at, schedule.starts_at = due, due
        return due

    return stack.run(change)


def a_scheduled(member: Caller, *stages: dict[str, Any], **schedule: Any) -> dict[str, Any]:
    return apply(member, *(stages or (a_stage("a"),)), schedule={"every": "1h"} | schedule)


def test_any_number_of_beats_make_one_run_a_fire_time(stack: Stack, member: Caller) -> None:
    a_scheduled(member)
    due = make_due(stack)
    stack.race(schedules.fire_due, times=6)
    assert [run.fire_at for run in runs_of(stack)] == [due]


def test_a_fire_time_that_had_its_run_gets_no_second(stack: Stack, member: Caller) -> None:
    a_scheduled(member)
    due = make_due(stack)
    stack.run(schedules.fire_due)
    stack.run(lambda uow: uow.session.execute(text("UPDATE pipeline_schedules SET fires_at = :at"), {"at": due}))
    stack.run(schedules.fire_due)
    assert len(runs_of(stack)) == 1


@pytest.mark.parametrize(("policy", "made"), [("all", 4), ("latest", 1), ("skip", 0)])
def test_after_an_outage_the_policy_says_what_is_caught_up(
    stack: Stack, member: Caller, policy: str, made: int
) -> None:
    a_scheduled(member, catch_up=policy)
    due = make_due(stack, timedelta(hours=3, minutes=30))
    stack.run(schedules.fire_due)
    runs = runs_of(stack)
    assert len(runs) == made
    assert all(run.fire_at is not None and (run.fire_at - due) % timedelta(hours=1) == timedelta(0) for run in runs)


def test_a_thousand_schedules_that_are_due_cost_a_few_statements_a_hundred(stack: Stack, member: Caller) -> None:
    for number in range(30):
        apply(member, a_stage("a"), name=f"p{number}", schedule={"every": "1h"})
    make_due(stack)
    with counted(stack) as statements:
        stack.run(schedules.fire_due)
    assert len(runs_of(stack)) == 30
    assert len(statements) <= 6


def test_a_run_of_a_schedule_goes_on_as_who_applied_it(
    stack: Stack, world: World, member: Caller, node: FakeNode
) -> None:
    flow = a_scheduled(member)
    make_due(stack)
    stack.run(schedules.fire_due)
    (made,) = runs_of(stack)
    run = Runner.of(stack, member, node, str(made.id))
    assert made.actor_id == world.member.id
    run.end("a")
    assert run.state == "succeeded"
    assert flow["schedule"]["fires_at"]


def test_a_run_of_a_fire_time_has_the_values_that_hold_for_that(stack: Stack, member: Caller, node: FakeNode) -> None:
    declared = {"day": {"type": "date", "default": "today"}, "rate": {"type": "number"}}
    schedule = {"cron": "30 23 * * *", "timezone": "Asia/Tokyo", "parameters": {"rate": 2}}
    flow = apply(member, a_stage("a"), parameters=declared, schedule=schedule)
    past = {"starts_at": "2026-01-01T00:00:00Z", "ends_at": "2026-01-02T00:00:00Z"}
    refused = member.post(f"/pipelines/{flow['id']}/backfills", past)
    assert [error["pointer"] for error in refused.json["errors"]] == ["/parameters/rate"]
    assert member.post(f"/pipelines/{flow['id']}/backfills", past | {"parameters": {"rate": 3}}).status == 201
    (made,) = runs_of(stack)
    run = Runner.of(stack, member, node, str(made.id))
    assert run.shown()["parameters"] == {"day": "2026-01-01", "rate": 3}
    del schedule["parameters"]
    again = member.post("/pipelines", a_pipeline(a_stage("a"), parameters=declared, schedule=schedule))
    assert [error["pointer"] for error in again.json["errors"]] == ["/schedule/parameters/rate"]


def test_a_paused_schedule_rests_and_goes_on_from_then(stack: Stack, member: Caller) -> None:
    flow = a_scheduled(member)
    path = f"/pipelines/{flow['id']}/schedule"
    assert member.patch(path, {"paused": True}).json["fires_at"] is None
    stack.run(schedules.fire_due)
    assert runs_of(stack) == []
    resumed = member.patch(path, {"paused": False}).json
    assert (resumed["paused_at"], resumed["fires_at"] is not None) == (None, True)
    plain = apply(member, a_stage("a"), name="plain")
    assert member.patch(f"/pipelines/{plain['id']}/schedule", {"paused": True}).json["code"] == "no_schedule"


def test_applied_anew_a_paused_schedule_stays_paused_and_one_that_is_left_out_is_gone(
    stack: Stack, member: Caller
) -> None:
    flow = a_scheduled(member)
    member.patch(f"/pipelines/{flow['id']}/schedule", {"paused": True})
    assert a_scheduled(member, a_stage("b"))["schedule"]["paused_at"]
    assert apply(member, a_stage("c"))["schedule"] is None


def test_a_run_that_is_late_is_told_of_once(stack: Stack, member: Caller, node: FakeNode) -> None:
    a_scheduled(member, done_within="1s")
    make_due(stack, timedelta(seconds=5))
    stack.run(schedules.fire_due)
    stack.run(schedules.tell_late)
    stack.run(schedules.tell_late)
    (run,) = runs_of(stack)
    assert stack.events_of(run.id).count("pipeline_run.late") == 1


def backfill(member: Caller, flow: dict[str, Any], **body: Any) -> Any:
    said = {"starts_at": "2026-01-01T00:00:00Z", "ends_at": "2026-01-01T05:00:00Z"}
    return member.post(f"/pipelines/{flow['id']}/backfills", said | body)


def test_a_dry_backfill_says_which_times_and_keeps_nothing(stack: Stack, member: Caller) -> None:
    flow = a_scheduled(member)
    answer = backfill(member, flow, dry_run=True)
    assert (answer.status, answer.json["count"]) == (200, 5)
    assert [at[11:16] for at in answer.json["times"]] == ["00:00", "01:00", "02:00", "03:00", "04:00"]
    assert runs_of(stack) == []
    assert backfill(member, flow, ends_at="2025-01-01T00:00:00Z").status == 422
    assert backfill(member, flow, starts_at="0001-01-01T00:00:00Z", ends_at="9000-01-01T00:00:00Z").status == 422


def test_a_backfill_keeps_to_its_bound_and_ends_when_its_runs_have(
    stack: Stack, member: Caller, node: FakeNode
) -> None:
    flow = apply(member, a_stage("a"), schedule={"every": "1h"}, concurrency=9)
    made = backfill(member, flow, parallel=2).json
    for done in range(5):
        living = [run for run in runs_of(stack) if run.ended_at is None]
        assert len(living) == min(2, 5 - done)
        Runner.of(stack, member, node, str(living[0].id)).end("a")
    assert member.get(f"/pipelines/backfills/{made['id']}").json["state"] == "done"
    assert [run.fire_at.hour for run in runs_of(stack) if run.fire_at] == [0, 1, 2, 3, 4]
    again = backfill(member, flow).json
    assert (again["made"], len(runs_of(stack))) == (0, 5)  # times that had their run keep it


def test_a_backfill_whose_step_was_lost_goes_on_by_the_sweep(stack: Stack, member: Caller, node: FakeNode) -> None:
    flow = a_scheduled(member)
    made = backfill(member, flow).json
    (run,) = runs_of(stack)
    ended = text("UPDATE pipeline_runs SET state = 'succeeded', ended_at = now() WHERE id = :id")
    stack.run(lambda uow: uow.session.execute(ended, {"id": run.id}))
    assert stack.run(advance.due_backfills) == [UUID(made["id"])]
    stack.run(lambda uow: schedules.go_on_with(uow, UUID(made["id"])))
    assert len(runs_of(stack)) == 2


def test_a_cancelled_backfill_makes_no_more_runs(stack: Stack, member: Caller, node: FakeNode) -> None:
    flow = a_scheduled(member)
    made = backfill(member, flow).json
    assert member.post(f"/pipelines/backfills/{made['id']}/cancel").json["state"] == "cancelled"
    (run,) = runs_of(stack)
    Runner.of(stack, member, node, str(run.id)).end("a")
    assert len(runs_of(stack)) == 1
    assert member.post(f"/pipelines/backfills/{made['id']}/cancel").json["code"] == "illegal_transition"


def test_what_was_removed_runs_no_more_and_its_name_is_free(stack: Stack, member: Caller) -> None:
    flow = a_scheduled(member)
    assert member.delete(f"/pipelines/{flow['id']}").status == 204
    stack.run(schedules.fire_due)
    assert runs_of(stack) == []
    assert member.get(f"/pipelines/{flow['id']}").status == 404
    assert apply(member, a_stage("a"))["id"] != flow["id"]
