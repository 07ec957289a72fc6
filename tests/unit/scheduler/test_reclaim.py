"""Who gives back what was lent. The rules are Kueue's: KEP-1714, fair sharing."""

from dataclasses import replace

from scheduler.config import Config, Preemption
from scheduler.engine import plan
from scheduler.plan import EvictionKind, Reason
from scheduler.snapshot import Amounts, Node, PendingJob, Pool, Queue, RunningJob, Snapshot
from tests.support.clusters import NOW, a_node, a_snapshot, applied, ended
from tests.support.evictions import runs, victims, wants

CONFIG = Config(preemption=Preemption(min_run_s=300))
QUEUES = [Queue("qa", "a", pool_id="a"), Queue("qb", "b", pool_id="b"), Queue("qc", "c", pool_id="c")]
COHORT = (Pool("all", "all", nominal=Amounts(0, 0, 0)),)


def pool(name: str, gpus: int, *, above: str = "all", weight: int = 1, lends: int | None = None) -> Pool:
    nominal = Amounts(100_000, 2**40, gpus * 1000)
    pool = Pool(name, name, above, weight, nominal)
    return pool if lends is None else replace(pool, lends=nominal._replace(gpu_milli=lends * 1000))


def node(name: str, gpus: int) -> Node:
    """A node that belongs to no pool in particular: books decide who may use it."""
    return a_node(name, gpus=gpus, cpus=32)


def cluster(pools: tuple[Pool, ...], pending: list[PendingJob], running: list[RunningJob], gpus: int = 4) -> Snapshot:
    return replace(a_snapshot([node("n1", gpus)], pending, running=running, queues=QUEUES), pools=COHORT + pools)


HALVES = (pool("a", 2), pool("b", 2), pool("c", 0))


def test_the_owner_takes_back_what_it_lent_whatever_the_priority() -> None:
    running = [runs(f"b{i}", ("n1", [i]), queue="qb", priority=50) for i in range(4)]
    made = plan(cluster(HALVES, [wants("mine", 2, priority=0, queue="qa")], running), CONFIG)
    assert len(made.evictions) == 2
    assert {one.kind for one in made.evictions} == {EvictionKind.RECLAIM}
    assert made.evictions[0].reason.startswith("its pool borrowed what job mine needs and may take back; ")
    assert made.verdicts[0].reason is Reason.ROOM_COMING


def test_the_reclaimed_room_goes_to_its_owner() -> None:
    running = [runs(f"b{i}", ("n1", [i]), queue="qb", priority=50) for i in range(4)]
    snapshot = cluster(HALVES, [wants("mine", 2, priority=0, queue="qa")], running)
    made = plan(snapshot, CONFIG)
    after = applied(snapshot, made)
    assert plan(after, CONFIG).evictions == ()
    then = plan(ended(after, *victims(made)), CONFIG)
    assert [one.job_id for one in then.placements] == ["mine"]


def test_only_as_much_is_taken_back_as_is_needed_and_lent() -> None:
    running = [runs(f"b{i}", ("n1", [i]), queue="qb") for i in range(4)]
    made = plan(cluster(HALVES, [wants(f"m{i}", 1, priority=0, queue="qa", at=i) for i in range(4)], running), CONFIG)
    assert len(made.evictions) == 2
    assert sorted(one.for_job_id for one in made.evictions) == ["m0", "m1"]


def test_a_pool_within_its_own_gives_nothing_to_an_equal_priority() -> None:
    running = [runs(f"b{i}", ("n1", [i]), queue="qb") for i in range(2)]
    running += [runs(f"a{i}", ("n1", [i + 2]), queue="qa") for i in range(2)]
    made = plan(cluster(HALVES, [wants("more", 1, priority=0, queue="qa")], running), CONFIG)
    assert made.evictions == ()


def test_where_both_borrow_only_one_that_still_owes_as_much_gives_up_something() -> None:
    # Rule a. Of six GPUs c, whose they are, uses none; a has borrowed two, b four: taking one leaves both with three.
    pools = (pool("a", 0), pool("b", 0), pool("c", 6))
    running = [runs(f"a{i}", ("n1", [i]), queue="qa") for i in range(2)]
    running += [runs(f"b{i}", ("n1", [i + 2]), queue="qb", priority=9) for i in range(4)]
    third = wants("third", 1, priority=0, queue="qa")
    made = plan(cluster(pools, [third], running, gpus=6), CONFIG)
    assert [(one.kind, one.job_id[0]) for one in made.evictions] == [(EvictionKind.RECLAIM, "b")]
    assert plan(cluster(pools, [wants("two", 2, priority=0, queue="qa")], running, gpus=6), CONFIG).evictions == ()


def test_the_initial_share_counts_where_the_final_one_helps_nobody() -> None:
    # Rule b. The one large job of b owes six; taking it leaves b with nothing, but a would owe only three.
    pools = (pool("a", 0), pool("b", 0), pool("c", 8))
    running = [runs(f"a{i}", ("n1", [i]), queue="qa") for i in range(2)]
    running += [runs("large", ("n1", range(2, 8)), queue="qb")]
    made = plan(cluster(pools, [wants("third", 1, priority=0, queue="qa")], running, gpus=8), CONFIG)
    assert [(one.kind, one.job_id) for one in made.evictions] == [(EvictionKind.RECLAIM, "large")]


def test_the_biggest_debtor_gives_first() -> None:
    pools = (pool("a", 4), pool("b", 0), pool("c", 0))
    running = [runs("b0", ("n1", [0]), queue="qb", priority=0)]
    running += [runs(f"c{i}", ("n1", [i]), queue="qc", priority=9) for i in (1, 2, 3)]
    made = plan(cluster(pools, [wants("mine", 1, priority=0, queue="qa")], running), CONFIG)
    assert victims(made) < {"c1", "c2", "c3"}


def test_a_heavier_pool_owes_less() -> None:
    pools = (pool("a", 4), pool("b", 0), pool("c", 0, weight=9))
    running = [runs("b0", ("n1", [0]), queue="qb", priority=9)]
    running += [runs(f"c{i}", ("n1", [i]), queue="qc", priority=0) for i in (1, 2, 3)]
    made = plan(cluster(pools, [wants("mine", 1, priority=0, queue="qa")], running), CONFIG)
    assert victims(made) == {"b0"}


def test_pools_that_nest_are_compared_where_their_ways_meet() -> None:
    # b and c lie below x, which is within its own: what c lent to b is no business of a's.
    pools = (
        pool("a", 2),
        Pool("x", "x", "all", nominal=Amounts(0, 0, 0)),
        pool("b", 0, above="x"),
        pool("c", 2, above="x"),
    )
    inside = [runs(f"b{i}", ("n1", [i]), queue="qb") for i in range(2)]
    own = [runs(f"a{i}", ("n1", [i + 2]), queue="qa") for i in range(2)]
    assert plan(cluster(pools, [wants("more", 1, priority=0, queue="qa")], inside + own), CONFIG).evictions == ()
    made = plan(cluster(pools, [wants("mine", 1, priority=0, queue="qc")], inside + own), CONFIG)
    assert victims(made) < {"b0", "b1"}


def test_a_protected_borrower_stays() -> None:
    running = [runs(f"b{i}", ("n1", [i]), queue="qb", since=NOW - 10) for i in range(4)]
    made = plan(cluster(HALVES, [wants("mine", 2, priority=0, queue="qa")], running), CONFIG)
    assert made.evictions == ()


def test_switched_off_nothing_is_taken_back() -> None:
    running = [runs(f"b{i}", ("n1", [i]), queue="qb") for i in range(4)]
    snapshot = cluster(HALVES, [wants("mine", 2, priority=0, queue="qa")], running)
    assert plan(snapshot, replace(CONFIG, reclaim=False)).evictions == ()


def test_a_quota_is_cleared_even_where_room_is_free() -> None:
    # Four of eight GPUs are free, but the books say they are all lent: the owner need not wait.
    running = [runs(f"b{i}", ("n1", [i]), queue="qb") for i in range(4)]
    made = plan(cluster(HALVES, [wants("mine", 1, priority=0, queue="qa")], running, gpus=8), CONFIG)
    assert len(made.evictions) == 1
    assert made.evictions[0].kind is EvictionKind.RECLAIM


def test_a_borrower_on_nodes_of_two_models_goes_once() -> None:
    nodes = [a_node("n1", gpus=1, cpus=32), a_node("n2", gpus=1, cpus=32, model="a100"), node("n3", 2)]
    running = [runs("b", ("n1", [0]), ("n2", [0]), queue="qb")]
    pools = (*COHORT, pool("a", 2), pool("b", 0), pool("c", 0))
    snapshot = replace(
        a_snapshot(nodes, [wants("mine", 2, priority=0, queue="qa")], running=running, queues=QUEUES), pools=pools
    )
    assert [one.job_id for one in plan(snapshot, CONFIG).evictions] == ["b"]


def test_a_quota_is_cleared_also_where_nobody_is_on_the_node_with_room() -> None:
    nodes = [node("n1", 4), node("n2", 1)]
    running = [runs(f"b{i}", ("n1", [i]), queue="qb") for i in range(4)]
    snapshot = a_snapshot(nodes, [wants("mine", 1, priority=0, queue="qa")], running=running, queues=QUEUES)
    made = plan(replace(snapshot, pools=COHORT + HALVES), CONFIG)
    assert [one.kind for one in made.evictions] == [EvictionKind.RECLAIM]


def test_an_owner_of_low_priority_and_a_borrower_of_high_priority_do_not_send_each_other_away_again_and_again() -> None:
    """Whoever is told to go waits again, and nobody else comes: one change of places settles it.

    A third pool lends as well, so that the books let both have one; there is but one.
    """
    pools = (pool("a", 1), pool("b", 0), pool("c", 1))
    borrower, owner = runs("borrower", ("n1", [0]), queue="qb", priority=10), wants("owner", 1, priority=0, queue="qa")
    present = cluster(pools, [owner], [borrower], gpus=1)
    went: list[str] = []
    for _ in range(12):
        made = plan(present, CONFIG)
        went += sorted(victims(made))
        after = applied(present, made)
        gone = [job for job in after.running if job.releasing_at is not None]
        again = tuple(PendingJob(job.id, job.started_at, job.job_class) for job in gone)
        later = ended(after, *(job.id for job in gone))
        present = replace(later, pending=(*later.pending, *again), now=later.now + 400)
    assert went in ([], ["borrower"])
