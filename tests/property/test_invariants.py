"""The twelve things that hold for every plan, whatever comes together: pools, quotas, gangs, slices, reservations, debts.

Judged by `tests.support.judge`, which knows nothing of how plans are made. `TRELLIS_EXAMPLES=2000` looks harder.
"""

import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from random import Random
from typing import TypeVar

from hypothesis import event, given
from hypothesis import strategies as st

from scheduler.backfill import Guard
from scheduler.config import Config, Preemption
from scheduler.engine import Planner, plan
from scheduler.gang import place_gang
from scheduler.inheritance import inherit
from scheduler.ledger import Ledger
from scheduler.placement.rooms import Grant
from scheduler.plan import Plan, Reason, Verdict
from scheduler.policies import rank_of
from scheduler.snapshot import Account, JobClass, PendingJob, Queue, Snapshot
from scheduler.standing import Standing
from scheduler.usage import Usage
from tests.support.clusters import applied, given_back, without
from tests.support.judge import Judge
from tests.support.landscapes import a_config, a_landscape

T = TypeVar("T")

FOREVER = float("inf")


@dataclass(frozen=True, slots=True)
class Case:
    """A cluster and how it is to be planned for."""

    snapshot: Snapshot
    config: Config

    def plan(self) -> Plan:
        return plan(self.snapshot, self.config)

    def judge(self) -> Judge:
        return Judge(self.snapshot, self.plan(), self.config)


def a_case(seed: int, nodes: int, running: int, waiting: int) -> Case:
    random = Random(seed)
    return Case(a_landscape(random, nodes, running, waiting), a_config(random))


# Sizes are Hypothesis' to shrink; all else follows from a seed, which is many times faster.
cases = st.builds(a_case, st.integers(0, 2**32), st.integers(1, 3), st.integers(0, 6), st.integers(1, 4))
seeds = st.integers(0, 2**32)


def none(faults: Iterable[str]) -> None:
    assert list(faults) == []


# 1


@given(cases)
def test_nothing_is_held_beyond_what_there_is_nor_where_or_by_whom_it_may_not_be(case: Case) -> None:
    judge = case.judge()
    none(chain(judge.capacity(), judge.requests(), judge.places(), judge.company(), judge.limits(), judge.reach()))
    event(f"{len(judge.placed)} start")


# 2


@given(cases)
def test_a_gang_has_none_or_its_least_now_and_when_those_have_gone_who_were_told(case: Case) -> None:
    none(case.judge().gangs())


# 3


@given(cases, seeds)
def test_what_is_free_and_what_is_held_make_up_the_whole_after_every_step_and_every_step_back(
    case: Case, seed: int
) -> None:
    random, ledger = Random(seed), Ledger(case.snapshot.nodes)
    classes = [job.job_class for job in case.snapshot.pending] + [job.job_class for job in case.snapshot.running]
    held: list[Grant] = []
    states = [(ledger.mark(), _rooms(ledger))]
    whole = _sums(ledger, held)
    for _ in range(6):
        if held and random.random() < 0.4:
            ledger.give(held.pop(random.randrange(len(held))))
        else:
            held += _started(ledger, random.choice(classes))
        assert _sums(ledger, held) == whole
        states.append((ledger.mark(), _rooms(ledger)))
    for mark, state in reversed(states):
        ledger.rollback(mark)
        assert _rooms(ledger) == state


def _started(ledger: Ledger, job_class: JobClass) -> list[Grant]:
    grants = place_gang(ledger, job_class, Guard((), FOREVER))
    return grants if len(grants) == sum(role.least for role in job_class.roles) else []


def _sums(ledger: Ledger, held: Sequence[Grant]) -> tuple[int, int, int]:
    return (
        ledger.free.cpu_milli + sum(one.cpu_milli for one in held),
        ledger.free.memory_bytes + sum(one.memory_bytes for one in held),
        ledger.free.gpu_milli + sum(milli for one in held for _, milli in one.gpus),
    )


def _rooms(ledger: Ledger) -> object:
    return ledger.free, [
        (room.cpu_milli, room.memory_bytes, tuple(room.gpus), tuple(room.masks), room.whole, room.tenants, room.exclusive)
        for room in ledger.rooms
    ]  # fmt: skip


# 4


@given(cases)
def test_who_is_backfilled_delays_neither_the_head_nor_its_promise(case: Case) -> None:
    """Without others passing it, the first that is blocked is promised the same start; and it fits there then."""
    case = _batch(case)
    strict = plan(case.snapshot, replace(case.config, backfill=False))
    made = case.plan()
    first = next(((one.job_id, one.starts_at) for one in strict.promises), None)
    if first is None:
        return
    head, starts_at = first
    promised = {one.job_id: one for one in made.promises}
    assert promised[head].starts_at == starts_at
    if starts_at < FOREVER:
        later = _once_ended(applied(case.snapshot, made), starts_at)
        job = next(job for job in case.snapshot.pending if job.id == head)
        alone = replace(later, now=starts_at, pending=(replace(job, owed=()),))
        placed = plan(alone, case.config).placements
        assert [placement.job_id for placement in placed] == [head]
        event("the head's room is there")


def _batch(case: Case) -> Case:
    """The same with one queue in which whoever came first is first, limits for all, and nobody in between."""
    (queue, *_) = case.snapshot.queues
    fifo = Queue(queue.id, queue.name, policy="fifo", second_policy="fifo")

    def in_line(job_class: JobClass) -> JobClass:
        return replace(job_class, queue_id=queue.id, time_limit_s=job_class.time_limit_s or 77)

    now = case.snapshot.now
    running = tuple(
        replace(job, job_class=in_line(job.job_class), ends_by=job.ends_by or now + 40, releasing_at=None)
        for job in case.snapshot.running
    )
    running = tuple(
        replace(job, holdings=tuple(replace(one, releasing_at=None) for one in job.holdings)) for job in running
    )
    pending = tuple(replace(job, job_class=in_line(job.job_class), owed=()) for job in case.snapshot.pending)
    nodes = tuple(replace(node, pool_id="") for node in case.snapshot.nodes)
    snapshot = replace(
        case.snapshot,
        nodes=nodes,
        queues=(fifo,),
        pending=pending,
        running=running,
        reservations=(),
        blocked=(),
        pools=(),
        accounts=(),
    )
    peace = Preemption(enabled=False)
    easy = Config(policy="fifo", reserved_heads=1, preemption=peace, reclaim=False, consolidate=False, elastic=False)
    return Case(snapshot, replace(easy, max_placements=1000))


def _once_ended(snapshot: Snapshot, at: float) -> Snapshot:
    gone = [job for job in snapshot.running if job.ends_by is not None and job.ends_by <= at]
    back = [given_back(holding) for job in gone for holding in job.holdings]
    nodes = tuple(without(node, back) for node in snapshot.nodes)
    return replace(snapshot, nodes=nodes, running=tuple(job for job in snapshot.running if job not in gone))


# 5


@given(cases)
def test_a_victim_is_less_important_or_borrows_or_moves_and_is_not_protected(case: Case) -> None:
    judge = case.judge()
    none(judge.victims())
    for eviction in judge.made.evictions:
        event(str(eviction.kind))


# 6


@given(cases)
def test_every_eviction_is_matched_by_room_that_is_kept_and_would_not_be_there_without_it(case: Case) -> None:
    judge = case.judge()
    none(chain(judge.needs(), judge.debts(), judge.bookings(), judge.answers()))


# 7


@given(cases, seeds)
def test_the_order_of_rows_changes_nothing(case: Case, seed: int) -> None:
    random, snapshot = Random(seed), case.snapshot
    shuffled = replace(
        snapshot,
        nodes=_shuffled(random, snapshot.nodes),
        queues=_shuffled(random, snapshot.queues),
        pending=_shuffled(random, snapshot.pending),
        running=_shuffled(random, snapshot.running),
        pools=_shuffled(random, snapshot.pools),
        accounts=_shuffled(random, snapshot.accounts),
        reservations=_shuffled(random, snapshot.reservations),
        blocked=_shuffled(random, snapshot.blocked),
        shapes=_shuffled(random, snapshot.shapes),
    )
    assert repr(plan(shuffled, case.config)) == repr(case.plan())


def _shuffled(random: Random, rows: tuple[T, ...]) -> tuple[T, ...]:
    return tuple(random.sample(rows, len(rows)))


def test_how_strings_are_hashed_changes_nothing() -> None:
    program = (
        "from hashlib import sha256; from tests.property.test_invariants import a_case;"
        "print(sha256(repr([a_case(seed, 3, 7, 5).plan() for seed in range(100)]).encode()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


# 8


@given(cases, seeds)
def test_more_past_use_never_raises_a_project_and_more_weight_never_lowers_it(case: Case, seed: int) -> None:
    random = Random(seed)
    snapshot = _fair(case.snapshot)
    place = random.randrange(len(snapshot.accounts))
    account = snapshot.accounts[place]
    below = {account.id} | {one.id for one in snapshot.accounts if one.parent_id == account.id}
    used_more = replace(account, used=account.used + random.random())
    weighs_more = replace(account, weight=account.weight + random.randint(1, 5))
    ranks = [_in_line(replace(snapshot, accounts=_with(snapshot.accounts, place, one))) for one in (account, used_more)]
    assert _never_passes(ranks[0], ranks[1], below)
    ranks = [
        _in_line(replace(snapshot, accounts=_with(snapshot.accounts, place, one))) for one in (weighs_more, account)
    ]
    assert _never_passes(ranks[0], ranks[1], below)


def _fair(snapshot: Snapshot) -> Snapshot:
    """The same, all in one queue that is served by fair share."""
    queue = replace(snapshot.queues[0], policy="fair_share", second_policy="fifo")
    pending = tuple(replace(job, job_class=replace(job.job_class, queue_id=queue.id)) for job in snapshot.pending)
    return replace(snapshot, queues=(queue, *snapshot.queues[1:]), pending=pending)


def _with(accounts: tuple[Account, ...], place: int, account: Account) -> tuple[Account, ...]:
    return (*accounts[:place], account, *accounts[place + 1 :])


def _in_line(snapshot: Snapshot) -> list[PendingJob]:
    return Planner(replace(snapshot, blocked=()), Config()).lines[snapshot.queues[0].id].jobs()


def _never_passes(before: Sequence[PendingJob], after: Sequence[PendingJob], below: set[str]) -> bool:
    """Whether nobody of these accounts comes before a job of others that was before it."""
    ours = {
        job.id
        for job in before
        if below & {job.job_class.project_id, f"{job.job_class.project_id}/{job.job_class.user_id}"}
    }
    others = {
        job.id
        for job in before
        if job.job_class.project_id not in {one.job_class.project_id for one in before if one.id in ours}
    }
    was = {job.id: place for place, job in enumerate(before)}
    now = {job.id: place for place, job in enumerate(after)}
    return all(now[other] < now[one] for one in ours for other in others if was[other] < was[one])


# 9


@given(cases)
def test_no_job_is_left_that_fits_and_is_allowed_and_delays_nobody(case: Case) -> None:
    """A verdict of no room means none that the job may have; one of a limit, that a limit is met; else room is kept."""
    made = case.plan()
    judge = Judge(case.snapshot, made, case.config)
    kept = bool(made.promises) or bool(case.snapshot.reservations)
    for verdict in made.verdicts:
        if verdict.reason in (Reason.NO_ROOM, Reason.NO_NODES, Reason.NEVER_FITS):
            assert not judge.has_room(verdict.job_class)
        elif verdict.reason in (Reason.QUOTA, Reason.QUEUE_LIMIT):
            assert judge.meets_a_limit(verdict.job_class) or _held_back(verdict)
        elif verdict.reason is Reason.BEHIND_HEAD:
            assert kept or not case.config.backfill
        event(str(verdict.reason))


def _held_back(verdict: Verdict) -> bool:
    return "kept for a job" in verdict.message


# 10


@given(cases)
def test_planning_the_applied_plan_again_decides_nothing_more(case: Case) -> None:
    made = case.plan()
    again = plan(applied(case.snapshot, made), case.config)
    assert (again.placements, again.evictions, again.resizes) == ((), (), ())
    if case.config.reserved_heads is not None:  # conservative promises are made in the order of arrival
        assert again.verdicts == made.verdicts
        assert again.promises == made.promises


# 11


@given(cases)
def test_whoever_could_run_alone_runs_in_the_end(case: Case) -> None:
    """Whatever runs ends between two plans, ageing is on, and nobody else comes."""
    config = replace(case.config, ageing_per_hour=3600.0)
    present = replace(case.snapshot, reservations=())
    rested = 0
    for _ in range(3 * len(present.pending) + 3):
        made = plan(present, config)
        rested = 0 if made.placements else rested + 1
        if rested > 1 or not present.pending:
            break
        after = applied(present, made)
        back = [given_back(holding) for job in after.running for holding in job.holdings]
        nodes = tuple(without(node, back) for node in after.nodes)
        present = replace(after, nodes=nodes, running=(), now=after.now + 100.0)
    for job in present.pending:
        alone = replace(present, pending=(replace(job, owed=()),), blocked=())
        assert plan(alone, config).placements == ()


# 12


@given(cases)
def test_what_is_lent_lifts_nobody_above_the_lender_nor_another_project_behind(case: Case) -> None:
    snapshot, standing = case.snapshot, Standing(Usage(case.snapshot.nodes, case.snapshot.accounts), case.config)
    pending = {job.id: job for job in snapshot.pending}
    lifted = replace(standing, lifts=inherit(snapshot.blocked, pending))
    by_priority = Queue("q", "q", policy="priority", second_policy="fifo")
    by_share = replace(by_priority, policy="fair_share", second_policy="priority")
    for job in snapshot.pending:
        lenders = [
            one.priority
            for one in snapshot.blocked
            if job.id in one.needs and one.project_id == job.job_class.project_id
        ]
        most = max([job.job_class.priority, *lenders])
        asked_for = replace(job, job_class=replace(job.job_class, priority=most))
        assert rank_of(by_priority, lifted)(job) >= rank_of(by_priority, standing)(asked_for)
        for other in snapshot.pending:
            if standing.usage.path(other.job_class) < standing.usage.path(job.job_class):
                assert rank_of(by_share, lifted)(other) < rank_of(by_share, lifted)(job)
