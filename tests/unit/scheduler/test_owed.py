"""Room that is kept for who it was made for: as long as it may have it, and no longer."""

from dataclasses import replace

from scheduler.config import Config
from scheduler.engine import Planner, plan
from scheduler.plan import Reason
from scheduler.snapshot import Account, Amounts, Constraints, Holding, PendingJob, Pool, Queue, Snapshot
from tests.support.clusters import (
    GIB,
    NOW,
    a_holding,
    a_job,
    a_node,
    a_request,
    a_running,
    a_snapshot,
    applied,
    ended,
    started,
    verdicts,
)
from tests.support.evictions import in_domain, runs, victims, wants


def owed(job: PendingJob, *nodes: str) -> PendingJob:
    """The job with a CPU and a GiB promised to it on each of these nodes."""
    return replace(job, owed=tuple(Holding(f"id-{node}", 1000, GIB) for node in nodes))


def test_a_job_whose_quota_is_coming_waits_for_it_beside_room_that_is_free() -> None:
    ending = replace(a_running("r", a_holding("n1")), releasing_at=NOW + 10)
    accounts = (Account("p", most=Amounts(cpu_milli=1000)),)
    snapshot = replace(a_snapshot([a_node()], [a_job()], running=[ending]), accounts=accounts)
    made = plan(snapshot, Config())
    assert made.placements == ()
    assert made.verdicts[0].reason is Reason.ROOM_COMING
    assert started(ended(applied(snapshot, made), "r")) == ["j1"]


def test_who_waits_for_a_quota_alone_is_promised_a_start_when_enough_of_it_has_been_given_back() -> None:
    """Room is free all the while; of those who leave the second one gives back what is missing."""
    leavers = [replace(a_running(f"r{at}", a_holding("n1")), releasing_at=NOW + at) for at in (30, 10, 20)]
    accounts = (Account("p", most=Amounts(cpu_milli=3000)),)
    job = a_job("wide", a_request(cpus=2))
    made = plan(replace(a_snapshot([a_node()], [job], running=leavers), accounts=accounts), Config())
    assert (made.placements, made.evictions) == ((), ())
    assert [(one.job_id, one.starts_at) for one in made.promises] == [("wide", NOW + 20)]
    assert made.verdicts[0].starts_at == NOW + 20


def test_of_two_who_wait_for_a_quota_each_is_promised_what_the_other_leaves() -> None:
    leavers = [replace(a_running(f"r{at}", a_holding("n1")), releasing_at=NOW + at) for at in (10, 20)]
    accounts = (Account("p", most=Amounts(cpu_milli=2000)),)
    snapshot = a_snapshot([a_node()], [a_job("one"), a_job("two", at=1.0)], running=leavers)
    made = plan(replace(snapshot, accounts=accounts), Config())
    assert [(one.job_id, one.starts_at) for one in made.promises] == [("one", NOW + 10), ("two", NOW + 20)]


def test_who_moves_to_room_that_is_free_goes_on_there_when_it_has_ended_here() -> None:
    half = [runs(f"r{number}", (f"n{number}", [0]), checkpointable=True, priority=10) for number in range(2)]
    nodes = [a_node("n0", gpus=2), a_node("n1", gpus=2)]
    made = plan(a_snapshot(nodes, [wants("pair", 2, limit=9000)], running=half), Config())
    (mover,) = victims(made)
    assert {one.job_id: one.starts_at for one in made.promises} == {"pair": NOW + 60, mover: NOW + 60}


def test_who_is_overdue_gives_back_no_quota_that_one_could_count_on() -> None:
    stuck = replace(a_running("r", a_holding("n1")), releasing_at=NOW - 61)
    accounts = (Account("p", most=Amounts(cpu_milli=1000)),)
    snapshot = replace(a_snapshot([a_node()], [a_job()], running=[stuck]), accounts=accounts)
    assert verdicts(snapshot)["j1"].reason is Reason.QUOTA


def test_a_queue_that_was_paused_since_starts_nobody() -> None:
    snapshot = a_snapshot([a_node()], [owed(a_job(), "n1")], queues=[Queue("q", "default", paused=True)])
    assert started(snapshot) == []


def test_whose_limits_were_cut_since_is_owed_nothing_any_more() -> None:
    accounts = (Account("p", most=Amounts(cpu_milli=8000)),)
    full = [a_running("r", a_holding("n2", cpus=8))]
    nodes = [a_node("n1"), a_node("n2")]
    snapshot = replace(a_snapshot(nodes, [owed(a_job(), "n2")], running=full), accounts=accounts)
    made = plan(snapshot, Config())
    assert [promise.job_id for promise in made.promises if promise.holdings] == []
    assert made.verdicts[0].reason is Reason.QUOTA


def test_room_that_is_found_elsewhere_for_who_is_owed_is_used_at_once() -> None:
    nodes = [a_node("n1", cpus=1), in_domain(a_node("n2", cpus=1), "zone")]
    constraints = Constraints(within="zone", within_required=True)
    first, second = a_job("first", at=1), owed(a_job("second", at=2), "n1")
    jobs = [replace(job, job_class=replace(job.job_class, constraints=constraints)) for job in (first, second)]
    snapshot = replace(a_snapshot(nodes, jobs), levels=("zone",))
    assert started(snapshot) == ["second"]


def test_what_must_lie_in_one_domain_is_no_longer_owed_in_two() -> None:
    nodes = [in_domain(a_node("n1", cpus=1), "zone1"), in_domain(a_node("n2", cpus=1), "zone2")]
    gang = owed(a_job(replicas=2), "n1", "n2")
    constraints = Constraints(within="zone", within_required=True)
    gang = replace(gang, job_class=replace(gang.job_class, constraints=constraints))
    assert started(replace(a_snapshot(nodes, [gang]), levels=("zone",))) == []


def test_a_job_does_not_borrow_by_what_it_is_owed_itself() -> None:
    nodes = [replace(a_node("n1", cpus=1), pool_id="root"), replace(a_node("n2", cpus=1), pool_id="own")]
    pools = (Pool("root", "root"), Pool("own", "own", "root"))
    queues = [Queue("q", "default", pool_id="own")]
    snapshot = replace(a_snapshot(nodes, [owed(a_job(), "n1")], queues=queues), pools=pools)
    (placement,) = plan(snapshot, Config()).placements
    assert [one.node_id for one in placement.replicas] == ["id-n2"]


def test_whoever_must_be_alone_is_not_spared_beside_whom_it_makes_room_for() -> None:
    alone = Constraints(exclusive=True)
    elastic = runs("elastic", ("n1", [3]), ("n2", [2]), ("n2", [3]), least=1, priority=10)
    elastic = replace(elastic, job_class=replace(elastic.job_class, constraints=alone))
    snapshot = a_snapshot([a_node("n1", gpus=4), a_node("n2", gpus=4)], [wants("j", 1)], running=[elastic])
    made = plan(snapshot, Config())
    (resize,) = made.resizes
    assert resize.removed in {(0,), (1, 2)}
    again = plan(applied(snapshot, made), Config())
    assert (again.placements, again.evictions, again.resizes) == ((), (), ())


def test_room_beside_one_that_must_be_alone_is_due_when_that_one_has_gone() -> None:
    low = runs("low", ("n1", [3]))
    low = replace(low, job_class=replace(low.job_class, constraints=Constraints(exclusive=True)))
    made = plan(a_snapshot([a_node(gpus=4)], [wants("j", 1)], running=[low]), Config())
    assert victims(made) == {"low"}
    assert made.promises[0].starts_at == NOW + 60


def test_under_conservative_backfill_what_was_promised_before_is_kept_and_promised_once() -> None:
    config = Config(reserved_heads=None)
    running = [a_running("r", a_holding("n1"))]
    waiting = a_snapshot([a_node(cpus=1)], [owed(a_job(), "n1")], running=[replace(running[0], releasing_at=NOW + 10)])
    assert [promise.job_id for promise in plan(waiting, config).promises] == ["j1"]
    assert started(ended(waiting, "r"), config) == ["j1"]


def test_under_conservative_backfill_a_kept_planner_starts_who_is_owed_too() -> None:
    snapshot: Snapshot = a_snapshot(
        [a_node(cpus=2)], [a_job("a", a_request(cpus=2), limit=10), a_job("b", at=1, limit=5)]
    )
    planner = Planner(snapshot, Config(second_policy="fifo", reserved_heads=None))
    assert [one.job_id for one in planner.plan(NOW).placements] == ["a"]
    planner.end("a")
    planner.submit(owed(a_job("c", at=2, limit=5), "n1"))
    assert [one.job_id for one in planner.plan(NOW + 1).placements] == ["c", "b"]
