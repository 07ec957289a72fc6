from dataclasses import replace

import pytest

from scheduler.config import Config
from scheduler.engine import plan
from scheduler.plan import Reason
from scheduler.snapshot import NO_LIMIT, Account, Amounts, Pool, Queue, Snapshot
from tests.support.clusters import (
    NOW,
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


def test_an_idle_cluster_starts_its_only_job_at_once() -> None:
    assert places(a_snapshot([a_node()], [a_job()])) == {"j1": [("n1", ())]}


def test_every_pending_job_is_either_started_or_judged() -> None:
    made = plan(a_snapshot([a_node(cpus=2)], [a_job(f"j{i}", at=i) for i in range(5)]), Config())
    assert [placement.job_id for placement in made.placements] == ["j0", "j1"]
    assert [(verdict.job_ids, verdict.position) for verdict in made.verdicts] == [(("j2", "j3", "j4"), 1)]


def test_of_equal_jobs_the_oldest_starts_whatever_the_order_of_rows() -> None:
    jobs = [a_job("a", at=3), a_job("b", at=1), a_job("c", at=2)]
    assert started(a_snapshot([a_node(cpus=2)], jobs)) == ["b", "c"]


def test_a_higher_priority_starts_first() -> None:
    jobs = [a_job("low", at=1), a_job("high", at=2, priority=5)]
    assert started(a_snapshot([a_node(cpus=1)], jobs)) == ["high"]


def test_a_gang_starts_whole_or_not_at_all() -> None:
    gang = a_job("gang", replicas=3)
    assert started(a_snapshot([a_node("n1", cpus=1), a_node("n2", cpus=1)], [gang])) == []
    assert places(a_snapshot([a_node("n1", cpus=1), a_node("n2", cpus=2)], [gang])) == {
        "gang": [("n1", ()), ("n2", ()), ("n2", ())]
    }


def test_a_gang_that_fails_leaves_its_room_to_others() -> None:
    jobs = [a_job("gang", replicas=3, at=1, limit=10), a_job("small", at=2)]
    assert started(a_snapshot([a_node(cpus=2)], jobs)) == ["small"]


def test_a_paused_queue_starts_nothing() -> None:
    snapshot = a_snapshot([a_node()], [a_job()], queues=[Queue("q", "default", paused=True)])
    assert started(snapshot) == []
    assert verdicts(snapshot)["j1"].reason is Reason.QUEUE_PAUSED
    assert verdicts(snapshot)["j1"].message == "queue 'default' is paused"


def test_a_plan_starts_at_most_max_placements() -> None:
    snapshot = a_snapshot([a_node()], [a_job(f"j{i}", at=i) for i in range(4)])
    config = Config(max_placements=3)
    assert started(snapshot, config) == ["j0", "j1", "j2"]
    assert verdicts(snapshot, config)["j3"].message == "this plan starts no more jobs; the next one comes to it"


def test_a_node_that_is_not_ready_gets_nothing() -> None:
    snapshot = a_snapshot([replace(a_node(), ready=False)], [a_job()])
    assert started(snapshot) == []
    assert verdicts(snapshot)["j1"].reason is Reason.NO_NODES


def test_a_blocked_head_of_one_model_does_not_block_another_model() -> None:
    nodes = [a_node("h", gpus=1, model="h100"), a_node("a", gpus=1, model="a100")]
    running = [a_running("r", a_holding("h", gpus=((0, 1000),)))]
    jobs = [
        a_job("head", a_request(gpu_milli=1000, model="h100")),
        a_job("other", a_request(gpu_milli=1000, model="a100"), at=1),
    ]
    assert started(a_snapshot(nodes, jobs, running=running)) == ["other"]


def test_a_job_that_can_never_run_blocks_nobody() -> None:
    jobs = [a_job("giant", a_request(cpus=99)), a_job("small", at=1)]
    assert started(a_snapshot([a_node()], jobs), Config(backfill=False)) == ["small"]


def test_without_backfill_nothing_passes_a_blocked_head() -> None:
    running = [a_running("r", a_holding("n1"), ends_by=NOW + 100)]
    jobs = [a_job("head", a_request(cpus=8)), a_job("j2", at=1, limit=10), a_job("j3", at=2, limit=20)]
    snapshot = a_snapshot([a_node()], jobs, running=running)
    config = Config(second_policy="fifo", backfill=False)
    assert started(snapshot, config) == []
    judged = verdicts(snapshot, config)
    assert [judged[job].message for job in ("j2", "j3")] == [
        "waits behind 1 job of its queue",
        "waits behind 2 jobs of its queue",
    ]


def test_one_queue_without_backfill_does_not_stop_another() -> None:
    queues = [Queue("q", "default"), Queue("q2", "other")]
    running = [a_running("r", a_holding("n1"), ends_by=NOW + 100)]
    jobs = [a_job("head", a_request(cpus=8)), a_job("quick", at=1, limit=10, queue="q2")]
    assert started(a_snapshot([a_node()], jobs, running=running, queues=queues), Config(backfill=False)) == ["quick"]


def test_queues_are_served_by_weight() -> None:
    queues = [Queue("q1", "heavy", weight=2), Queue("q2", "light", weight=1)]
    jobs = [a_job(f"{queue}-{i}", at=i, queue=queue) for queue in ("q1", "q2") for i in range(9)]
    first = started(a_snapshot([a_node(cpus=6)], jobs, queues=queues))
    assert [job.split("-")[0] for job in first].count("q1") == 4


def test_weights_hold_when_every_plan_starts_one_job() -> None:
    queues = [Queue("q1", "heavy", weight=9), Queue("q2", "light", weight=1)]
    running = [a_running("r1", a_holding("n1"), queue="q1"), a_running("r2", a_holding("n1"), queue="q1")]
    jobs = [a_job("heavy", queue="q1"), a_job("light", at=1, queue="q2")]
    assert started(a_snapshot([a_node(cpus=3)], jobs, queues=queues, running=running)) == ["light"]


def test_a_job_refused_before_its_queue_fell_behind_is_tried_again() -> None:
    nodes = [a_node("n1", gpus=8, model="h100"), a_node("n2", gpus=4, model="a100")]
    queues = [Queue("qa", "a"), Queue("qb", "b")]
    running = [
        a_running("r1", a_holding("n1", cpus=0, gpus=((0, 1000),)), queue="", ends_by=NOW + 60),
        a_running("r2", a_holding("n2"), queue="qb"),
    ]
    jobs = [
        a_job("head", a_request(gpu_milli=8000), queue="qa"),
        a_job("a2", a_request(gpu_milli=1000, model="a100"), at=1, queue="qa"),
        a_job("b1", a_request(gpu_milli=1000, model="h100"), at=2, queue="qb"),
    ]
    assert started(a_snapshot(nodes, jobs, queues=queues, running=running)) == ["a2", "b1"]


def test_a_placement_says_where_and_why() -> None:
    made = plan(a_snapshot([a_node()], [a_job()]), Config())
    assert made.placements[0].reason == "least left over on n1"


@pytest.mark.parametrize(
    ("snapshot", "complaint"),
    [
        (a_snapshot([a_node()], [a_job(queue="gone")]), "which the snapshot lacks"),
        (a_snapshot([a_node()], [a_job(), a_job()]), "have the id j1"),
        (a_snapshot([a_node(), a_node()], [a_job()]), "same id"),
        (a_snapshot([a_node()], [a_job(request=a_request(gpu_milli=1500))]), "1500 milli-GPU"),
        (a_snapshot([a_node()], [a_job(request=a_request(cpus=-1))]), "negative"),
        (a_snapshot([a_node()], [a_job(replicas=0)]), "no replica"),
        (a_snapshot([a_node()], [a_job()], queues=[Queue("q", "default", policy="luck")]), "policy 'luck'"),
        (a_snapshot([a_node()], [a_job()], queues=[Queue("q", "default", weight=0)]), "weight 0"),
    ],
)
def test_broken_input_is_refused_in_words(snapshot: Snapshot, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        plan(snapshot, Config())


def test_a_quota_holds_through_a_plan_and_says_who_holds_what() -> None:
    jobs = [a_job(f"j{i}", at=i) for i in range(4)]
    accounts = (Account("p", most=Amounts(cpu_milli=2000), name="vision"),)
    snapshot = replace(a_snapshot([a_node()], jobs), accounts=accounts)
    made = plan(snapshot, Config())
    assert [one.job_id for one in made.placements] == ["j0", "j1"]
    (verdict,) = made.verdicts
    assert verdict.reason is Reason.QUOTA
    assert verdict.message == "account 'vision' holds 2 CPUs of the 2 CPUs it may hold; 1 CPU more asked for"


@pytest.mark.parametrize(("waited_s", "starts"), [(86_400.0, ["small"]), (86_401.0, [])])
def test_small_jobs_pass_one_that_waits_for_its_quota_but_not_for_ever(waited_s: float, starts: list[str]) -> None:
    runs = a_running("r", a_holding("n1", cpus=2))
    jobs = [a_job("large", a_request(cpus=4), at=NOW - waited_s), a_job("small", at=NOW)]
    accounts = (Account("p", most=Amounts(cpu_milli=4000)),)
    snapshot = replace(a_snapshot([a_node()], jobs, running=[runs]), accounts=accounts)
    assert started(snapshot) == starts
    waiting = verdicts(snapshot)
    assert waiting["large"].message.startswith(f"account 'p' holds {2 + len(starts)} CPUs of the 4 CPUs it may hold")
    if not starts:
        assert waiting["small"].message.startswith("what is left of the quota is kept")


def test_nominal_use_goes_before_borrowed_and_each_keeps_to_its_nodes() -> None:
    pools = (Pool("all", "all"), Pool("a", "a", "all"), Pool("b", "b", "all"))
    nodes = [replace(a_node("n1", cpus=2), pool_id="a"), replace(a_node("n2", cpus=2), pool_id="b")]
    queues = [Queue("qa", "qa", pool_id="a"), Queue("qb", "qb", pool_id="b")]
    jobs = [a_job(f"a{i}", at=i, queue="qa") for i in range(4)] + [
        a_job(f"b{i}", at=9 + i, queue="qb") for i in range(1)
    ]
    made = plan(replace(a_snapshot(nodes, jobs, queues=queues), pools=pools), Config())
    assert [(one.job_id, one.replicas[0].node_id) for one in made.placements] == [
        ("a0", "id-n1"), ("b0", "id-n2"), ("a1", "id-n1"), ("a2", "id-n2"),
    ]  # fmt: skip
    (verdict,) = made.verdicts
    assert verdict.reason is Reason.QUOTA


def test_a_job_that_could_not_run_on_the_own_nodes_may_find_room_once_its_pool_borrows() -> None:
    pools = (Pool("all", "all"), Pool("a", "a", "all"), Pool("b", "b", "all"))
    nodes = [replace(a_node("n1", cpus=4), pool_id="a"), replace(a_node("n2", cpus=4), pool_id="b")]
    queues = [Queue("qa", "qa", pool_id="a")]
    jobs = [a_job("wide", a_request(cpus=3), at=1, queue="qa"), a_job("next", a_request(cpus=3), at=2, queue="qa")]
    made = plan(replace(a_snapshot(nodes, jobs, queues=queues), pools=pools), Config())
    assert [(one.job_id, one.replicas[0].node_id) for one in made.placements] == [("wide", "id-n1"), ("next", "id-n2")]


def test_a_job_whose_pool_has_no_node_for_it_keeps_nobody_from_the_nodes_of_others() -> None:
    pools = (Pool("a", "a", nominal=NO_LIMIT),)
    nodes = [replace(a_node("n1", cpus=1), pool_id="a"), a_node("n2", cpus=4)]
    queues = [Queue("qa", "qa", pool_id="a"), Queue("q", "q")]
    wide = [a_request(cpus=4), a_request(cpus=1)]
    jobs = [
        a_job("wide", wide[0], at=1, queue="qa", replicas=2),
        a_job("j", at=2),
        a_job("own", wide[1], at=3, queue="qa"),
    ]
    assert started(replace(a_snapshot(nodes, jobs, queues=queues), pools=pools)) == ["own", "j"]
