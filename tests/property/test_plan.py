"""What holds for every plan, whatever the cluster and whoever waits."""

from collections import Counter
from dataclasses import replace
from math import inf
from random import Random
from typing import TypeVar

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from scheduler.backfill import Guard
from scheduler.config import Config, Preemption
from scheduler.engine import Planner, plan
from scheduler.forecast import claim
from scheduler.gang import needed, place_gang
from scheduler.ledger import Ledger
from scheduler.placement.rooms import Grant
from scheduler.plan import Reason
from scheduler.policies import POLICIES
from scheduler.snapshot import (
    Account,
    Holding,
    JobClass,
    Node,
    PendingJob,
    Queue,
    Request,
    Role,
    RunningJob,
    Snapshot,
)
from tests.support.clusters import NOW, applied, given_back, without

T = TypeVar("T")

UNBOUNDED = Config(max_placements=1000)
PEACEFUL = replace(UNBOUNDED, preemption=Preemption(enabled=False), consolidate=False)
MODELS = ("a100", "h100")
POLICY_NAMES = ("", *sorted(POLICIES))

requests = st.builds(
    Request,
    cpu_milli=st.integers(0, 4000),
    memory_bytes=st.integers(0, 6),
    gpu_milli=st.sampled_from([0, 0, 250, 500, 700, 1000, 1000, 2000, 3000]),
    gpu_models=st.sampled_from([(), *((model,) for model in MODELS), MODELS]),
)
roles = st.builds(lambda request, size: Role(request, size, size), requests, st.sampled_from([1, 1, 1, 2, 3]))
limits = st.none() | st.integers(1, 100)


@st.composite
def empty_nodes(draw: st.DrawFn) -> list[Node]:
    nodes = []
    for number in range(draw(st.integers(0, 6))):
        devices = draw(st.integers(0, 4))
        cpu_milli, memory_bytes = draw(st.integers(0, 8000)), draw(st.integers(0, 12))
        nodes.append(
            Node(
                id=f"id{number}",
                name=draw(st.sampled_from("xyz")),
                ready=draw(st.integers(0, 9)) > 0,
                cpu_milli=cpu_milli,
                memory_bytes=memory_bytes,
                cpu_milli_free=cpu_milli,
                memory_bytes_free=memory_bytes,
                gpu_model=draw(st.sampled_from(MODELS)) if devices else "",
                gpu_milli_free=(1000,) * devices,
            )
        )
    return nodes


@st.composite
def snapshots(draw: st.DrawFn, *, queues: int = 3, exact: bool = False) -> Snapshot:
    """A cluster with jobs that really run on it; `exact`: one open queue, everything has a limit."""
    nodes, running = _run_some(draw, draw(empty_nodes()), queues, exact=exact)
    names = [f"q{number}" for number in range(queues)]
    pending = tuple(
        PendingJob(
            f"j{number:02}",
            float(draw(st.integers(0, 9))),
            JobClass(
                project_id=draw(st.sampled_from("ab")),
                queue_id=draw(st.sampled_from(names)),
                priority=draw(st.integers(0, 1)),
                roles=(draw(roles),),
                time_limit_s=draw(st.integers(1, 100) if exact else limits),
            ),
        )
        for number in range(draw(st.integers(0, 12)))
    )
    lines = tuple(
        Queue(
            name,
            name,
            paused=not exact and draw(st.integers(0, 9)) == 0,
            weight=draw(st.integers(1, 3)),
            policy=draw(st.sampled_from(POLICY_NAMES)),
        )
        for name in names
    )
    return Snapshot(
        NOW, nodes, lines, pending, running, accounts=(Account("a", used=draw(st.sampled_from([0.0, 0.3]))),)
    )


def _run_some(
    draw: st.DrawFn, nodes: list[Node], queues: int, *, exact: bool
) -> tuple[tuple[Node, ...], tuple[RunningJob, ...]]:
    ledger = Ledger(nodes)
    running = []
    for number in range(draw(st.integers(0, 8))):
        queue = f"q{draw(st.integers(0, queues - 1))}"
        job_class = JobClass(draw(st.sampled_from("ab")), queue, (draw(roles),))
        grants = place_gang(ledger, job_class, Guard((), inf))
        if len(grants) == needed(job_class):
            ends_by = NOW + draw(st.integers(-5 if not exact else 1, 90)) if exact or draw(st.booleans()) else None
            holdings = tuple(
                Holding(ledger.nodes[one.number].id, one.cpu_milli, one.memory_bytes, one.gpus) for one in grants
            )
            running.append(RunningJob(f"r{number}", job_class, holdings, ends_by=ends_by))
    held = [holding for job in running for holding in job.holdings]
    return tuple(without(node, held) for node in nodes), tuple(running)


def slots(node: Node, request: Request, most: int) -> int:
    """Count the replicas that fit on a node, written apart from the code under test."""
    if not node.ready or (request.gpu_milli and request.gpu_models and node.gpu_model not in request.gpu_models):
        return 0
    if request.gpu_milli >= 1000:
        most = min(most, sum(milli == 1000 for milli in node.gpu_milli_free) * 1000 // request.gpu_milli)
    elif request.gpu_milli:
        most = min(most, sum(milli // request.gpu_milli for milli in node.gpu_milli_free))
    while most and (
        most * request.cpu_milli > node.cpu_milli_free or most * request.memory_bytes > node.memory_bytes_free
    ):
        most -= 1
    return most


def fits(snapshot: Snapshot, job_class: JobClass) -> bool:
    (role,) = job_class.roles
    return sum(slots(node, role.request, role.least) for node in snapshot.nodes) >= role.least


@given(snapshots())
def test_no_device_cpu_or_memory_is_given_beyond_what_is_free(snapshot: Snapshot) -> None:
    made = plan(snapshot, UNBOUNDED)
    after = applied(snapshot, made)  # fails where anything falls below zero
    ready = {node.id for node in after.nodes if node.ready}
    assert all(one.node_id in ready for placement in made.placements for one in placement.replicas)


@given(snapshots())
def test_every_replica_gets_what_was_asked_for_and_gangs_start_whole(snapshot: Snapshot) -> None:
    roles_of = {job.id: job.job_class.roles[0] for job in snapshot.pending}
    models = {node.id: node.gpu_model for node in snapshot.nodes}
    for placement in plan(snapshot, UNBOUNDED).placements:
        role = roles_of[placement.job_id]
        request = role.request
        assert [one.index for one in placement.replicas] == list(range(role.least))
        for one in placement.replicas:
            assert sum(milli for _, milli in one.gpus) == request.gpu_milli
            assert len({device for device, _ in one.gpus}) == -(-request.gpu_milli // 1000)
            assert not request.gpu_milli or not request.gpu_models or models[one.node_id] in request.gpu_models


@given(snapshots(), st.integers(0, 4))
def test_every_pending_job_is_in_exactly_one_of_placements_and_verdicts(snapshot: Snapshot, bound: int) -> None:
    made = plan(snapshot, Config(max_placements=bound))
    answered = Counter(
        [one.job_id for one in made.placements] + [job_id for one in made.verdicts for job_id in one.job_ids]
    )
    assert answered == Counter(job.id for job in snapshot.pending)
    assert len(made.placements) <= bound


@given(snapshots())
def test_the_classes_of_a_queue_have_places_of_their_own_from_the_first_on(snapshot: Snapshot) -> None:
    classes = {job.id: job.job_class for job in snapshot.pending}
    places: dict[str, dict[int, int]] = {}
    for verdict in plan(snapshot, UNBOUNDED).verdicts:
        queue = places.setdefault(classes[verdict.job_ids[0]].queue_id, {})
        assert verdict.position not in queue
        queue[verdict.position] = len(verdict.job_ids)
    for queue in places.values():
        assert min(queue) == 1
        assert max(queue) <= sum(queue.values())


@given(snapshots(), st.data())
def test_a_planner_told_of_changes_plans_as_if_read_anew(snapshot: Snapshot, data: st.DataObject) -> None:
    first = snapshot.pending[: data.draw(st.integers(0, len(snapshot.pending)), "known at first")]
    planner = Planner(replace(snapshot, pending=first), UNBOUNDED)
    present = replace(snapshot, pending=first)
    for job in snapshot.pending[len(first) :]:
        made = planner.plan(present.now)
        assert made == plan(present, UNBOUNDED)
        present = replace(applied(present, made), now=present.now + 1)
        present = _end_or_withdraw(planner, present, data)
        planner.submit(job)
        present = replace(present, pending=(*present.pending, job))
    assert planner.plan(present.now) == plan(present, UNBOUNDED)


def _end_or_withdraw(planner: Planner, snapshot: Snapshot, data: st.DataObject) -> Snapshot:
    if data.draw(st.booleans(), "one ends") and snapshot.running:
        gone = data.draw(st.sampled_from(snapshot.running))
        planner.end(gone.id)
        back = [given_back(holding) for holding in gone.holdings]
        nodes = tuple(without(node, back) for node in snapshot.nodes)
        return replace(snapshot, nodes=nodes, running=tuple(job for job in snapshot.running if job is not gone))
    if data.draw(st.booleans(), "one is withdrawn") and snapshot.pending:
        gone_job = data.draw(st.sampled_from(snapshot.pending))
        planner.withdraw(gone_job.id)
        return replace(snapshot, pending=tuple(job for job in snapshot.pending if job is not gone_job))
    return snapshot


@given(snapshots(), st.randoms(use_true_random=False))
def test_shuffled_rows_give_the_same_plan(snapshot: Snapshot, random: Random) -> None:
    shuffled = replace(
        snapshot,
        nodes=_shuffled(snapshot.nodes, random),
        queues=_shuffled(snapshot.queues, random),
        pending=_shuffled(snapshot.pending, random),
        running=_shuffled(snapshot.running, random),
    )
    assert plan(snapshot, UNBOUNDED) == plan(shuffled, UNBOUNDED)


def _shuffled(rows: tuple[T, ...], random: Random) -> tuple[T, ...]:
    return tuple(random.sample(rows, len(rows)))


@given(snapshots())
def test_no_job_is_left_that_fits_and_delays_no_reservation(snapshot: Snapshot) -> None:
    made = plan(snapshot, UNBOUNDED)
    after = applied(snapshot, made)
    classes = {job.id: job.job_class for job in snapshot.pending}
    waiting = {job_id for verdict in made.verdicts for job_id in verdict.job_ids}
    for verdict in made.verdicts:
        fitting = fits(after, classes[verdict.job_ids[0]])
        if verdict.reason is Reason.BEHIND_HEAD:
            assert fitting
            own = verdict.message.startswith("would delay job ")
            assert own == any(f"job {job_id}," in verdict.message for job_id in waiting)
            assert own or verdict.message == "would delay a job of another project, the head of its queue"
        # One that fits, but would delay a reservation, may have others go for it, so that it delays none.
        elif verdict.reason not in (Reason.QUEUE_PAUSED, Reason.ROOM_COMING):
            assert not fitting


@given(snapshots(), st.booleans())
def test_planning_the_applied_plan_again_starts_nothing(snapshot: Snapshot, backfill: bool) -> None:
    config = replace(UNBOUNDED, backfill=backfill)
    made = plan(snapshot, config)
    again = plan(applied(snapshot, made), config)
    assert again.placements == ()
    assert again.verdicts == made.verdicts


@given(snapshots())
def test_of_a_class_the_older_never_waits_while_the_younger_starts(snapshot: Snapshot) -> None:
    jobs = {job.id: job for job in snapshot.pending}
    made = plan(snapshot, UNBOUNDED)
    for placement in made.placements:
        young = jobs[placement.job_id]
        for verdict in made.verdicts:
            old = jobs[verdict.job_ids[0]]
            alike = replace(old, id=young.id, submitted_at=young.submitted_at) == young
            assert not (alike and (old.submitted_at, old.id) < (young.submitted_at, young.id))


@given(snapshots(queues=1, exact=True))
@settings(max_examples=200)
def test_backfilled_jobs_never_delay_the_head(snapshot: Snapshot) -> None:
    # Fair share ranks anew as jobs start, so that another may become the head.
    snapshot = replace(snapshot, queues=tuple(replace(queue, policy="fifo") for queue in snapshot.queues))
    strict = plan(snapshot, replace(PEACEFUL, backfill=False))
    promised = {one.job_ids[0]: one.starts_at for one in strict.verdicts if one.starts_at is not None}
    assume(promised)
    ((head, starts_at),) = promised.items()
    made = plan(snapshot, PEACEFUL)
    assert {one.job_ids[0]: one.starts_at for one in made.verdicts}[head] == starts_at
    assert _fits_at(applied(snapshot, made), head, starts_at)


def _fits_at(snapshot: Snapshot, job_id: str, at: float) -> bool:
    """Let everything that ends until then end, on paper, and see whether the job has room."""
    ended = [job for job in snapshot.running if job.ends_by is not None and job.ends_by <= at]
    nodes = snapshot.nodes
    for job in ended:
        back = [given_back(holding) for holding in job.holdings]
        nodes = tuple(without(node, back) for node in nodes)
    (job_class,) = (job.job_class for job in snapshot.pending if job.id == job_id)
    return fits(replace(snapshot, nodes=nodes), job_class)


@given(snapshots())
def test_a_reserved_job_fits_the_nodes_it_was_promised(snapshot: Snapshot) -> None:
    planner = Planner(snapshot, UNBOUNDED)
    for job in snapshot.pending:
        (role,) = job.job_class.roles
        owed = claim(job, planner.ledger, planner.releases(), (), NOW)
        if owed is not None:
            assert sum(count for (count,) in owed.counts.values()) == role.least == len(owed.grants)
            assert all(owed.rooms[number].slots(role.request) >= count for number, (count,) in owed.counts.items())


@given(snapshots(), st.lists(st.tuples(requests, st.booleans()), max_size=12), st.integers(0, 12))
def test_rolling_back_restores_the_ledger_exactly(
    snapshot: Snapshot, changes: list[tuple[Request, bool]], kept: int
) -> None:
    ledger = Ledger(snapshot.nodes)
    held: list[Grant] = []
    for request, gives in changes[:kept]:
        _change(ledger, held, request, gives=gives)
    before, mark = _state(ledger), ledger.mark()
    for request, gives in changes[kept:]:
        _change(ledger, held, request, gives=gives)
    ledger.rollback(mark)
    assert _state(ledger) == before


def _change(ledger: Ledger, held: list[Grant], request: Request, *, gives: bool) -> None:
    if gives and held:
        ledger.give(held.pop())
    else:
        held.extend(place_gang(ledger, JobClass("p", "q", (Role(request),)), Guard((), inf)))


def _state(ledger: Ledger) -> object:
    """What every decision follows from; that the index adds nothing of its own is a property of placement."""
    return [(room.cpu_milli, room.memory_bytes, tuple(room.gpus), room.whole, room.tenants) for room in ledger.rooms]
