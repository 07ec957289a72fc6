"""What holds for every plan, whatever the cluster and whoever waits."""

from collections import Counter
from dataclasses import replace
from math import inf
from random import Random
from typing import TypeVar

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from scheduler.backfill import Guard, list_releases, reserve
from scheduler.config import Config
from scheduler.engine import plan
from scheduler.gang import place_gang
from scheduler.ledger import Ledger
from scheduler.placement.rooms import Grant
from scheduler.plan import Reason
from scheduler.policies import POLICIES
from scheduler.snapshot import Holding, Node, PendingJob, Queue, Request, RunningJob, Snapshot
from tests.support.clusters import NOW, applied, without

T = TypeVar("T")

UNBOUNDED = Config(max_placements=1000)
MODELS = ("a100", "h100")
POLICY_NAMES = ("", *sorted(POLICIES))

requests = st.builds(
    Request,
    cpu_milli=st.integers(0, 4000),
    memory_bytes=st.integers(0, 6),
    gpu_milli=st.sampled_from([0, 0, 250, 500, 700, 1000, 1000, 2000, 3000]),
    gpu_model=st.sampled_from(["", *MODELS]),
    replicas=st.sampled_from([1, 1, 1, 2, 3]),
)
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
            id=f"j{number:02}",
            project_id=draw(st.sampled_from("ab")),
            queue_id=draw(st.sampled_from(names)),
            priority=draw(st.integers(0, 1)),
            submitted_at=float(draw(st.integers(0, 9))),
            request=draw(requests),
            time_limit_s=draw(st.integers(1, 100) if exact else limits),
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
    return Snapshot(NOW, nodes, lines, pending, running, {"a": draw(st.sampled_from([0.0, 0.3]))})


def _run_some(
    draw: st.DrawFn, nodes: list[Node], queues: int, *, exact: bool
) -> tuple[tuple[Node, ...], tuple[RunningJob, ...]]:
    ledger = Ledger(nodes)
    running = []
    for number in range(draw(st.integers(0, 8))):
        request = draw(requests)
        grants = place_gang(ledger, request, Guard((), inf))
        if len(grants) == request.replicas:
            ends_by = NOW + draw(st.integers(-5 if not exact else 1, 90)) if exact or draw(st.booleans()) else None
            holdings = tuple(
                Holding(ledger.nodes[one.number].id, one.cpu_milli, one.memory_bytes, one.gpus) for one in grants
            )
            queue = f"q{draw(st.integers(0, queues - 1))}"
            running.append(RunningJob(f"r{number}", draw(st.sampled_from("ab")), holdings, ends_by, queue))
    held = [holding for job in running for holding in job.holdings]
    return tuple(without(node, held) for node in nodes), tuple(running)


def slots(node: Node, request: Request) -> int:
    """Count the replicas that fit on a node, written apart from the code under test."""
    if not node.ready or (request.gpu_milli and request.gpu_model not in ("", node.gpu_model)):
        return 0
    most = request.replicas
    if request.gpu_milli >= 1000:
        most = min(most, sum(milli == 1000 for milli in node.gpu_milli_free) * 1000 // request.gpu_milli)
    elif request.gpu_milli:
        most = min(most, sum(milli // request.gpu_milli for milli in node.gpu_milli_free))
    while most and (
        most * request.cpu_milli > node.cpu_milli_free or most * request.memory_bytes > node.memory_bytes_free
    ):
        most -= 1
    return most


def fits(snapshot: Snapshot, request: Request) -> bool:
    return sum(slots(node, request) for node in snapshot.nodes) >= request.replicas


@given(snapshots())
def test_no_device_cpu_or_memory_is_given_beyond_what_is_free(snapshot: Snapshot) -> None:
    made = plan(snapshot, UNBOUNDED)
    after = applied(snapshot, made)  # fails where anything falls below zero
    ready = {node.id for node in after.nodes if node.ready}
    assert all(one.node_id in ready for placement in made.placements for one in placement.replicas)


@given(snapshots())
def test_every_replica_gets_what_was_asked_for_and_gangs_start_whole(snapshot: Snapshot) -> None:
    jobs = {job.id: job.request for job in snapshot.pending}
    models = {node.id: node.gpu_model for node in snapshot.nodes}
    for placement in plan(snapshot, UNBOUNDED).placements:
        request = jobs[placement.job_id]
        assert [one.index for one in placement.replicas] == list(range(request.replicas))
        for one in placement.replicas:
            assert sum(milli for _, milli in one.gpus) == request.gpu_milli
            assert len({device for device, _ in one.gpus}) == -(-request.gpu_milli // 1000)
            assert not request.gpu_milli or request.gpu_model in ("", models[one.node_id])


@given(snapshots(), st.integers(0, 4))
def test_every_pending_job_is_in_exactly_one_of_placements_and_verdicts(snapshot: Snapshot, bound: int) -> None:
    made = plan(snapshot, Config(max_placements=bound))
    answered = Counter([one.job_id for one in made.placements] + [one.job_id for one in made.verdicts])
    assert answered == Counter(job.id for job in snapshot.pending)
    assert len(made.placements) <= bound


@given(snapshots())
def test_places_in_a_queue_are_numbered_from_one_without_gaps(snapshot: Snapshot) -> None:
    queue_of = {job.id: job.queue_id for job in snapshot.pending}
    positions: dict[str, list[int]] = {}
    for verdict in plan(snapshot, UNBOUNDED).verdicts:
        positions.setdefault(queue_of[verdict.job_id], []).append(verdict.position)
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in positions.values())


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
    requests_of = {job.id: job.request for job in snapshot.pending}
    waiting = {verdict.job_id: verdict.reason for verdict in made.verdicts}
    for verdict in made.verdicts:
        fitting = fits(after, requests_of[verdict.job_id])
        if verdict.reason is Reason.BEHIND_HEAD:
            assert fitting
            assert verdict.message.split()[3].rstrip(",") in waiting
        elif verdict.reason is not Reason.QUEUE_PAUSED:
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
            old = jobs[verdict.job_id]
            alike = replace(old, id=young.id, submitted_at=young.submitted_at) == young
            assert not (alike and (old.submitted_at, old.id) < (young.submitted_at, young.id))


@given(snapshots(queues=1, exact=True))
@settings(max_examples=200)
def test_backfilled_jobs_never_delay_the_head(snapshot: Snapshot) -> None:
    # Fair share ranks anew as jobs start, so that another may become the head.
    snapshot = replace(snapshot, queues=tuple(replace(queue, policy="fifo") for queue in snapshot.queues))
    strict = plan(snapshot, replace(UNBOUNDED, backfill=False))
    promised = {one.job_id: one.starts_at for one in strict.verdicts if one.starts_at is not None}
    assume(promised)
    ((head, starts_at),) = promised.items()
    made = plan(snapshot, UNBOUNDED)
    assert {one.job_id: one.starts_at for one in made.verdicts}[head] == starts_at
    assert _fits_at(applied(snapshot, made), head, starts_at)


def _fits_at(snapshot: Snapshot, job_id: str, at: float) -> bool:
    """Let everything that ends until then end, on paper, and see whether the job has room."""
    ended = [job for job in snapshot.running if job.ends_by is not None and job.ends_by <= at]
    nodes = snapshot.nodes
    for job in ended:
        for one in job.holdings:
            back = Holding(
                one.node_id, -one.cpu_milli, -one.memory_bytes, tuple((index, -milli) for index, milli in one.gpus)
            )
            nodes = tuple(without(node, [back]) for node in nodes)
    (request,) = (job.request for job in snapshot.pending if job.id == job_id)
    return fits(replace(snapshot, nodes=nodes), request)


@given(snapshots())
def test_a_reserved_job_fits_the_nodes_it_was_promised(snapshot: Snapshot) -> None:
    ledger = Ledger(snapshot.nodes)
    for job in snapshot.pending:
        claim = reserve(job, ledger, list_releases(ledger, snapshot.running), (), NOW)
        if claim is not None:
            assert sum(claim.counts.values()) == job.request.replicas == len(claim.grants)
            assert all(claim.rooms[number].replicas(job.request) >= count for number, count in claim.counts.items())


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
        held.extend(place_gang(ledger, replace(request, replicas=1), Guard((), inf)))


def _state(ledger: Ledger) -> object:
    """Everything a decision reads; the index must equal one built anew."""
    rooms = [(room.cpu_milli, room.memory_bytes, tuple(room.gpus), room.whole) for room in ledger.rooms]
    buckets = {
        (model, whole): list(ledger.capacity.bucket(model, whole))
        for model in ledger.capacity.models("")
        for whole in range(ledger.capacity.widest() + 1)
    }
    holes = {model: list(ledger.capacity.holes(model, 1)) for model in ledger.capacity.models("")}
    return rooms, buckets, holes
