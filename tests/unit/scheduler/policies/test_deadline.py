from dataclasses import replace

from scheduler.amounts import asked
from scheduler.config import Config
from scheduler.inheritance import Lift
from scheduler.policies.deadline import deadline
from scheduler.snapshot import Account, PendingJob
from scheduler.standing import Standing
from scheduler.usage import Usage
from tests.support.clusters import a_class, a_job, a_node, a_request

HOUR_S = 3600.0


def due(
    job_id: str,
    deadline_h: float | None,
    *,
    came_h: float = 0.0,
    expected_h: float | None = None,
    limit_h: float | None = None,
    project: str = "p",
) -> PendingJob:
    limit = None if limit_h is None else int(limit_h * HOUR_S)
    return replace(
        a_job(job_id, at=came_h * HOUR_S, limit=limit, project=project),
        deadline=None if deadline_h is None else deadline_h * HOUR_S,
        expected_s=None if expected_h is None else expected_h * HOUR_S,
    )


def order(*jobs: PendingJob, standing: Standing | None = None) -> list[str]:
    standing = standing or Standing(Usage([a_node()]), Config(patience_s=24 * HOUR_S))
    return [job.id for job in sorted(jobs, key=lambda job: deadline(job, standing))]


def test_the_least_slack_goes_first_not_the_nearest_deadline() -> None:
    # Due at 10 h after 8 h of work leaves 2 h of slack; due at 4 h after 1 h leaves 3 h.
    assert order(due("near", 4, expected_h=1), due("tight", 10, expected_h=8)) == ["tight", "near"]


def test_what_is_expected_counts_and_else_the_limit_and_else_nothing() -> None:
    jobs = [due("unknown", 5), due("limit", 5, limit_h=2), due("expected", 5, expected_h=1, limit_h=4)]
    assert order(*jobs) == ["limit", "expected", "unknown"]


def test_a_job_without_a_deadline_is_as_one_that_must_start_a_patience_after_it_came() -> None:
    jobs = [due("young", None, came_h=5), due("before", 28, came_h=5), due("old", None), due("soon", 10)]
    assert order(*jobs) == ["soon", "old", "before", "young"]


def test_a_deadline_far_away_is_no_worse_than_none() -> None:
    standing = Standing(Usage([a_node()]))
    assert deadline(due("far", 1000), standing) == deadline(due("none", None), standing)


def test_a_deadline_long_past_is_worth_no_more_than_a_patience() -> None:
    standing = Standing(Usage([a_node()]), Config(patience_s=24 * HOUR_S))
    assert deadline(due("liar", -1000, came_h=25), standing) > deadline(due("older", None), standing)
    assert deadline(due("liar", -1000, came_h=23), standing) < deadline(due("older", None), standing)
    # No lie is better than another.
    assert deadline(due("liar", -1000), standing) == deadline(due("modest", 1, expected_h=1), standing)


def test_a_deadline_that_is_lent_counts_as_the_own() -> None:
    standing = Standing(Usage([a_node()]), lifts={"needed": Lift(0, 2 * HOUR_S, "urgent")})
    assert order(due("other", 3), due("needed", 9), standing=standing) == ["needed", "other"]


def test_a_job_that_would_exceed_the_share_ranks_a_patience_later() -> None:
    usage = Usage([a_node(cpus=8)], [Account("greedy"), Account("modest")])
    standing = Standing(usage, Config(patience_s=24 * HOUR_S))
    jobs = [due("dated", 1, project="greedy"), due("undated", None, project="modest")]
    held = a_class(a_request(cpus=3), project="greedy")
    usage.charge(held, asked(held))
    assert order(*jobs, standing=standing) == ["dated", "undated"]
    usage.charge(a_class(project="greedy"), asked(a_class()))
    assert order(*jobs, standing=standing) == ["undated", "dated"]
