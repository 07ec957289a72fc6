"""Where nobody comes and nobody ends, a cluster comes to rest: no two jobs make each other go for ever."""

from collections import Counter
from dataclasses import replace
from itertools import combinations
from random import Random

from hypothesis import event, given
from hypothesis import strategies as st

from scheduler.config import Config, Preemption
from scheduler.engine import plan
from scheduler.plan import EvictionKind
from scheduler.snapshot import PendingJob, RunningJob, Snapshot
from tests.support.clusters import NOW, a_node, a_snapshot, applied, ended, given_back, without
from tests.support.evictions import runs, victims, wants
from tests.support.landscapes import a_config, a_landscape

STEPS = 40

landscapes = st.builds(
    lambda seed, nodes, running, waiting: (a_landscape(Random(seed), nodes, running, waiting), a_config(Random(seed))),
    st.integers(0, 2**32),
    st.integers(1, 3),
    st.integers(1, 7),
    st.integers(1, 4),
)


@given(landscapes)
def test_with_no_arrivals_plans_come_to_rest(drawn: tuple[Snapshot, Config]) -> None:
    """By priority alone nobody is sent away by whom it would send away, however often it went before."""
    snapshot, config = drawn
    queues = tuple(replace(queue, pool_id="") for queue in snapshot.queues)
    nodes = tuple(replace(node, pool_id="") for node in snapshot.nodes)
    _rests(replace(snapshot, queues=queues, nodes=nodes, pools=()), config, counted=False)


@given(landscapes)
def test_where_pools_take_back_what_they_lent_plans_come_to_rest_as_nobody_goes_too_often(
    drawn: tuple[Snapshot, Config],
) -> None:
    """An owner of low priority and a borrower of high priority may send each other away: `max_preemptions` times."""
    snapshot, config = drawn
    _rests(snapshot, config, counted=True)


def _rests(snapshot: Snapshot, config: Config, *, counted: bool) -> None:
    """Whoever is told to end waits again; everybody else runs for ever."""
    # A limit that runs out would be an end, and fair share shifts with time: priorities stand still.
    config = replace(config, policy="priority", second_policy="fifo", ageing_per_hour=0.0)
    queues = tuple(replace(queue, policy="", second_policy="") for queue in snapshot.queues)
    running = tuple(replace(job, ends_by=None, expected_by=None) for job in snapshot.running)
    present = replace(snapshot, queues=queues, running=running, reservations=(), blocked=())
    went: Counter[str] = Counter({job.id: job.preemptions for job in running})
    for step in range(STEPS):
        made = plan(present, config)
        if not (made.placements or made.evictions or made.resizes) and not _leaving(present):
            event(f"at rest after {step} plans")
            return
        went.update(eviction.job_id for eviction in made.evictions)
        present = _moved_on(applied(present, made))
        if counted:
            jobs = tuple(replace(job, preemptions=went[job.id]) for job in present.running)
            present = replace(present, running=jobs)
    raise AssertionError(f"still {made}")


def _leaving(snapshot: Snapshot) -> list[RunningJob]:
    return [
        job
        for job in snapshot.running
        if job.releasing_at is not None or any(one.releasing_at is not None for one in job.holdings)
    ]


def _moved_on(snapshot: Snapshot) -> Snapshot:
    """Let all who were told do as told, and enough time pass that nobody is protected by having only begun."""
    gone = [job for job in snapshot.running if job.releasing_at is not None]
    again = tuple(PendingJob(job.id, job.started_at, job.job_class, owed=job.owed) for job in gone)
    after = ended(snapshot, *(job.id for job in gone))
    given_up = [one for job in after.running for one in job.holdings if one.releasing_at is not None]
    back = [given_back(one) for one in given_up]
    running = tuple(
        replace(job, ends_by=None, expected_by=None, holdings=tuple(o for o in job.holdings if o.releasing_at is None))
        for job in after.running
    )
    nodes = tuple(without(node, back) for node in after.nodes)
    return replace(after, now=after.now + 400, nodes=nodes, running=running, pending=(*after.pending, *again))


# What is lost


@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 3))
def test_of_all_who_might_go_those_go_with_fewest_gpu_seconds_to_do_again(seed: int, nodes: int, gpus: int) -> None:
    """Against brute force, for one replica and victims of one device each: the cheapest devices of the cheapest node."""
    random = Random(seed)
    made_of = [random.randint(1, 4) for _ in range(nodes)]
    running = [
        runs(f"r{number}-{device}", (f"n{number}", [device]), since=float(random.randint(0, 699)))
        for number, devices in enumerate(made_of)
        for device in range(devices)
    ]
    cluster = [a_node(f"n{number}", gpus=devices) for number, devices in enumerate(made_of)]
    config = Config(preemption=Preemption(min_run_s=300), consolidate=False)
    made = plan(a_snapshot(cluster, [wants("urgent", gpus)], running=running), config)
    lost = {job.id: NOW - job.started_at for job in running}
    on_node = [
        sorted(lost[f"r{number}-{device}"] for device in range(devices)) for number, devices in enumerate(made_of)
    ]
    least = min((sum(each[:gpus]) for each in on_node if len(each) >= gpus), default=None)
    assert len(victims(made)) == (0 if least is None else gpus)
    assert sum(lost[job_id] for job_id in victims(made)) == (least or 0)


@given(st.integers(0, 2**32), st.integers(1, 5), st.integers(1, 3), st.integers(1, 3))
def test_for_a_gang_those_nodes_are_cleared_where_least_is_lost(
    seed: int, nodes: int, gpus: int, replicas: int
) -> None:
    """Against brute force: of nodes that hold one replica each, all sets of so many, what is free there used first."""
    random = Random(seed)
    made_of = [random.randint(gpus, 2 * gpus - 1) for _ in range(nodes)]
    running = []
    for number, devices in enumerate(made_of):
        for device in range(devices):
            if random.random() < 0.8:
                job = runs(f"r{number}-{device}", (f"n{number}", [device]), since=float(random.randint(0, 699)))
                running.append(replace(job, checkpointed_at=random.choice((None, float(random.randint(0, 999))))))
    cluster = [a_node(f"n{number}", gpus=devices) for number, devices in enumerate(made_of)]
    config = Config(preemption=Preemption(min_run_s=300), consolidate=False)
    made = plan(a_snapshot(cluster, [wants("gang", gpus, replicas=replicas)], running=running), config)
    lost = {job.id: NOW - max(job.started_at, job.checkpointed_at or 0.0) for job in running}
    costs = []
    for number, devices in enumerate(made_of):
        here = sorted(lost[job.id] for job in running if job.id.startswith(f"r{number}-"))
        costs.append(sum(here[: max(0, gpus - (devices - len(here)))]))
    least = min((sum(some) for some in combinations(costs, replicas)), default=0.0)
    assert bool(made.placements) == (nodes >= replicas and least == 0 == len(victims(made)))
    assert sum(lost[job_id] for job_id in victims(made)) == least
    event(f"{len(victims(made))} go")


@given(st.integers(0, 2**32), st.floats(0, 400))
def test_jobs_move_only_where_that_gains_more_than_the_restarts_cost(seed: int, restart_s: float) -> None:
    """Two half-empty nodes of two devices: one job moves over, if the one that waits runs long enough for it."""
    random = Random(seed)
    run_s = random.randint(1, 400)
    running = [runs(f"r{number}", (f"n{number}", [0]), checkpointable=True, priority=10) for number in range(2)]
    waits = replace(wants("pair", 2, limit=run_s), submitted_at=0.0)
    config = Config(restart_s=restart_s, preemption=Preemption(min_run_s=300))
    made = plan(a_snapshot([a_node("n0", gpus=2), a_node("n1", gpus=2)], [waits], running=running), config)
    # Both count a CPU beside the devices as a thousandth of one.
    gained, cost = run_s * (2_000_000 + 1000), round(restart_s * (1_000_000 + 1000))
    assert [one.kind for one in made.evictions] == [EvictionKind.CONSOLIDATE] * (gained > cost)
    if made.evictions:
        (mover,) = made.evictions
        (new_place,) = [promise for promise in made.promises if promise.job_id == mover.job_id]
        assert new_place.node_ids == ({"r0": "id-n1", "r1": "id-n0"}[mover.job_id],)
