"""What is foreseen is what comes: at once by the next plan, later by plans made anew from moment to moment."""

from dataclasses import replace
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.config import Config
from scheduler.engine import plan
from scheduler.foresight import Certainty, Foresight, foresee
from scheduler.plan import Plan, Reason
from scheduler.snapshot import JobClass, PendingJob, Snapshot
from tests.property.test_plan import PEACEFUL, UNBOUNDED, limits, roles, snapshots
from tests.support.clusters import NOW, applied, ended

WHENEVER = 10_000


@st.composite
def wishes(draw: st.DrawFn, *, most: int = 1) -> tuple[PendingJob, ...]:
    job_class = JobClass(
        draw(st.sampled_from("ab")),
        draw(st.sampled_from(["q0", "q1", "q2"])),
        (draw(roles),),
        priority=draw(st.integers(0, 2)),
        time_limit_s=draw(limits),
    )
    return tuple(PendingJob(f"w{number}", NOW, job_class) for number in range(draw(st.integers(1, most))))


def among(snapshot: Snapshot, jobs: tuple[PendingJob, ...]) -> Snapshot:
    return replace(snapshot, pending=snapshot.pending + jobs)


@given(snapshots(), wishes(most=3))
def test_the_next_plan_does_what_was_foreseen(snapshot: Snapshot, jobs: tuple[PendingJob, ...]) -> None:
    seen = foresee(snapshot, UNBOUNDED, jobs)
    made = plan(among(snapshot, jobs), UNBOUNDED)
    ours = {job.id for job in jobs}
    placed = {one.job_id: one for one in made.placements if one.job_id in ours}
    at_once = {fate.job_id: fate for fate in seen.fates if fate.certainty is Certainty.NOW}
    assert {job_id: (fate.replicas, fate.reason) for job_id, fate in at_once.items()} == {
        job_id: (one.replicas, one.reason) for job_id, one in placed.items()
    }
    assert list(seen.evictions) == [one for one in made.evictions if one.for_job_id in ours]
    assert [fate.job_id for fate in seen.fates] == [job.id for job in jobs]
    if seen.verdict is not None:
        assert seen.verdict in made.verdicts
        assert ours & set(seen.verdict.job_ids)
    assert_promises_are_kept(seen, made)


def assert_promises_are_kept(seen: Foresight, made: Plan) -> None:
    promises = {one.job_id: one for one in made.promises}
    for fate in seen.fates:
        if fate.certainty is Certainty.PROMISED:
            assert (fate.starts_at, fate.node_ids) == (promises[fate.job_id].starts_at, promises[fate.job_id].node_ids)


@given(snapshots(), wishes(), st.integers(1, 3))
def test_plans_that_stop_at_their_bound_follow_one_another(
    snapshot: Snapshot, jobs: tuple[PendingJob, ...], bound: int
) -> None:
    (job,) = jobs
    config = replace(PEACEFUL, max_placements=bound)
    present, started = among(snapshot, jobs), False
    while True:
        made = plan(present, config)
        started = started or job.id in {one.job_id for one in made.placements}
        present = applied(present, made)
        if len(made.placements) < bound:
            break
    (fate,) = foresee(snapshot, config, jobs).fates
    assert (fate.certainty is Certainty.NOW) == started


@given(snapshots(queues=1, exact=True), wishes())
@settings(max_examples=200)
def test_a_start_to_come_is_when_it_comes_if_all_take_their_limits_and_nobody_comes(
    snapshot: Snapshot, jobs: tuple[PendingJob, ...]
) -> None:
    (job,) = jobs
    jobs = (replace(job, job_class=replace(job.job_class, queue_id="q0")),)
    (fate,) = foresee(snapshot, PEACEFUL, jobs, most_plans=WHENEVER).fates
    starts_at = start_in_time(among(snapshot, jobs), PEACEFUL, job.id)
    if fate.certainty is Certainty.PROMISED:
        assert starts_at is not None
        assert fate.starts_at is not None
        assert starts_at <= fate.starts_at
    else:
        assert fate.starts_at == starts_at


def start_in_time(snapshot: Snapshot, config: Config, job_id: str) -> float | None:
    """Plan from rows at every moment at which a limit runs out; when the job starts, None where it never does."""
    while True:
        made = plan(snapshot, config)
        if job_id in {one.job_id for one in made.placements}:
            return snapshot.now
        snapshot = applied(snapshot, made)
        if len(made.placements) == config.max_placements:
            continue
        moments = [job.ends_by for job in snapshot.running if job.ends_by is not None]
        moments += [one.starts_at for one in made.promises if one.starts_at > snapshot.now]
        if not moments:
            return None
        at = max(min(moments), snapshot.now)
        gone = [job.id for job in snapshot.running if job.ends_by is not None and job.ends_by <= at]
        snapshot = replace(ended(snapshot, *gone), now=at)


@given(snapshots(), wishes(most=2), st.randoms(use_true_random=False))
def test_shuffled_rows_give_the_same_foresight(
    snapshot: Snapshot, jobs: tuple[PendingJob, ...], random: Random
) -> None:
    shuffled = replace(
        snapshot,
        nodes=tuple(random.sample(snapshot.nodes, len(snapshot.nodes))),
        pending=tuple(random.sample(snapshot.pending, len(snapshot.pending))),
        running=tuple(random.sample(snapshot.running, len(snapshot.running))),
    )
    assert foresee(snapshot, UNBOUNDED, jobs) == foresee(shuffled, UNBOUNDED, jobs)


@given(snapshots(), wishes())
def test_what_never_fits_is_never_foreseen_to_start(snapshot: Snapshot, jobs: tuple[PendingJob, ...]) -> None:
    seen = foresee(snapshot, UNBOUNDED, jobs)
    never = [fate.certainty is Certainty.NEVER for fate in seen.fates]
    assert never == [seen.verdict is not None and seen.verdict.reason is Reason.NEVER_FITS] * len(never)
