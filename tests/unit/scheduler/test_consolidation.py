"""Who moves so that a large job fits at one place, and when nobody does."""

from dataclasses import replace

import pytest

from scheduler.config import Config, Preemption
from scheduler.engine import plan
from scheduler.plan import EvictionKind, Plan, Reason
from scheduler.snapshot import Constraints, Node, Reservation, RunningJob, Snapshot
from tests.support.clusters import NOW, a_holding, a_node, a_snapshot, applied, ended
from tests.support.evictions import runs, victims, wants, whole

CONFIG = Config(restart_s=120, preemption=Preemption(min_run_s=300, grace_s=60))
HALVES = [a_node("n0", gpus=2), a_node("n1", gpus=2)]


def mover(name: str, node: str, *devices: int, priority: int = 10, since: float = 0.0) -> RunningJob:
    """A job as important as the one that waits, which goes on from its checkpoint."""
    return runs(name, (node, devices or (0,)), priority=priority, since=since, checkpointable=True)


def pair(running: list[RunningJob], nodes: list[Node] | None = None, limit: int | None = 9000) -> Snapshot:
    """One that needs two devices of one node waits."""
    return a_snapshot(nodes or HALVES, [wants("pair", 2, limit=limit)], running=running)


def moved(made: Plan) -> dict[str, tuple[str, ...]]:
    """Where those go who are told to move."""
    assert {one.kind for one in made.evictions} <= {EvictionKind.CONSOLIDATE}
    places = {promise.job_id: promise.node_ids for promise in made.promises}
    return {one.job_id: places[one.job_id] for one in made.evictions}


def test_one_of_two_half_full_nodes_is_cleared_and_its_job_has_its_new_place_before_it_is_told() -> None:
    snapshot = pair([mover("a", "n0"), mover("b", "n1")])
    made = plan(snapshot, CONFIG)
    assert len(moved(made)) == 1
    (eviction,) = made.evictions
    assert (eviction.grace_s, eviction.checkpoint, eviction.for_job_id) == (60, True, "pair")
    assert eviction.reason == "goes on elsewhere, so that job pair fits at one place"
    assert made.verdicts[0].reason is Reason.ROOM_COMING
    after = ended(applied(snapshot, made), eviction.job_id)
    stopped = next(job for job in applied(snapshot, made).running if job.id == eviction.job_id)
    waits_again = replace(wants(stopped.id, 1), job_class=stopped.job_class, owed=stopped.owed)
    then = plan(replace(after, pending=(*after.pending, waits_again), now=NOW + 60), CONFIG)
    where = {one.job_id: one.replicas[0].node_id for one in then.placements}
    assert where.keys() == {"pair", eviction.job_id}
    assert where["pair"] != where[eviction.job_id]


@pytest.mark.parametrize(
    "fixed",
    [
        runs("r", ("n0", [0]), priority=10),
        mover("r", "n0", priority=11),
        mover("r", "n0", since=NOW - 299),
        replace(mover("r", "n0"), preemptions=3),
        replace(mover("r", "n0"), job_class=replace(mover("r", "n0").job_class, preemptible=False)),
    ],
    ids=["does not checkpoint", "more important", "just started", "moved too often", "not preemptible"],
)
def test_who_may_not_move_stays_and_the_other_moves_over(fixed: RunningJob) -> None:
    assert moved(plan(pair([fixed, mover("b", "n1")]), CONFIG)) == {"b": ("id-n0",)}
    assert (
        plan(pair([fixed, replace(fixed, id="s", holdings=(a_holding("n1", gpus=whole(0)),))]), CONFIG).evictions == ()
    )


def test_nobody_moves_where_not_every_mover_has_a_new_place() -> None:
    # Three devices are free and two must move for one node to be clear of them: elsewhere there is one.
    nodes = [a_node("n0", gpus=3), a_node("n1", gpus=3)]
    running = [mover("a", "n0", 0), mover("b", "n0", 1), mover("c", "n1", 0), mover("d", "n1", 1)]
    snapshot = a_snapshot(nodes, [wants("three", 3, limit=9000)], running=running)
    assert plan(snapshot, CONFIG).evictions == ()
    roomier = a_snapshot([*nodes, a_node("n2", gpus=1)], [wants("three", 3, limit=9000)], running=running)
    assert len(moved(plan(roomier, CONFIG))) == 2


def test_nobody_moves_to_where_its_constraints_keep_it_away() -> None:
    here = mover("a", "n0")
    tied = replace(here, job_class=replace(here.job_class, constraints=Constraints(spot=False)))
    fixed = runs("b", ("n1", [0]), priority=10)
    nodes = [HALVES[0], replace(HALVES[1], spot=True)]
    assert plan(pair([tied, fixed], nodes), CONFIG).evictions == ()
    assert moved(plan(pair([here, fixed], nodes), CONFIG)) == {"a": ("id-n1",)}


def test_nobody_moves_to_room_that_is_booked() -> None:
    running = [mover("a", "n0"), runs("b", ("n1", [0]), priority=10)]
    booked = Reservation("booked", "other", NOW + 10, NOW + 9999, (a_holding("n1", gpus=whole(1)),))
    assert plan(replace(pair(running), reservations=(booked,)), CONFIG).evictions == ()
    assert moved(plan(pair(running), CONFIG)) == {"a": ("id-n1",)}


@pytest.mark.parametrize(("limit", "moves"), [(60, 0), (61, 1)])
def test_what_the_waiting_one_does_must_be_more_than_what_the_movers_do_not_do_meanwhile(
    limit: int, moves: int
) -> None:
    # Two devices for a minute are what one loses by two minutes of restart; what is gained by its CPUs is as in vain.
    assert len(plan(pair([mover("a", "n0"), mover("b", "n1")], limit=limit), CONFIG).evictions) == moves


def test_the_node_is_cleared_where_least_must_move() -> None:
    nodes = [a_node("n0", gpus=4), a_node("n1", gpus=4)]
    running = [mover("a", "n0", 0), mover("b", "n1", 0, 1)]
    snapshot = a_snapshot(nodes, [wants("four", 4, limit=9000)], running=running)
    assert moved(plan(snapshot, CONFIG)) == {"a": ("id-n1",)}


def test_where_some_can_move_nobody_must_end() -> None:
    low = runs("low", ("n1", [0]), priority=0)
    assert moved(plan(pair([mover("a", "n0"), low]), CONFIG)) == {"a": ("id-n1",)}
    apart = plan(pair([runs("x", ("n0", [0]), priority=10), low]), CONFIG)
    assert [(one.job_id, one.kind) for one in apart.evictions] == [("low", EvictionKind.PREEMPT)]


def test_scattered_room_is_as_good_as_any_for_a_share_of_a_device_so_nobody_moves() -> None:
    nodes = [a_node("n0", gpus=1), a_node("n1", gpus=1)]
    running = [mover("a", "n0"), mover("b", "n1")]
    assert plan(a_snapshot(nodes, [wants("c", 1, limit=9000)], running=running), CONFIG).evictions == ()


def test_who_is_on_the_way_is_not_sent_elsewhere() -> None:
    snapshot = pair([mover("a", "n0"), mover("b", "n1")])
    after = applied(snapshot, plan(snapshot, CONFIG))
    again = plan(after, CONFIG)
    assert (again.evictions, again.placements) == ((), ())
    assert {one.job_id for one in again.promises if one.holdings} == {"pair", *victims(plan(snapshot, CONFIG))}


def test_switched_off_nobody_moves() -> None:
    snapshot = pair([mover("a", "n0"), mover("b", "n1")])
    assert plan(snapshot, replace(CONFIG, consolidate=False)).evictions == ()
