"""What every policy owes the engine, whoever wrote it."""

import ast
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.amounts import asked
from scheduler.config import Config
from scheduler.inheritance import Lift
from scheduler.policies import POLICIES, STARVING, Rank, by_age, rank_of
from scheduler.snapshot import Account, PendingJob, Queue
from scheduler.standing import Standing
from scheduler.usage import Usage, blend
from tests.support.clusters import a_job, a_node, a_request, a_snapshot, started
from tests.support.services import ROOT

NODES = [a_node(cpus=64, gpus=8)]
HOUR_S = 3600.0
Improve = Callable[[PendingJob, Standing], tuple[PendingJob, Standing]]


every_policy = pytest.mark.parametrize("name", sorted(POLICIES))


def a_waiting_job(random: Random, number: int) -> PendingJob:
    job = a_job(
        f"{random.randrange(16**4):04x}-{number}",
        a_request(cpus=random.randint(0, 4), gpu_milli=random.choice((0, 500, 1000))),
        at=random.choice((0.0, 1.5, 9.0, 90_000.0)),
        limit=random.choice((None, 60)),
        priority=random.randint(-2, 2),
        project=random.choice("abc"),
    )
    return replace(
        job,
        job_class=replace(job.job_class, user_id=random.choice(("", "u", "v"))),
        deadline=random.choice((None, random.uniform(-10, 200_000))),
        expected_s=random.choice((None, random.uniform(0, 90_000))),
    )


def a_situation(seed: int, size: int) -> tuple[list[PendingJob], Standing]:
    """Jobs that wait, and who has how much; some are running, and some are lent a rank."""
    random = Random(seed)
    drawn = [a_waiting_job(random, number) for number in range(size)]
    accounts = [
        Account(project, weight=random.randint(1, 3), used=random.random())
        for project in random.sample("abc", random.randint(0, 3))
    ]
    usage = Usage(NODES, accounts)
    for number in range(random.randint(0, 8)):
        job_class = a_waiting_job(random, number).job_class
        usage.charge(job_class, asked(job_class))
    config = Config(ageing_per_hour=random.choice((0.0, 0.3, 10.0)), second_policy=random.choice(sorted(POLICIES)))
    lifts = {
        job.id: Lift(random.randint(-2, 9), random.choice((None, random.uniform(-10, 200_000))), "lender")
        for job in drawn
        if random.random() < 0.5
    }
    return drawn, Standing(usage, config, lifts)


# Sizes are Hypothesis' to shrink; all else follows from a seed, which is many times faster.
situations = st.builds(a_situation, st.integers(0, 2**32), st.integers(0, 12))


def ranked(name: str, standing: Standing) -> Rank:
    return rank_of(Queue("q", "default", policy=name), standing)


@every_policy
@given(situation=situations)
def test_a_policy_gives_equal_keys_for_equal_input(name: str, situation: tuple[list[PendingJob], Standing]) -> None:
    drawn, standing = situation
    assert list(map(ranked(name, standing), drawn)) == list(map(ranked(name, standing), drawn))


@every_policy
@given(situation=situations)
def test_a_policy_orders_totally(name: str, situation: tuple[list[PendingJob], Standing]) -> None:
    drawn, standing = situation
    keys = sorted(map(ranked(name, standing), drawn))
    assert all(first < second for first, second in pairwise(keys))


@every_policy
@given(situation=situations, seed=st.integers(0, 2**32))
def test_a_policy_does_not_look_at_the_order_of_rows(
    name: str, situation: tuple[list[PendingJob], Standing], seed: int
) -> None:
    drawn, standing = situation
    shuffled = Random(seed).sample(drawn, len(drawn))
    assert sorted(drawn, key=ranked(name, standing)) == sorted(shuffled, key=ranked(name, standing))


@every_policy
@given(situation=situations)
def test_starting_jobs_never_improves_a_rank(name: str, situation: tuple[list[PendingJob], Standing]) -> None:
    drawn, standing = situation
    rank = ranked(name, standing)
    before = list(map(rank, drawn))
    for job in drawn:
        standing.usage.charge(job.job_class, asked(job.job_class))
        after = list(map(rank, drawn))
        assert all(now >= then for now, then in zip(after, before, strict=True))
        before = after


@every_policy
@given(situation=situations)
def test_jobs_of_one_class_never_change_places(name: str, situation: tuple[list[PendingJob], Standing]) -> None:
    drawn, standing = situation
    alike = [replace(job, job_class=drawn[0].job_class) for job in drawn]
    rank = ranked(name, standing)
    before = sorted(alike, key=rank)
    for job in drawn:
        standing.usage.charge(job.job_class, asked(job.job_class))
        assert sorted(alike, key=rank) == before
    if by_age(Queue("q", "default", policy=name), standing):
        assert before == sorted(alike, key=lambda job: (job.submitted_at, job.id))


@every_policy
@given(situation=situations)
def test_of_jobs_that_are_alike_the_older_goes_first_and_of_one_age_the_lowest_id(
    name: str, situation: tuple[list[PendingJob], Standing]
) -> None:
    drawn, standing = situation
    rank = ranked(name, replace(standing, lifts={}))
    for job in drawn:
        twin = replace(job, id=f"{job.id}-twin")
        assert rank(job) < rank(twin)
        younger = replace(twin, id="", submitted_at=job.submitted_at + 1.0, deadline=None)
        assert rank(replace(job, deadline=None)) < rank(younger)


def more_urgent(job: PendingJob, standing: Standing) -> tuple[PendingJob, Standing]:
    return replace(job, job_class=replace(job.job_class, priority=job.job_class.priority + 1)), standing


def due_earlier(job: PendingJob, standing: Standing) -> tuple[PendingJob, Standing]:
    return replace(job, deadline=1000.0 if job.deadline is None else job.deadline - 1000.0), standing


def expected_to_run_longer(job: PendingJob, standing: Standing) -> tuple[PendingJob, Standing]:
    return replace(job, expected_s=2 * (job.expected_s or 60.0)), standing


def expected_to_run_shorter(job: PendingJob, standing: Standing) -> tuple[PendingJob, Standing]:
    return replace(job, expected_s=10.0 if job.expected_s is None else job.expected_s / 2), standing


def older(job: PendingJob, standing: Standing) -> tuple[PendingJob, Standing]:
    return replace(job, submitted_at=job.submitted_at - 5000.0), standing


def larger(job: PendingJob, standing: Standing) -> tuple[PendingJob, Standing]:
    roles = tuple(replace(role, least=2 * role.least, most=2 * role.least) for role in job.job_class.roles)
    return replace(job, job_class=replace(job.job_class, roles=roles)), standing


def of_nobody_who_had_anything(job: PendingJob, standing: Standing) -> tuple[PendingJob, Standing]:
    return replace(job, job_class=replace(job.job_class, project_id="unheard of")), standing


IMPROVEMENTS = {
    "deadline": (due_earlier, expected_to_run_longer, older),
    "fair_share": (of_nobody_who_had_anything,),
    "fifo": (older,),
    "gang": (larger, older),
    "priority": (more_urgent, older),
    "slowdown": (expected_to_run_shorter, older),
}
"""What a policy says that it ranks first."""


def test_of_every_policy_it_is_known_what_it_ranks_first() -> None:
    assert IMPROVEMENTS.keys() == POLICIES.keys()


@pytest.mark.parametrize(
    ("name", "improve"),
    [(name, improve) for name, some in sorted(IMPROVEMENTS.items()) for improve in some],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
@given(situation=situations)
def test_a_job_that_has_more_of_what_a_policy_goes_by_ranks_no_worse_for_it(
    name: str, improve: Improve, situation: tuple[list[PendingJob], Standing]
) -> None:
    drawn, standing = situation
    config = replace(standing.config, second_policy=name)  # what ranks is this policy and no other
    standing = replace(standing, config=config, lifts={})
    for job in drawn:
        better, then = improve(job, standing)
        assert POLICIES[name](better, then) <= POLICIES[name](job, standing)


@every_policy
def test_a_policy_knows_jobs_and_who_has_how_much_and_nothing_of_nodes(name: str) -> None:
    """A key is asked for thousands of times a plan: none may look at the ledger, at nodes, or at what waits beside."""
    module = ast.parse((ROOT / "scheduler" / "policies" / f"{name}.py").read_text())
    known = {
        f"{node.module}.{one.name}"
        for node in ast.walk(module)
        if isinstance(node, ast.ImportFrom)
        for one in node.names
    }
    assert known <= {
        "math.log2",
        "scheduler.amounts.asked",
        "scheduler.snapshot.PendingJob",
        "scheduler.standing.Standing",
    }
    assert not [node for node in ast.walk(module) if isinstance(node, ast.Import)]


@every_policy
def test_of_equal_jobs_the_older_goes_first(name: str) -> None:
    snapshot = a_snapshot(
        [a_node(cpus=1)], [a_job("a", at=2), a_job("b", at=1)], queues=[Queue("q", "default", policy=name)]
    )
    assert started(snapshot) == ["b"]


TEMPTING = ("priority", "deadline", "size", "weight")


@pytest.mark.parametrize("ageing", [0.0, 50.0])
@pytest.mark.parametrize("temptation", TEMPTING)
@every_policy
def test_nobody_is_passed_for_ever(name: str, temptation: str, ageing: float) -> None:
    """One job at a time runs for an hour; each hour another comes that the policy would rather have.

    Where a policy says that it starves, or is a queue's second, ageing keeps it from doing so.
    """
    config = Config(ageing_per_hour=ageing, second_policy="fifo")
    loser = a_job("loser", at=0.0, priority=-1000, project="poor")
    line = [loser]
    poor, rich = 1.0, 0.0
    for hour in range(200):
        at = hour * HOUR_S
        usage = Usage(NODES, [Account("poor", used=poor), Account("rich", weight=100, used=rich)])
        line.append(_tempting(temptation, f"rival{hour:03}", at))
        first = min(line, key=ranked(name, Standing(usage, config)))
        if first is loser:
            return
        line.remove(first)
        poor, rich = (blend(used, held, HOUR_S, HOUR_S) for used, held in ((poor, 0.0), (rich, 1.0)))
    assert name in STARVING
    assert ageing == 0


def _tempting(temptation: str, job_id: str, at: float) -> PendingJob:
    job = a_job(job_id, at=at, project="rich")
    match temptation:
        case "priority":
            return a_job(job_id, at=at, project="rich", priority=1000)
        case "deadline":
            return replace(job, deadline=at)
        case "size":
            return a_job(job_id, a_request(cpus=64), at=at, project="rich")
        case _:
            return job


@every_policy
def test_the_second_policy_breaks_the_ties_of_the_first_and_nothing_else(name: str) -> None:
    low, high = a_job("a", at=1), a_job("b", at=1, priority=1)
    queue = Queue("q", "default", policy=name, second_policy="priority")
    standing = Standing(Usage(NODES))
    assert _order(queue, standing, [low, high]) == ["b", "a"]
    if name not in {"priority", "fair_share"}:
        assert _order(queue, standing, [low, replace(high, submitted_at=2.0)]) == ["a", "b"]
    by_age_only = replace(queue, second_policy="fifo")
    assert _order(by_age_only, standing, [low, high]) == (["b", "a"] if name == "priority" else ["a", "b"])


def _order(queue: Queue, standing: Standing, drawn: Sequence[PendingJob]) -> list[str]:
    return [job.id for job in sorted(drawn, key=rank_of(queue, standing))]


def test_a_queue_without_policies_follows_the_configured_ones() -> None:
    old, urgent = a_job("old", at=1), a_job("urgent", at=2, priority=9)
    for policy, first in (("fifo", "old"), ("priority", "urgent")):
        standing = Standing(Usage(NODES), Config(policy=policy))
        assert _order(Queue("q", "default"), standing, [old, urgent])[0] == first


@pytest.mark.parametrize("first", ["priority", "fair_share"])
def test_where_two_policies_leave_a_tie_the_larger_of_those_that_came_together_goes_first(first: str) -> None:
    drawn = [
        a_job("a", a_request(cpus=1), at=1),
        a_job("b", a_request(cpus=4), at=1),
        a_job("c", a_request(cpus=2), at=0),
    ]
    standing, two = Standing(Usage(NODES)), Queue("q", "default", policy=first, second_policy="slowdown")
    assert [job.id for job in sorted(drawn, key=rank_of(two, standing))] == ["c", "b", "a"]
    alone = replace(two, policy="fifo", second_policy="fifo")
    assert [job.id for job in sorted(drawn, key=rank_of(alone, standing))] == ["c", "a", "b"]


@pytest.mark.parametrize("values", [{"policy": "lottery"}, {"second_policy": "lottery"}])
def test_an_unknown_policy_is_named_with_those_there_are(values: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="queue 'default' asks for policy 'lottery'; there are deadline, fair_share"):
        rank_of(replace(Queue("q", "default"), **values), Standing(Usage(NODES)))  # type: ignore[arg-type]
