"""SCH-1, SCH-7: what rank can be had by asking cleverly, and the bound that holds."""

from dataclasses import replace

import pytest

from scheduler.amounts import asked
from scheduler.config import Config
from scheduler.inheritance import inherit
from scheduler.policies import POLICIES, rank_of
from scheduler.snapshot import Account, BlockedJob, JobClass, PendingJob, Queue
from scheduler.standing import Standing
from scheduler.usage import Usage
from tests.support.clusters import a_class, a_job, a_node, a_request
from tests.support.contest import STEP_S, Contest, plain
from tests.support.oracle import Asked
from tests.support.simulations import EASY, run, starts

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
every_policy = pytest.mark.parametrize("name", sorted(POLICIES))


def passes(one: PendingJob, other: PendingJob, policy: str, standing: Standing | None = None) -> bool:
    """Whether `one` ranks before `other`."""
    standing = standing or Standing(Usage([a_node(cpus=64)]))
    rank = rank_of(Queue("q", "q", policy=policy, second_policy="fifo"), standing)
    return rank(one) < rank(other)


# False deadlines


def test_who_gives_every_job_a_false_deadline_gets_no_more_than_the_share() -> None:
    sides = {"honest": plain("honest"), "liar": plain("liar", deadline=0.0, expected_s=9e9)}
    had = Contest(Config(policy="deadline", second_policy="fifo"), sides).play(hours=48)
    assert had == {"honest": 0.5, "liar": 0.5}


def test_a_false_deadline_passes_nobody_who_came_a_patience_earlier() -> None:
    patient = a_job("patient", at=0.0)
    liar = replace(a_job("liar", at=DAY_S + 1), deadline=-1e12, expected_s=1e12)
    assert not passes(liar, patient, "deadline")
    assert passes(replace(liar, submitted_at=DAY_S - 1), patient, "deadline")


def test_no_lie_about_a_deadline_is_better_than_that_one_must_start_at_once() -> None:
    truthful = replace(a_job("a", at=10.0), deadline=10.0 + HOUR_S, expected_s=HOUR_S)
    for deadline, expected_s in ((-1e12, 0.0), (10.0, 1e12), (0.0, 0.0)):
        liar = replace(a_job("b", at=10.0), deadline=deadline, expected_s=expected_s)
        assert not passes(liar, truthful, "deadline")


# Dependency chains


def chain(length: int, project: str, *, priority: int, deadline: float | None = None) -> list[BlockedJob]:
    """Jobs of which each waits for the one before, the first for "needed"; the last is the one that wants something."""
    jobs = [
        BlockedJob(f"c{place}", project, -1000, (f"c{place - 1}" if place else "needed",), expected_s=DAY_S)
        for place in range(length)
    ]
    return [*jobs, BlockedJob("end", project, priority, (f"c{length - 1}",), deadline, DAY_S)]


def lifted(needed: PendingJob, blocked: list[BlockedJob]) -> Standing:
    return Standing(Usage([a_node(cpus=64)]), lifts=inherit(blocked, {needed.id: needed}))


def test_a_chain_lifts_no_higher_than_one_could_have_asked_for_at_once() -> None:
    needed, direct = a_job("needed", at=1.0), a_job("direct", at=0.0, priority=9)
    assert not passes(needed, direct, "priority", lifted(needed, chain(50, "p", priority=9)))


def test_a_chain_of_another_project_lifts_nothing() -> None:
    needed, other = a_job("needed", at=1.0), a_job("other", at=0.0)
    assert not passes(needed, other, "priority", lifted(needed, chain(3, "accomplice", priority=1000)))


def test_a_deadline_at_the_end_of_a_chain_is_bounded_like_any_other() -> None:
    """Fifty days of expected work behind a job make its deadline long past; that passes a patience, and no more."""
    needed = a_job("needed", at=DAY_S + 1)
    standing = lifted(needed, chain(50, "p", priority=0, deadline=2 * DAY_S))
    assert standing.deadline(needed) == 2 * DAY_S - 51 * DAY_S
    assert not passes(needed, a_job("patient", at=0.0), "deadline", standing)


def test_under_fair_share_a_chain_passes_no_other_project() -> None:
    needed, other = a_job("needed", at=1.0), a_job("other", at=0.0, project="other")
    standing = lifted(needed, chain(3, "p", priority=1000))
    standing.usage.charge(a_class(project="p"), asked(a_class()))
    assert not passes(needed, other, "fair_share", standing)


# Splitting, merging, and many names


@pytest.mark.parametrize("pieces", [8, 16])
def test_who_splits_the_work_into_many_jobs_gets_no_more(pieces: int) -> None:
    sides = {"whole": plain("whole", cpus=2), "split": plain("split", cpus=1)}
    run_s = {"whole": 2 * HOUR_S, "split": 4 * HOUR_S / pieces}
    had = Contest(Config(policy="fair_share"), sides, run_s, backlog=pieces).play(hours=96)
    assert had["split"] == pytest.approx(0.5, abs=0.01)


@every_policy
def test_the_number_of_jobs_is_nothing_that_ranks(name: str) -> None:
    whole, piece = a_job("whole", a_request(cpus=8), at=0.0), a_job("piece", a_request(cpus=1), at=0.0)
    pieces = [replace(piece, id=f"piece{number}") for number in range(8)]
    later = replace(whole, id="zwhole")
    # A piece that came later passes nobody who came earlier and asks for the same.
    assert not any(passes(replace(one, submitted_at=1.0), piece, name) for one in pieces)
    assert passes(whole, later, name)


def test_more_users_in_a_project_and_more_projects_in_an_organisation_share_what_one_would_have() -> None:
    accounts = [Account("one"), Account("many"), Account("solo", "one"), *(Account(f"p{i}", "many") for i in range(50))]
    usage = Usage([a_node(cpus=8)], accounts)
    solo = JobClass("solo", "q", a_class().roles, user_id="u")
    usage.charge(solo, asked(a_class()))
    busy = JobClass("p0", "q", a_class().roles, user_id="u0")
    usage.charge(busy, asked(a_class()))
    usage.charge(busy, asked(a_class()))
    fresh = JobClass("p49", "q", a_class().roles, user_id="u49")
    # A name that has had nothing yet ranks behind all of an organisation that had less than its own.
    assert usage.path(solo) < usage.path(fresh)


def test_asking_for_twice_the_size_is_worth_one_lead_and_no_more() -> None:
    config = Config(size_lead_s=HOUR_S)
    standing = Standing(Usage([a_node(cpus=64, gib=1024)]), config)
    honest = a_job("honest", a_request(cpus=1), at=0.0)
    for doublings in range(7):
        greedy = a_job("greedy", a_request(cpus=2**doublings), at=(doublings + 1) * HOUR_S)
        assert not passes(greedy, honest, "gang", standing)


# Cancelling and submitting again


@every_policy
def test_who_submits_again_ranks_no_better_than_before(name: str) -> None:
    job = replace(a_job("a", at=100.0, limit=60), deadline=1e5, expected_s=50.0)
    again = replace(job, id="a-again", submitted_at=200.0)
    assert not passes(again, job, name)


def test_who_cancels_what_runs_and_submits_it_again_gets_no_more_of_the_cluster() -> None:
    def restart(contest: Contest) -> None:
        for job in list(contest.running):
            if job.job_class.project_id == "restless" and contest.now - job.started_at >= 2 * STEP_S:
                contest.cancel(job.id)

    sides = {"calm": plain("calm"), "restless": plain("restless")}
    had = Contest(Config(policy="fair_share"), sides, meddle=restart).play(hours=48)
    assert had["restless"] == pytest.approx(0.5, abs=0.01)


def test_use_is_not_forgotten_when_a_job_is_cancelled() -> None:
    def burst(contest: Contest) -> None:
        for job in list(contest.running):
            if job.job_class.project_id == "burst" and contest.now - job.started_at >= STEP_S:
                contest.cancel(job.id)

    contest = Contest(Config(policy="fair_share"), {"burst": plain("burst", cpus=8)}, backlog=1, meddle=burst)
    contest.play(hours=3)
    assert contest.past["burst"] > 0.8


# More time, or less


@pytest.mark.parametrize("name", sorted(POLICIES.keys() - {"deadline", "slowdown"}))
def test_a_time_limit_is_nothing_that_ranks(name: str) -> None:
    """Asking for less lets a job backfill sooner, and ends it there; asking for more does the opposite."""
    for limit in (1, 60, 10**9, None):
        assert passes(a_job("a", at=1.0), a_job("b", at=1.0, limit=limit), name)
        assert passes(a_job("a", at=1.0, limit=limit), a_job("b", at=1.0), name)


def test_asking_for_more_time_before_a_deadline_is_bounded_like_the_deadline() -> None:
    modest = replace(a_job("modest", at=0.0, limit=60), deadline=DAY_S)
    greedy = replace(a_job("greedy", at=1.0, limit=10**9), deadline=DAY_S)
    assert passes(greedy, modest, "deadline")
    assert not passes(replace(greedy, submitted_at=DAY_S), modest, "deadline")


def test_where_short_jobs_go_first_a_limit_ranks_only_until_there_is_a_history_and_is_bounded_till_then() -> None:
    for limit in (1, 60, 10**9, None):
        job = replace(a_job("b", at=1.0, limit=limit), expected_s=600.0)
        assert passes(replace(a_job("a", at=1.0), expected_s=600.0), job, "slowdown")
    day, liar = a_job("day", at=0.0, limit=86_400), a_job("liar", at=42 * HOUR_S, limit=1)
    assert passes(replace(liar, submitted_at=41 * HOUR_S), day, "slowdown")
    assert not passes(replace(liar, submitted_at=43 * HOUR_S), day, "slowdown")


@pytest.mark.parametrize(("limit_s", "starts_at", "done_s"), [(30, 20, 30), (9, 1, 9), (300, 20, 30)])
def test_who_asks_for_less_time_than_it_needs_is_backfilled_and_ended_there(
    limit_s: int, starts_at: int, done_s: int
) -> None:
    """Two of four processors are busy until 10, and then a head of four has them all until 20.

    A job of two that says 9 starts at once, and has done 9 of its 30 seconds when it is ended; ten times too much is
    worth no more than the truth, and would find no hole that is shorter.
    """
    busy, head, job = Asked(0, 2, 10, 10), Asked(0, 4, 10, 10), Asked(1, 2, limit_s, 30)
    history = run([busy, head, job], 4, EASY)
    assert starts(history)[2] == starts_at
    (span,) = [span for span in history.spans if span.work.id == "0002"]
    assert span.ended_at - span.started_at == done_s


def test_who_splits_a_job_gains_no_place_by_size_and_loses_one_lead_for_each_halving() -> None:
    standing = Standing(Usage([a_node(cpus=64, gib=1024)]), Config(size_lead_s=HOUR_S))
    for halvings in range(1, 6):
        whole = a_job("whole", a_request(cpus=32), at=halvings * HOUR_S - 1)
        piece = a_job("piece", a_request(cpus=32 // 2**halvings), at=0.0)
        assert passes(whole, piece, "gang", standing)
        assert not passes(replace(whole, submitted_at=halvings * HOUR_S + 1), piece, "gang", standing)
