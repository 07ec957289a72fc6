"""What follows an attempt that ended, by every rule there is."""

from dataclasses import replace

import pytest

from app.jobs.retries import PLATFORM_LIMIT, Decision, Ended, decide
from app.jobs.schemas import JobSubmitSchema
from app.jobs.spec import Retries, RetryRule
from trellis.vocabulary import Cause, JobState, OnNodeLost, ReplicaState

FAILED = Ended(ReplicaState.FAILED, Cause.EXIT_CODE, 1, 0)
LOST = Ended(ReplicaState.LOST, Cause.NODE_LOST, None, 0)
PREEMPTED = Ended(ReplicaState.PREEMPTED, Cause.PREEMPTED, None, 0)
LATE = Ended(ReplicaState.TIMED_OUT, Cause.TIME_LIMIT, None, 0)
FULL = Ended(ReplicaState.FAILED, Cause.OUT_OF_MEMORY, 137, 0)
TWICE = Retries(2, backoff_s=10, max_backoff_s=600)


def test_a_failure_is_tried_again_as_often_as_said_after_growing_pauses() -> None:
    decisions = [decide(replace(FAILED, tried=tried), replace(TWICE, backoff_factor=3, limit=9)) for tried in range(6)]
    assert [one.delay_s for one in decisions] == [10, 30, 90, 270, 600, 600]
    assert decide(replace(FAILED, tried=2), TWICE) == Decision(JobState.FAILED)
    assert decide(FAILED, Retries()) == Decision(JobState.FAILED)


def test_of_exit_codes_only_those_are_tried_again_that_were_named() -> None:
    rules = replace(TWICE, exit_codes=(75, 76))
    assert decide(replace(FAILED, exit_code=75), rules).state is JobState.RETRYING
    assert decide(replace(FAILED, exit_code=1), rules).state is JobState.FAILED
    assert decide(FULL, rules).state is JobState.RETRYING


@pytest.mark.parametrize(
    ("ended", "end", "again"),
    [
        (FAILED, JobState.FAILED, JobState.RETRYING),
        (FULL, JobState.FAILED, JobState.RETRYING),
        (LATE, JobState.TIMED_OUT, JobState.RETRYING),
        (LOST, JobState.LOST, JobState.RETRYING),
        (PREEMPTED, JobState.FAILED, JobState.PREEMPTED),
    ],
    ids=lambda value: str(getattr(value, "cause", value)),
)
def test_a_rule_by_cause_goes_before_all_others(ended: Ended, end: JobState, again: JobState) -> None:
    assert ended.cause is not None
    rules = Retries(0, by_cause=((ended.cause, RetryRule(2, 60)),))
    assert decide(replace(ended, tried=1), rules) == Decision(again, 120)
    assert decide(replace(ended, tried=2), rules) == Decision(end)


def test_a_fault_of_the_platform_is_tried_again_at_once_up_to_a_bound() -> None:
    assert decide(LOST, Retries()) == Decision(JobState.RETRYING, 0)
    assert decide(replace(LOST, tried=PLATFORM_LIMIT), Retries()) == Decision(JobState.LOST)
    assert decide(LOST, Retries(), OnNodeLost.FAIL) == Decision(JobState.LOST)


def test_who_made_way_waits_again_however_often() -> None:
    assert decide(replace(PREEMPTED, tried=1000), Retries()) == Decision(JobState.PREEMPTED, 0)


def test_what_was_cancelled_stays_cancelled() -> None:
    assert decide(replace(FAILED, cancel_asked=True), TWICE) == Decision(JobState.CANCELLED)


def test_jitter_spreads_the_pauses_around_what_was_said() -> None:
    rules = replace(TWICE, backoff_s=100, jitter_percent=20)
    pauses = [decide(replace(FAILED, chance=chance), rules).delay_s for chance in (0.0, 0.5, 1.0)]
    assert pauses == [80, 100, 120]


def test_a_submission_says_all_of_it_and_a_job_keeps_it() -> None:
    said = {
        "limit": 3, "backoff_s": "10s", "backoff_factor": 4, "jitter_percent": 10, "on": ["exit_code"],
        "exit_codes": [75], "by_cause": {"out_of_memory": {"limit": 1, "backoff_s": "1m"}, "preempted": {"limit": 5}},
    }  # fmt: skip
    spec = JobSubmitSchema().load({"command": ["x"], "retries": said})
    rules = ((Cause.OUT_OF_MEMORY, RetryRule(1, 60)), (Cause.PREEMPTED, RetryRule(5)))
    assert spec.retries == Retries(3, 10, 600, 4, 10, (Cause.EXIT_CODE,), (75,), rules)
    assert Retries.read(spec.stored()["retries"]) == spec.retries


def test_a_plain_job_keeps_no_more_than_it_did() -> None:
    assert Retries().stored().keys() == {"limit", "backoff_s", "max_backoff_s", "on"}


@pytest.mark.parametrize(
    ("retries", "field"),
    [
        ({"on": ["cancelled"]}, "on"),
        ({"by_cause": {"cancelled": {"limit": 1}}}, "by_cause"),
        ({"exit_codes": [0]}, "exit_codes"),
        ({"exit_codes": [256]}, "exit_codes"),
        ({"backoff_factor": 0}, "backoff_factor"),
        ({"jitter_percent": 101}, "jitter_percent"),
        ({"by_cause": {"node_lost": {"limit": 21}}}, "by_cause"),
    ],
)
def test_nonsense_is_refused_by_its_field(retries: dict[str, object], field: str) -> None:
    errors = JobSubmitSchema().validate({"command": ["x"], "retries": retries})
    assert list(errors["retries"]) == [field]
