from dataclasses import replace
from math import inf

import pytest

from scheduler.config import Config
from scheduler.engine import plan
from scheduler.plan import Reason
from scheduler.snapshot import (
    Affinity,
    Constraints,
    Holding,
    JobClass,
    Node,
    PendingJob,
    Queue,
    Request,
    Reservation,
    Role,
    RunningJob,
    Slice,
)
from tests.support.clusters import (
    GIB,
    NOW,
    a_class,
    a_holding,
    a_job,
    a_node,
    a_request,
    a_running,
    a_snapshot,
    places,
    started,
    verdicts,
)


def gpus_held(*devices: int) -> tuple[tuple[int, int], ...]:
    return tuple((device, 1000) for device in devices)


def busy(job_id: str, node: str, devices: int, *, ends_by: float | None) -> RunningJob:
    return a_running(job_id, a_holding(node, gpus=gpus_held(*range(devices))), ends_by=ends_by, queue="")


DAYS_AGO = -200_000.0  # longer ago than a short job passes a long one for being short
HEAD = a_job("head", a_request(gpu_milli=8000), at=DAYS_AGO, limit=3600)


def one_gpu(job_id: str = "small", *, limit: int | None = None) -> PendingJob:
    return a_job(job_id, a_request(gpu_milli=1000), at=1, limit=limit)


def test_the_head_is_told_the_shadow_time_of_the_release_that_makes_room() -> None:
    running = [busy("r1", "n1", 4, ends_by=NOW + 60), busy("r2", "n2", 1, ends_by=NOW + 30)]
    judged = verdicts(a_snapshot([a_node("n1", gpus=8), a_node("n2", gpus=8)], [HEAD], running=running))
    assert judged["head"].starts_at == NOW + 30


def test_a_job_past_its_limit_is_expected_to_end_now() -> None:
    judged = verdicts(a_snapshot([a_node(gpus=8)], [HEAD], running=[busy("r", "n1", 1, ends_by=NOW - 5)]))
    assert judged["head"].starts_at == NOW


def test_without_limits_no_start_is_promised() -> None:
    judged = verdicts(a_snapshot([a_node(gpus=8)], [HEAD], running=[busy("r", "n1", 1, ends_by=None)]))
    assert judged["head"].starts_at is None


def test_a_job_that_ends_before_the_shadow_time_passes_the_head() -> None:
    running = [busy("r", "n1", 1, ends_by=NOW + 60)]
    made = plan(a_snapshot([a_node(gpus=8)], [HEAD, one_gpu(limit=60)], running=running), Config())
    assert [placement.job_id for placement in made.placements] == ["small"]
    assert made.placements[0].reason == "least left over on n1; delays no job ahead of it"


def test_a_job_that_ends_after_the_shadow_time_waits() -> None:
    running = [busy("r", "n1", 1, ends_by=NOW + 60)]
    snapshot = a_snapshot([a_node(gpus=8)], [HEAD, one_gpu(limit=61)], running=running)
    assert started(snapshot) == []
    assert verdicts(snapshot)["small"].reason is Reason.BEHIND_HEAD
    assert verdicts(snapshot)["small"].message == "would delay job head, the head of queue 'default'"


def test_of_another_projects_head_no_more_is_told_than_that_there_is_one() -> None:
    running, small = [busy("r", "n1", 1, ends_by=NOW + 60)], one_gpu(limit=61)
    foreign = replace(small, job_class=replace(small.job_class, project_id="other"))
    judged = verdicts(a_snapshot([a_node(gpus=8)], [HEAD, foreign], running=running))
    assert judged["small"].message == "would delay a job of another project, the head of its queue"


@pytest.mark.parametrize(
    ("project", "message"),
    [("other", "might run into a reservation of another project"), ("", "might run into maintenance secret")],
)
def test_of_another_projects_reservation_no_more_is_told_than_that_there_is_one(project: str, message: str) -> None:
    booked = Reservation("secret", project, NOW + 10, NOW + 90, (Holding("id-n1", 8000, 32 * GIB, ()),))
    judged = verdicts(replace(a_snapshot([a_node()], [a_job("small")]), reservations=(booked,)))
    assert judged["small"].message == message


def test_where_no_limit_says_when_the_claimed_node_stays_free() -> None:
    running = [busy("r", "n1", 1, ends_by=None)]
    assert started(a_snapshot([a_node(gpus=8)], [HEAD, one_gpu(limit=1)], running=running)) == []


def test_a_long_job_starts_on_a_node_outside_the_claim_even_if_it_fits_worse() -> None:
    nodes = [a_node("claimed", gpus=8), a_node("wider", gpus=4)]
    running = [busy("r", "claimed", 6, ends_by=NOW + 60)]
    assert places(a_snapshot(nodes, [one_gpu()], running=running))["small"][0][0] == "claimed"
    assert places(a_snapshot(nodes, [HEAD, one_gpu()], running=running))["small"][0][0] == "wider"


def test_what_is_left_over_beside_the_claim_may_be_used_for_long() -> None:
    head = a_job("head", a_request(gpu_milli=6000), limit=3600)
    running = [busy("r", "n1", 4, ends_by=NOW + 60)]
    jobs = [head, one_gpu("s1"), one_gpu("s2"), one_gpu("s3")]
    assert started(a_snapshot([a_node(gpus=8)], jobs, running=running)) == ["s1", "s2"]


def test_what_else_ends_in_the_shadow_instant_is_left_over_too() -> None:
    head = a_job("head", a_request(gpu_milli=4000), limit=3600)
    running = [
        a_running("r1", a_holding("n1", gpus=gpus_held(0, 1)), ends_by=NOW + 60, queue=""),
        a_running("r2", a_holding("n1", gpus=gpus_held(2, 3)), ends_by=NOW + 60, queue=""),
    ]
    assert started(a_snapshot([a_node(gpus=6)], [head, one_gpu()], running=running)) == ["small"]


def test_a_gang_may_not_use_the_same_left_over_twice() -> None:
    head = a_job("head", a_request(gpu_milli=7000), limit=3600)
    running = [busy("r", "n1", 4, ends_by=NOW + 60)]
    gang = a_job("gang", a_request(gpu_milli=1000), replicas=2, at=1)
    assert started(a_snapshot([a_node(gpus=8)], [head, gang, one_gpu()], running=running)) == ["small"]


def test_a_gang_that_fails_beside_a_claim_uses_nothing_up() -> None:
    running = [a_running("r", a_holding("n1", cpus=4), ends_by=NOW + 60)]
    head = a_job("head", a_request(cpus=6), limit=3600)
    gang, small = a_job("gang", replicas=3, at=1), a_job("small", a_request(cpus=2), at=2)
    assert started(a_snapshot([a_node(cpus=8)], [head, gang, small], running=running)) == ["small"]


def test_heads_of_two_queues_claim_different_nodes() -> None:
    queues = [Queue("q", "default"), Queue("q2", "other")]
    nodes = [a_node("n1", gpus=8), a_node("n2", gpus=8)]
    running = [busy("r1", "n1", 1, ends_by=NOW + 60), busy("r2", "n2", 1, ends_by=NOW + 90)]
    jobs = [HEAD, a_job("head2", a_request(gpu_milli=8000), at=1, queue="q2")]
    judged = verdicts(a_snapshot(nodes, jobs, running=running, queues=queues))
    assert [judged["head"].starts_at, judged["head2"].starts_at] == [NOW + 60, NOW + 90]


def test_a_second_head_waits_for_the_first_to_end_where_there_is_one_node() -> None:
    queues = [Queue("q", "default"), Queue("q2", "other")]
    running = [busy("r1", "n1", 1, ends_by=NOW + 60)]
    jobs = [HEAD, a_job("head2", a_request(gpu_milli=8000), at=1, queue="q2")]
    judged = verdicts(a_snapshot([a_node(gpus=8)], jobs, running=running, queues=queues))
    assert judged["head2"].starts_at == NOW + 60 + 3600


def test_a_claim_spreads_over_nodes_for_a_gang() -> None:
    nodes = [a_node("n1", gpus=1), a_node("n2", gpus=1), a_node("n3", gpus=1)]
    running = [busy("r1", "n1", 1, ends_by=NOW + 60), busy("r2", "n2", 1, ends_by=NOW + 90)]
    gang = a_job("gang", a_request(gpu_milli=1000), replicas=2)
    snapshot = a_snapshot(nodes, [gang, one_gpu("long"), one_gpu("short", limit=60)], running=running)
    assert verdicts(snapshot)["gang"].starts_at == NOW + 60
    assert started(snapshot) == ["short"]


def test_what_this_plan_starts_is_counted_as_a_release() -> None:
    jobs = [a_job("first", a_request(gpu_milli=4000), limit=100), a_job("head", a_request(gpu_milli=8000), at=1)]
    assert verdicts(a_snapshot([a_node(gpus=8)], jobs))["head"].starts_at == NOW + 100


def test_what_runs_on_a_node_that_is_gone_promises_nothing() -> None:
    running = [busy("r1", "n1", 1, ends_by=NOW + 60), a_running("r2", a_holding("gone"), ends_by=NOW + 1)]
    assert verdicts(a_snapshot([a_node(gpus=8)], [HEAD], running=running))["head"].starts_at == NOW + 60


def alone(job: PendingJob) -> PendingJob:
    return replace(job, job_class=replace(job.job_class, constraints=Constraints(exclusive=True)))


def test_nobody_passes_a_head_that_wants_the_node_for_itself_unless_gone_by_then() -> None:
    running = [a_running("r", a_holding("n1"), ends_by=NOW + 100)]
    head = alone(a_job("head", at=DAYS_AGO, limit=3600))
    for limit, begun in ((100, ["short"]), (101, [])):
        snapshot = a_snapshot([a_node()], [head, a_job("short", at=1, limit=limit)], running=running)
        assert started(snapshot) == begun
        assert verdicts(snapshot)["head"].starts_at == NOW + 100


def test_who_wants_a_node_for_itself_passes_no_head_that_needs_the_node() -> None:
    running = [a_running("r", a_holding("n1", cpus=7), ends_by=NOW + 100)]
    head = a_job("head", a_request(cpus=8), limit=3600)
    for within in ("", "node"):
        tied = replace(head, job_class=replace(head.job_class, constraints=Constraints(within=within)))
        lone = a_job("lone", a_request(cpus=0, gib=0), at=1)
        assert started(a_snapshot([a_node()], [tied, alone(lone)], running=running)) == []
        assert started(a_snapshot([a_node()], [tied, lone], running=running)) == ["lone"]


def sliced(job_id: str, profile: str, start: int, *, releasing_at: float | None = None) -> RunningJob:
    holding = replace(a_holding("n1"), slices=(Slice(0, profile, start),))
    job_class = JobClass("p", "", (Role(Request(1000, GIB, mig_profile=profile)),))
    return RunningJob(job_id, job_class, (holding,), releasing_at=releasing_at)


def partitioned(cpus: int) -> Node:
    node = a_node(gpus=1, model="H100", cpus=cpus)
    return replace(node, gpu_milli_free=(0,), partitioned=(0,), gpu_memory_bytes=80 * GIB)


QUEUES = [Queue("q", "default"), Queue("q2", "other")]


def test_a_claim_that_has_no_time_ends_after_it_has_begun() -> None:
    running = [sliced("r", "4g.40gb", 0), sliced("z", "3g.40gb", 4)]
    jobs = [a_job("a", Request(1000, GIB, mig_profile="2g.20gb")), a_job("b", a_request(cpus=8), at=1, queue="q2")]
    made = plan(a_snapshot([partitioned(8)], jobs, running=running, queues=QUEUES), Config())
    assert sorted((one.job_id, one.starts_at) for one in made.promises) == [("a", inf), ("b", inf)]


def test_what_is_owed_may_be_a_slice_that_is_coming() -> None:
    running = [sliced("r", "4g.40gb", 0, releasing_at=NOW + 30), a_running("z", a_holding("n2", cpus=6), queue="")]
    jobs = [a_job("a", Request(1000, GIB, mig_profile="7g.80gb")), a_job("b", a_request(cpus=8), at=1, queue="q2")]
    made = plan(a_snapshot([partitioned(4), a_node("n2")], jobs, running=running, queues=QUEUES), Config())
    assert [promise.job_id for promise in made.promises if promise.holdings] == ["a"]


def test_under_conservative_backfill_a_project_uses_what_it_has_booked() -> None:
    booked = Reservation("booking", "p", NOW - 1, NOW + 1000, (a_holding("n1", cpus=8),))
    for project, begun in (("p", ["j1"]), ("other", [])):
        snapshot = replace(a_snapshot([a_node()], [a_job(project=project)]), reservations=(booked,))
        assert started(snapshot, Config(reserved_heads=None)) == begun


def test_nobody_passes_a_head_that_must_be_apart_from_it_unless_gone_by_then() -> None:
    """There is room for both all the while: what the head waits for is that nobody of the other kind is there."""
    database = a_class(project="p")
    database = replace(database, labels=(("app", "db"),), time_limit_s=50)
    apart = Constraints(affinities=(Affinity((("app", "db"),), "node", apart=True),))
    head = PendingJob("head", 0.0, replace(a_class(project="p"), constraints=apart, time_limit_s=100))
    there = RunningJob("there", database, (a_holding("n1"),), ends_by=NOW + 40)
    later = PendingJob("later", 1.0, database)
    in_line = [Queue("q", "default", policy="fifo", second_policy="fifo")]
    made = plan(a_snapshot([a_node()], [head, later], running=[there], queues=in_line), Config())
    assert made.placements == ()
    assert [(one.job_id, one.starts_at) for one in made.promises] == [("head", NOW + 40)]
    short = replace(later, job_class=replace(database, time_limit_s=40))
    made = plan(a_snapshot([a_node()], [head, short], running=[there], queues=in_line), Config())
    assert [placement.job_id for placement in made.placements] == ["later"]
