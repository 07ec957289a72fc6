"""What holds for every plan under quotas, pools, deadlines, dependencies and whatever policies there are."""

from dataclasses import replace
from random import Random
from typing import TypeVar

from hypothesis import given
from hypothesis import strategies as st

from scheduler.amounts import asked
from scheduler.config import Config
from scheduler.engine import plan
from scheduler.inheritance import Lift
from scheduler.order import Line
from scheduler.policies import POLICIES, rank_of
from scheduler.snapshot import (
    UNLIMITED,
    Account,
    Amounts,
    BlockedJob,
    JobClass,
    Node,
    PendingJob,
    Pool,
    Queue,
    Request,
    Role,
    Snapshot,
)
from scheduler.standing import Standing
from scheduler.usage import Usage
from tests.support.books import Books
from tests.support.clusters import applied
from tests.support.examples import CHEAP

T = TypeVar("T")

seeds = st.integers(0, 2**32 - 1)
CONFIG = Config(max_placements=1000, patience_s=50.0)
NAMES = sorted(POLICIES)


def _most(random: Random) -> Amounts:
    return Amounts(*(random.choice([UNLIMITED, UNLIMITED, random.randint(0, 6)]) for _ in range(3)))


def _clusters(random: Random) -> Snapshot:
    """A cluster of small numbers: CPUs in milli, bytes of memory, whole GPUs, a tree of pools, one of accounts."""
    parents = {"left": "root", "right": "root", "apart": ""}
    pools = tuple(
        Pool(name, name, parents.get(name, ""), lends=_most(random), borrows=_most(random))
        for name in ("root", "left", "right", "apart")
    )
    nodes = tuple(_node(random, number) for number in range(random.randint(1, 4)))
    accounts = (
        Account("org", most=_most(random)),
        Account("a", "org", random.randint(1, 3), random.random(), _most(random)),
        Account("b", "org", most=_most(random)),
    )
    queues = tuple(
        Queue(
            name,
            name,
            weight=random.randint(1, 3),
            policy=random.choice(NAMES),
            second_policy=random.choice(NAMES),
            pool_id=random.choice(["", "left", "right", "root", "apart"]),
            most=_most(random),
            most_running=random.choice([UNLIMITED, random.randint(0, 3)]),
        )
        for name in ("q0", "q1")
    )
    return Snapshot(1000.0, nodes, queues, (), pools=pools, accounts=accounts)


def _node(random: Random, number: int) -> Node:
    cpu_milli, memory_bytes, gpus = (random.randint(0, 6) for _ in range(3))
    return Node(
        f"n{number}",
        f"n{number}",
        True,
        cpu_milli,
        memory_bytes,
        cpu_milli,
        memory_bytes,
        "h100" if gpus else "",
        (1000,) * gpus,
        pool_id=random.choice(["", "left", "right", "apart"]),
    )


def _jobs(random: Random, count: int, first: int = 0, at: float = 1000.0) -> tuple[PendingJob, ...]:
    return tuple(
        PendingJob(
            f"j{number:02}",
            at - random.choice([0.0, 1.0, 60.0]),
            JobClass(
                random.choice("ab"),
                random.choice(["q0", "q1"]),
                (
                    Role(
                        Request(random.randint(0, 4), random.randint(0, 4), random.choice([0, 1000])),
                        least := random.randint(1, 2),
                        least,
                    ),
                ),
                random.randint(-1, 1),
                random.choice([None, 10]),
                random.choice("uv"),
            ),
            random.choice([None, at + random.randint(-5, 50)]),
        )
        for number in range(first, first + count)
    )


def _with_jobs(random: Random, snapshot: Snapshot, count: int) -> Snapshot:
    pending = _jobs(random, count)
    blocked = tuple(
        BlockedJob(f"b{number}", random.choice("ab"), random.randint(0, 5), (random.choice(pending).id,))
        for number in range(random.randint(0, 2))
    )
    return replace(snapshot, pending=pending, blocked=blocked)


@given(seeds)
@CHEAP
def test_no_plan_goes_beyond_a_quota_a_limit_or_what_pools_lend(seed: int) -> None:
    random = Random(seed)
    snapshot = _with_jobs(random, _clusters(random), random.randint(1, 8))
    classes = {job.id: job.job_class for job in snapshot.pending}
    total = {pool.id: _offered(snapshot, pool.id) for pool in snapshot.pools}
    pools = [replace(pool, nominal=total[pool.id]) for pool in snapshot.pools]
    books = Books(pools, snapshot.accounts, snapshot.queues)
    for placement in plan(snapshot, CONFIG).placements:
        job_class = classes[placement.job_id]
        assert books.allows(job_class, asked(job_class))
        books.running.append((job_class, asked(job_class)))


def _offered(snapshot: Snapshot, pool_id: str) -> Amounts:
    nodes = [node for node in snapshot.nodes if node.pool_id == pool_id]
    return Amounts(
        sum(node.cpu_milli for node in nodes),
        sum(node.memory_bytes for node in nodes),
        sum(1000 * len(node.gpu_milli_free) for node in nodes),
    )


@given(seeds)
@CHEAP
def test_nobody_runs_on_the_nodes_of_a_pool_that_lends_nothing(seed: int) -> None:
    random = Random(seed)
    snapshot = _with_jobs(random, _clusters(random), random.randint(1, 8))
    closed = {pool.id for pool in snapshot.pools if not any(pool.lends)} | {"apart"}
    pool_of = {node.id: node.pool_id for node in snapshot.nodes}
    queue_of = {job.id: job.job_class.queue_id for job in snapshot.pending}
    charged = {queue.id: queue.pool_id for queue in snapshot.queues}
    for placement in plan(snapshot, CONFIG).placements:
        own = charged[queue_of[placement.job_id]]
        for replica in placement.replicas:
            node_pool = pool_of[replica.node_id]
            assert node_pool not in closed or node_pool == own
            assert own or not node_pool


@given(seeds)
def test_planning_the_applied_plan_again_starts_nothing_under_quotas_and_pools(seed: int) -> None:
    random = Random(seed)
    snapshot = _with_jobs(random, _clusters(random), random.randint(1, 8))
    made = plan(snapshot, CONFIG)
    again = plan(applied(replace(snapshot, blocked=()), made), CONFIG)
    assert again.placements == ()


@given(seeds)
def test_the_order_of_rows_changes_nothing_under_quotas_and_pools(seed: int) -> None:
    random = Random(seed)
    snapshot = _with_jobs(random, _clusters(random), random.randint(1, 8))
    shuffled = replace(
        snapshot,
        nodes=_shuffled(random, snapshot.nodes),
        queues=_shuffled(random, snapshot.queues),
        pending=_shuffled(random, snapshot.pending),
        pools=_shuffled(random, snapshot.pools),
        accounts=_shuffled(random, snapshot.accounts),
        blocked=_shuffled(random, snapshot.blocked),
    )
    assert plan(shuffled, CONFIG) == plan(snapshot, CONFIG)


def _shuffled(random: Random, rows: tuple[T, ...]) -> tuple[T, ...]:
    return tuple(random.sample(rows, len(rows)))


@given(seeds)
def test_everybody_who_could_run_alone_runs_in_the_end(seed: int) -> None:
    """Jobs come for a while and all that runs ends between two plans; ageing is on."""
    random = Random(seed)
    empty = _clusters(random)
    config = replace(CONFIG, ageing_per_hour=3600.0)
    waiting: tuple[PendingJob, ...] = ()
    now, known = 1000.0, 0
    for step in range(40):
        arriving = _jobs(random, random.randint(0, 3), known, now) if step < 5 else ()
        known += len(arriving)
        waiting = (*waiting, *arriving)
        begun = {one.job_id for one in plan(replace(empty, now=now, pending=waiting), config).placements}
        waiting = tuple(job for job in waiting if job.id not in begun)
        now += 10.0
        if step >= 5 and not begun:
            break
    for job in waiting:
        assert plan(replace(empty, now=now, pending=(job,)), config).placements == ()


@given(seeds)
@CHEAP
def test_a_line_always_names_the_class_whose_first_job_ranks_first_as_things_stand(seed: int) -> None:
    random = Random(seed)
    queue = Queue("q", "q", policy=random.choice(NAMES), second_policy=random.choice(NAMES))
    jobs = [replace(job, job_class=replace(job.job_class, queue_id="q")) for job in _jobs(random, random.randint(1, 9))]
    lifts = {job.id: Lift(3, 1000.0, "lender") for job in jobs if random.random() < 0.2}
    accounts = (Account("org"), Account("a", "org", 2, random.random()))
    usage = Usage([_node(random, 0)], accounts)
    standing = Standing(usage, CONFIG, lifts)
    line = Line(queue, standing)
    for job in jobs:
        line.add(job)
    line.begin_round()
    rank, untried = rank_of(queue, standing), list(jobs)
    while (group := line.peek()) is not None:
        assert group.head is min(untried, key=rank)
        if random.random() < 0.7:
            untried.remove(group.head)
            usage.charge(group.job_class, asked(group.job_class))
            line.start()
        else:
            untried = [job for job in untried if job.job_class != group.job_class]
            line.skip()
        if random.random() < 0.2:  # another queue starts something
            usage.charge(jobs[0].job_class, asked(jobs[0].job_class))
    assert untried == []


@given(seeds)
@CHEAP
def test_places_in_a_queue_are_those_of_the_whole_order(seed: int) -> None:
    random = Random(seed)
    queue = Queue("q", "q", policy=random.choice(NAMES), second_policy=random.choice(NAMES))
    jobs = [replace(job, job_class=replace(job.job_class, queue_id="q")) for job in _jobs(random, random.randint(1, 9))]
    twins = [replace(job, id=f"{job.id}-twin", submitted_at=job.submitted_at + random.choice([0, 3])) for job in jobs]
    standing = Standing(Usage([_node(random, 0)]), CONFIG)
    line = Line(queue, standing)
    for job in (*jobs, *twins):
        line.add(job)
    order = sorted((*jobs, *twins), key=rank_of(queue, standing))
    for place, group in line.in_order():
        assert order[place - 1] is group.head
