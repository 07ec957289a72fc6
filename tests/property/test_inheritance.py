"""Rank that is lent never exceeds what the lender has, nor leaves its project, whatever the dependencies."""

from itertools import combinations
from math import inf
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from scheduler.amounts import asked
from scheduler.config import Config
from scheduler.inheritance import inherit
from scheduler.policies import rank_of
from scheduler.snapshot import BlockedJob, JobClass, PendingJob, Queue, Role
from scheduler.standing import Standing
from scheduler.usage import Usage
from tests.support.clusters import a_node, a_request
from tests.support.examples import CHEAP

seeds = st.integers(0, 2**32 - 1)
ROLES = (Role(a_request()),)


def _graph(random: Random) -> tuple[list[BlockedJob], dict[str, PendingJob]]:
    """Jobs of two projects that wait for one another, now and then in a circle."""
    names = [f"j{number}" for number in range(random.randint(1, 8))]
    pending = {
        name: PendingJob(
            name,
            float(random.randint(0, 9)),
            JobClass(random.choice("ab"), "q", ROLES, random.randint(-2, 2)),
            random.choice([None, float(random.randint(0, 50))]),
            random.choice([None, 5.0]),
        )
        for name in names[: random.randint(0, 3)]
    }
    blocked = [
        BlockedJob(
            name,
            random.choice("ab"),
            random.randint(-3, 5),
            tuple(random.choices(names[:place] if random.random() < 0.9 else [*names, "gone"], k=random.randint(1, 3))),
            random.choice([None, float(random.randint(0, 90))]),
            float(random.randint(0, 9)),
        )
        for place, name in enumerate(names)
        if name not in pending and place
    ]
    return blocked, pending


def _lenders(
    job_id: str, project: str, blocked: list[BlockedJob], behind_s: float = 0.0
) -> list[tuple[int, float, str]]:
    """Every way in which somebody of the project waits for a job, by hand: its priority, when the job is due, its id."""
    found = []
    for job in blocked:
        if job_id in job.needs and job.project_id == project:
            run_s = behind_s + job.expected_s
            found.append((job.priority, inf if job.deadline is None else job.deadline - run_s, job.id))
            found.extend(_lenders(job.id, project, blocked, run_s))
    return found


def _can_run(blocked: list[BlockedJob]) -> list[BlockedJob]:
    """Those left when whoever waits for nobody that is left is struck out again and again are dead."""
    left = list(blocked)
    while True:
        ids = {job.id for job in left}
        stuck = [job for job in left if ids.intersection(job.needs)]
        if len(stuck) == len(left):
            return [job for job in blocked if job.id not in ids]
        left = stuck


@given(seeds)
@CHEAP
def test_a_job_gets_the_best_of_all_that_wait_for_it_and_no_more(seed: int) -> None:
    blocked, pending = _graph(Random(seed))
    lifts = inherit(blocked, pending)
    alive = _can_run(blocked)
    for job in pending.values():
        lenders = _lenders(job.id, job.job_class.project_id, alive)
        priority = max([job.job_class.priority, *(priority for priority, _, _ in lenders)])
        own_due = inf if job.deadline is None else job.deadline
        due = min([own_due, *(due for _, due, _ in lenders)])
        lift = lifts.get(job.id)
        if lift is None:
            assert (priority, due) == (job.job_class.priority, own_due)
        else:
            assert (lift.priority, inf if lift.deadline is None else lift.deadline) == (priority, due)
            assert lift.lender_id in {lender_id for _, _, lender_id in lenders}


@given(seeds)
@CHEAP
def test_the_order_of_rows_changes_no_lift(seed: int) -> None:
    random = Random(seed)
    blocked, pending = _graph(random)
    shuffled = dict(random.sample(list(pending.items()), len(pending)))
    assert inherit(random.sample(blocked, len(blocked)), shuffled) == inherit(blocked, pending)


@given(seeds)
@CHEAP
def test_no_project_passes_another_by_what_its_jobs_lend_each_other(seed: int) -> None:
    """Under fair share rank between projects is use, and nothing that is lent; only inside one does it count."""
    random = Random(seed)
    blocked, pending = _graph(random)
    usage = Usage([a_node()])
    for job in pending.values():
        if random.random() < 0.5:
            usage.charge(job.job_class, asked(job.job_class))
    queue = Queue("q", "q", policy="fair_share", second_policy="priority")
    plain = rank_of(queue, Standing(usage))
    lifted = rank_of(queue, Standing(usage, lifts=inherit(blocked, pending)))
    for one, other in combinations(pending.values(), 2):
        if usage.path(one.job_class) != usage.path(other.job_class):
            assert (plain(one) < plain(other)) == (lifted(one) < lifted(other))


@given(seeds)
@CHEAP
def test_beyond_its_share_a_project_passes_nobody_that_came_before_by_a_deadline_lent_or_not(seed: int) -> None:
    random = Random(seed)
    blocked, pending = _graph(random)
    usage = Usage([a_node(cpus=8)])
    usage.charge(JobClass("a", "q", ROLES), asked(JobClass("a", "q", (Role(a_request(cpus=9)),))))
    rank = rank_of(
        Queue("q", "q", policy="deadline"), Standing(usage, Config(patience_s=20.0), inherit(blocked, pending))
    )
    for one in pending.values():
        for other in pending.values():
            beyond, within = one.job_class.project_id == "a", other.job_class.project_id == "b"
            if beyond and within and other.submitted_at < one.submitted_at:
                assert rank(other) < rank(one)
