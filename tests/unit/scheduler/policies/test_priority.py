from scheduler.config import Config
from scheduler.inheritance import Lift
from scheduler.policies.priority import priority
from scheduler.snapshot import PendingJob
from scheduler.standing import Standing
from scheduler.usage import Usage
from tests.support.clusters import a_job


def first(*jobs: PendingJob, ageing: float = 0.0, lifts: dict[str, Lift] | None = None) -> str:
    standing = Standing(Usage([]), Config(ageing_per_hour=ageing), lifts or {})
    return min(jobs, key=lambda job: priority(job, standing)).id


def test_the_highest_priority_goes_first() -> None:
    assert first(a_job("low", at=0), a_job("high", at=9, priority=1)) == "high"


def test_an_hour_of_waiting_is_worth_what_ageing_says() -> None:
    # Ten hours at 0.5 an hour make up for a priority that is 4 higher, and not for one that is 6 higher.
    old = a_job("old", at=0)
    assert first(old, a_job("high", at=36_000, priority=4), ageing=0.5) == "old"
    assert first(old, a_job("high", at=36_000, priority=6), ageing=0.5) == "high"
    assert first(old, a_job("high", at=36_000, priority=1)) == "high"


def test_a_job_ranks_with_the_priority_that_is_lent_to_it() -> None:
    lifts = {"needed": Lift(7, None, "urgent")}
    assert first(a_job("needed", priority=1), a_job("other", priority=5), lifts=lifts) == "needed"
