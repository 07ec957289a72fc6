"""What holds whenever somebody must make room."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from random import Random

from hypothesis import assume, event, given
from hypothesis import strategies as st

from scheduler import amounts
from scheduler.backfill import Guard
from scheduler.config import Config, Preemption
from scheduler.engine import Planner, plan
from scheduler.gang import needed, place_gang
from scheduler.ledger import Ledger
from scheduler.plan import EvictionKind, Plan
from scheduler.snapshot import (
    Amounts,
    Holding,
    JobClass,
    Node,
    PendingJob,
    Pool,
    Queue,
    Request,
    Role,
    RunningJob,
    Snapshot,
)
from tests.support.clusters import NOW, applied, ended, given_back, without

RULES = Preemption(min_run_s=300, max_preemptions=2, grace_s=60)
CONFIG = Config(max_placements=1000, preemption=RULES)
STILL = replace(CONFIG, consolidate=False, elastic=False)
QUEUES = (Queue("q0", "q0"), Queue("q1", "q1"))

clusters = st.builds(
    # Sizes are Hypothesis' to shrink; all else follows from a seed, which is many times faster.
    lambda seed, nodes, running, waiting: full_cluster(Random(seed), nodes, running, waiting),
    st.integers(0, 2**32),
    st.integers(1, 4),
    st.integers(1, 9),
    st.integers(1, 4),
)
one_waits = st.builds(
    lambda seed, nodes, running: full_cluster(Random(seed), nodes, running, 1),
    st.integers(0, 2**32),
    st.integers(1, 3),
    st.integers(1, 7),
)


lending = st.builds(
    lambda seed, nodes, running, waiting: with_pools(Random(seed), full_cluster(Random(seed), nodes, running, waiting)),
    st.integers(0, 2**32),
    st.integers(1, 4),
    st.integers(1, 9),
    st.integers(1, 4),
)


def with_pools(random: Random, snapshot: Snapshot) -> Snapshot:
    """The same, its queues charged to two pools that lend to each other what is theirs."""
    total = [
        sum(node.cpu_milli for node in snapshot.nodes),
        99,
        sum(len(node.gpu_milli_free) for node in snapshot.nodes),
    ]
    mine = [random.randint(0, most) for most in total]
    parts = (mine, [most - part for most, part in zip(total, mine, strict=True)])
    pools = [Pool("all", "all", nominal=Amounts(0, 0, 0))]
    for name, (cpu_milli, memory_bytes, gpus) in zip("01", parts, strict=True):
        nominal = Amounts(cpu_milli, memory_bytes, gpus * 1000)
        pools.append(Pool(name, name, "all", weight=random.choice([1, 1, 2]), nominal=nominal))
    queues = tuple(replace(queue, pool_id=queue.id[1:]) for queue in snapshot.queues)
    return replace(snapshot, queues=queues, pools=tuple(pools))


def full_cluster(random: Random, nodes: int, running: int, waiting: int) -> Snapshot:
    """A small cluster with jobs on it that may or may not be made to go."""
    empty = [_node(random, number) for number in range(nodes)]
    ledger = Ledger(empty)
    begun = []
    for number in range(running):
        job_class = _class(random, most_priority=2)
        role = job_class.roles[0]
        size = random.randint(role.least, role.most)
        as_it_runs = replace(job_class, roles=(replace(role, least=size, most=size),))
        grants = place_gang(ledger, as_it_runs, Guard((), NOW))
        if len(grants) == needed(as_it_runs):
            holdings = tuple(Holding(ledger.nodes[g.number].id, g.cpu_milli, g.memory_bytes, g.gpus) for g in grants)
            begun.append(_running(random, f"r{number}", job_class, holdings))
    taken = [holding for job in begun for holding in job.holdings]
    pending = tuple(
        PendingJob(f"j{number}", float(number), _class(random, most_priority=3), expected_s=random.choice([None, 99.0]))
        for number in range(waiting)
    )
    return Snapshot(NOW, tuple(without(node, taken) for node in empty), QUEUES, pending, tuple(begun))


def _class(random: Random, *, most_priority: int) -> JobClass:
    request = Request(
        cpu_milli=random.choice([0, 1000, 2000]),
        memory_bytes=random.randint(0, 2),
        gpu_milli=random.choice([0, 300, 500, 700, 1000, 1000, 2000]),
        gpu_models=random.choice([(), (), (), ("a100",)]),
    )
    least = random.choice([1, 1, 1, 2, 3])
    return JobClass(
        project_id="p",
        queue_id=random.choice(["q0", "q1"]),
        roles=(Role(request, least, least + random.choice([0, 0, 0, 1, 2])),),
        priority=random.randint(0, most_priority),
        time_limit_s=random.choice([None, 50, 100, 2000]),
        preemptible=random.random() < 0.85,
        checkpointable=random.random() < 0.5,
    )


def _node(random: Random, number: int) -> Node:
    devices, cpu_milli = random.choice([0, 1, 2, 2, 3]), random.choice([2000, 4000, 6000])
    model = random.choice(["a100", "h100"]) if devices else ""
    name = f"n{number}"
    return Node(name, name, True, cpu_milli, 9, cpu_milli, 9, model, (1000,) * devices)


def _running(random: Random, job_id: str, job_class: JobClass, holdings: tuple[Holding, ...]) -> RunningJob:
    return RunningJob(
        job_id,
        job_class,
        holdings,
        started_at=random.choice([0.0, 0.0, 0.0, 500.0, NOW - 100]),
        ends_by=random.choice([None, None, float(random.randint(1001, 3000))]),
        checkpointed_at=random.choice([None, None, 400.0, 900.0]),
        releasing_at=random.choice([None] * 9 + [NOW + 30.0]),
        preemptions=random.choice([0] * 7 + [2]),
    )


def may_go(job: RunningJob, priority: int) -> bool:
    """The rule in other words than those of the code under test."""
    return (
        job.job_class.preemptible
        and job.job_class.priority < priority
        and job.started_at <= NOW - 300
        and job.preemptions < 2
        and job.releasing_at is None
    )


def surplus(job: RunningJob) -> int:
    staying = sum(holding.releasing_at is None for holding in job.holdings)
    return staying - job.job_class.roles[0].least


def room_for(snapshot: Snapshot, job_class: JobClass) -> bool:
    """Whether the free parts of the nodes hold the fewest replicas: all are alike, so any greedy filling tells."""
    (role,) = job_class.roles
    return sum(_slots(node, role.request, role.least) for node in snapshot.nodes if node.ready) >= role.least


def _slots(node: Node, request: Request, most: int) -> int:
    if request.gpu_milli and request.gpu_models and node.gpu_model not in request.gpu_models:
        return 0
    if request.gpu_milli >= 1000:
        most = min(most, sum(milli == 1000 for milli in node.gpu_milli_free) // (request.gpu_milli // 1000))
    elif request.gpu_milli:
        most = min(most, sum(milli // request.gpu_milli for milli in node.gpu_milli_free))
    while most and (
        most * request.cpu_milli > node.cpu_milli_free or most * request.memory_bytes > node.memory_bytes_free
    ):
        most -= 1
    return most


def freed(snapshot: Snapshot, holdings: list[Holding]) -> Snapshot:
    back = [given_back(holding) for holding in holdings]
    return replace(snapshot, nodes=tuple(without(node, back) for node in snapshot.nodes))


def told_holdings(snapshot: Snapshot, made: Plan) -> dict[str, list[Holding]]:
    """What each who was told gives up, by job."""
    jobs = {job.id: job for job in snapshot.running}
    given = {one.job_id: list(jobs[one.job_id].holdings) for one in made.evictions}
    for resize in made.resizes:
        if resize.removed:
            given.setdefault(resize.job_id, [jobs[resize.job_id].holdings[place] for place in resize.removed])
    return given


@given(clusters)
def test_a_victim_may_go_and_somebody_who_waits_needs_it(snapshot: Snapshot) -> None:
    made = plan(snapshot, CONFIG)
    waiting = {job.id: job for job in snapshot.pending}
    running = {job.id: job for job in snapshot.running}
    placed = {one.job_id for one in made.placements}
    kept = {promise.job_id for promise in made.promises if promise.holdings}
    assert len({one.job_id for one in made.evictions}) == len(made.evictions)
    for eviction in made.evictions:
        victim, needy = running[eviction.job_id], waiting[eviction.for_job_id]
        moves = eviction.kind is EvictionKind.CONSOLIDATE
        assert may_go(victim, needy.job_class.priority + moves)
        assert not moves or (victim.job_class.checkpointable and victim.id in kept)
        assert needy.id in kept
        assert needy.id not in placed
        assert eviction.checkpoint == victim.job_class.checkpointable
        event(str(eviction.kind))


@given(clusters)
def test_no_gang_is_left_with_fewer_than_its_least(snapshot: Snapshot) -> None:
    made = plan(snapshot, CONFIG)
    after = applied(snapshot, made)
    assert not {one.job_id for one in made.evictions} & {one.job_id for one in made.resizes}
    for job in after.running:
        assert surplus(job) >= 0
        assert len(job.holdings) <= max(job.job_class.roles[0].most, surplus(job))


@given(clusters)
def test_all_that_is_promised_is_there_once_those_have_gone_who_were_told(snapshot: Snapshot) -> None:
    made = plan(snapshot, CONFIG)
    after = applied(snapshot, made)
    leaving = [
        holding
        for job in after.running
        for holding in job.holdings
        if job.releasing_at is not None or holding.releasing_at is not None
    ]
    promised = [holding for promise in made.promises for holding in promise.holdings]
    rooms = freed(after, leaving).nodes
    for node in rooms:
        without(node, promised)  # fails where anything falls below zero


@given(clusters)
def test_planning_the_applied_plan_again_tells_nobody_anything(snapshot: Snapshot) -> None:
    _nothing_more_is_told(snapshot)


def _nothing_more_is_told(snapshot: Snapshot) -> None:
    made = plan(snapshot, CONFIG)
    again = plan(applied(snapshot, made), CONFIG)
    assert (again.placements, again.evictions, again.resizes) == ((), (), ())
    assert again.verdicts == made.verdicts
    assert again.promises == made.promises


@given(one_waits)
def test_somebody_goes_whenever_that_helps_and_never_one_too_many(snapshot: Snapshot) -> None:
    """Against brute force: all sets of those who may go."""
    (job,) = snapshot.pending
    coming = [holding for one in snapshot.running if one.releasing_at is not None for holding in one.holdings]
    present = freed(snapshot, coming)
    made = plan(snapshot, STILL)
    given = told_holdings(snapshot, made)
    if room_for(present, job.job_class):
        assert given == {}
        return
    helping = [some for some in _choices(snapshot, job) if room_for(freed(present, some), job.job_class)]
    # Which replicas of an elastic job go is chosen one by one, never all ways round.
    whole = [
        holding for other in snapshot.running if may_go(other, job.job_class.priority) for holding in other.holdings
    ]
    assert given or not room_for(freed(present, whole), job.job_class)
    assert helping or not given
    if given:
        told = [holding for held in given.values() for holding in held]
        assert room_for(freed(present, told), job.job_class)
        evicted = {one.job_id for one in made.evictions}
        for fewer in _without_one(given, evicted):
            assert not room_for(freed(present, fewer), job.job_class)
        event(f"{len(told) - min(map(len, helping))} replicas more than the fewest")


def _choices(snapshot: Snapshot, job: PendingJob) -> list[list[Holding]]:
    """Every set of holdings that could be made free for a job."""
    found: list[list[Holding]] = [[]]
    for other in snapshot.running:
        options: list[list[Holding]] = [[]]
        if other.releasing_at is None and other.job_class.priority <= job.job_class.priority:
            sizes = range(1, surplus(other) + 1)
            options += [list(some) for size in sizes for some in combinations(other.holdings, size)]
        if may_go(other, job.job_class.priority):
            options.append(list(other.holdings))
        found = [before + some for before in found for some in options]
        assume(len(found) <= 2000)
    return found


def _without_one(given: dict[str, list[Holding]], evicted: set[str]) -> Iterator[list[Holding]]:
    """What would be free had one of those stayed, or kept one of its replicas."""
    for job_id, held in given.items():
        rest = [holding for other, some in given.items() if other != job_id for holding in some]
        if job_id in evicted:
            yield rest
        else:
            yield from (rest + held[:place] + held[place + 1 :] for place in range(len(held)))


@given(clusters)
def test_once_those_have_gone_who_were_told_the_jobs_start_and_the_movers_go_on(snapshot: Snapshot) -> None:
    _all_start(snapshot)


def _all_start(snapshot: Snapshot) -> None:
    made = plan(snapshot, CONFIG)
    if not made.evictions:
        return
    after = applied(snapshot, made)
    gone = {job.id: job for job in after.running if job.releasing_at is not None}
    movers = tuple(
        PendingJob(job.id, job.started_at, job.job_class, owed=job.owed) for job in gone.values() if job.owed
    )
    later = ended(after, *gone)
    leaving = [(job, [one for one in job.holdings if one.releasing_at is not None]) for job in later.running]
    later = freed(later, [holding for _, some in leaving for holding in some])
    smaller = tuple(
        replace(job, holdings=tuple(one for one in job.holdings if one.releasing_at is None)) for job, _ in leaving
    )
    then = plan(replace(later, running=smaller, pending=later.pending + movers, now=NOW + 60), CONFIG)
    begun = {placement.job_id for placement in then.placements}
    assert {one.for_job_id for one in made.evictions} <= begun
    assert {mover.id for mover in movers} <= begun


@given(lending)
def test_only_who_holds_what_is_lent_must_give_it_back(snapshot: Snapshot) -> None:
    made = plan(snapshot, CONFIG)
    running = {job.id: job for job in snapshot.running}
    waiting = {job.id: job for job in snapshot.pending}
    after = applied(snapshot, made)
    for eviction in made.evictions:
        if eviction.kind is EvictionKind.RECLAIM:
            victim, needy = running[eviction.job_id].job_class, waiting[eviction.for_job_id].job_class
            event(f"priority {'above' if victim.priority > needy.priority else 'not above'}")
            # A higher priority may take over what another's owner was to get back.
            assert victim.queue_id != needy.queue_id or needy.priority > victim.priority
            nominal = next(pool.nominal for pool in snapshot.pools if pool.id == victim.queue_id[1:])
            theirs = [job.holdings for job in after.running if job.job_class.queue_id == victim.queue_id]
            theirs += [job.owed for job in after.pending if job.job_class.queue_id == victim.queue_id]
            used = amounts.held(holding for holdings in theirs for holding in holdings)
            assert any(amount > most for amount, most in zip(used, nominal or (), strict=True))
            assert may_go(running[eviction.job_id], 99)


@given(lending)
def test_planning_the_applied_plan_again_takes_nothing_more_back(snapshot: Snapshot) -> None:
    _nothing_more_is_told(snapshot)


@given(lending)
def test_what_was_taken_back_goes_to_who_needed_it(snapshot: Snapshot) -> None:
    _all_start(snapshot)


@given(clusters, st.data())
def test_a_planner_told_who_has_gone_plans_as_if_read_anew(snapshot: Snapshot, data: st.DataObject) -> None:
    planner = Planner(snapshot, CONFIG)
    present = snapshot
    for _ in range(3):
        present = applied(present, planner.plan(present.now))
        going = [job.id for job in present.running if job.releasing_at is not None]
        for job_id in going:
            if data.draw(st.booleans(), "one has gone"):
                planner.end(job_id)
                present = ended(present, job_id)
        others = [job.id for job in present.running if job.releasing_at is None]
        if len(others) > 0 and data.draw(st.booleans(), "one is cancelled"):
            job_id = data.draw(st.sampled_from(others))
            planner.evicting(job_id, present.now + 10)
            told = tuple(
                replace(job, releasing_at=present.now + 10) if job.id == job_id else job for job in present.running
            )
            present = replace(present, running=told)
        made = plan(present, CONFIG)
        assert planner.plan(present.now) == made
        present = applied(present, made)
