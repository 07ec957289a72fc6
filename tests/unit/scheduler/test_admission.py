from dataclasses import replace

import pytest

from scheduler.admission import Admission
from scheduler.amounts import asked
from scheduler.plan import Reason
from scheduler.snapshot import UNLIMITED, Account, Amounts, JobClass, Pool, Queue
from tests.support.clusters import DEFAULT, GIB, a_class, a_node, a_request

NODES = [a_node(cpus=64, gib=256, gpus=16)]


def gpus_at_most(amount: int) -> Amounts:
    return Amounts(UNLIMITED, UNLIMITED, amount * 1000)


def needs(gpus: int, *, cpus: int = 1, project: str = "p", user: str = "", queue: str = "q") -> JobClass:
    made = a_class(a_request(cpus=cpus, gpu_milli=gpus * 1000), project=project, queue=queue)
    return replace(made, user_id=user)


def start(admission: Admission, job_class: JobClass) -> None:
    admission.take(job_class, asked(job_class))


def why(admission: Admission, job_class: JobClass) -> tuple[Reason, str] | None:
    return admission.refusal(job_class, asked(job_class))


def test_without_limits_everybody_is_admitted() -> None:
    admission = Admission(NODES, [DEFAULT])
    for _ in range(100):
        assert why(admission, needs(4)) is None
        start(admission, needs(4))
    assert admission.reach(needs(4), asked(needs(4))) is None
    assert admission.turn(needs(4), asked(needs(4))) == ()


def test_a_quota_holds_for_all_jobs_of_the_project_and_says_what_is_used() -> None:
    admission = Admission(NODES, [DEFAULT], accounts=[Account("p", most=gpus_at_most(8), name="vision")])
    start(admission, needs(7, user="ann"))
    assert why(admission, needs(1, user="bob")) is None
    assert why(admission, needs(2, user="bob")) == (
        Reason.QUOTA,
        "account 'vision' holds 7 GPUs of the 8 GPUs it may hold; 2 GPUs more asked for",
    )
    assert why(admission, needs(2, project="other")) is None


def test_quotas_hold_at_every_level_of_the_tree() -> None:
    accounts = [
        Account("org", most=gpus_at_most(6)),
        Account("p", "org"),
        Account("p/ann", "p", most=gpus_at_most(2)),
        Account("p2", "org"),
    ]
    admission = Admission(NODES, [DEFAULT], accounts=accounts)
    start(admission, needs(2, user="ann"))
    refused = why(admission, needs(1, user="ann"))
    assert refused is not None
    assert "account 'p/ann' holds 2 GPUs" in refused[1]
    start(admission, needs(4, user="bob"))
    refused = why(admission, needs(1, project="p2"))
    assert refused is not None
    assert "account 'org' holds 6 GPUs" in refused[1]


def test_a_job_that_can_never_fit_its_quota_says_so() -> None:
    admission = Admission(NODES, [DEFAULT], accounts=[Account("p", most=Amounts(UNLIMITED, GIB // 2, UNLIMITED))])
    assert why(admission, needs(0)) == (
        Reason.QUOTA,
        "asks for 1.0 GiB of memory; account 'p' may never hold more than 512.0 MiB of memory",
    )


def test_a_quota_that_was_cut_stops_only_what_would_add_to_it() -> None:
    admission = Admission(NODES, [DEFAULT], accounts=[Account("p", most=gpus_at_most(1))])
    start(admission, needs(4))
    assert why(admission, needs(0)) is None
    assert why(admission, needs(1)) is not None


def test_a_queue_holds_and_runs_no_more_than_it_may() -> None:
    queue = replace(DEFAULT, name="short", most=Amounts(4000, UNLIMITED, UNLIMITED), most_running=3)
    admission = Admission(NODES, [queue])
    start(admission, needs(0, cpus=3))
    assert why(admission, needs(0, cpus=2)) == (
        Reason.QUEUE_LIMIT,
        "queue 'short' holds 3 CPUs of the 4 CPUs it may hold; 2 CPUs more asked for",
    )
    assert why(admission, needs(0, cpus=5)) == (
        Reason.QUEUE_LIMIT,
        "asks for 5 CPUs; queue 'short' may never hold more than 4 CPUs",
    )
    start(admission, needs(0, cpus=0))
    start(admission, needs(0, cpus=0))
    assert why(admission, needs(0, cpus=0)) == (
        Reason.QUEUE_LIMIT,
        "queue 'short' runs 3 of the 3 jobs it may run at a time",
    )


def test_several_jobs_are_counted_one_by_one_and_more_replicas_not_at_all() -> None:
    admission = Admission(NODES, [replace(DEFAULT, most_running=2)])
    nothing = Amounts(0, 0, 0)
    assert admission.refusal(needs(1), nothing, jobs=2) is None
    assert admission.refusal(needs(1), nothing, jobs=3) == (
        Reason.QUEUE_LIMIT,
        "queue 'default' may never run more than 2 jobs at a time",
    )
    admission.take(needs(1), nothing, jobs=2)
    assert admission.refusal(needs(1), nothing, jobs=0) is None


POOLS = [
    Pool("all", "all", nominal=Amounts(0, 0, 0)),
    Pool("a", "team-a", "all", nominal=gpus_at_most(8), borrows=gpus_at_most(2)),
    Pool("b", "team-b", "all", nominal=gpus_at_most(8)),
]
QUEUES = [Queue("qa", "qa", pool_id="a"), Queue("qb", "qb", pool_id="b"), DEFAULT]


def test_a_pool_admits_its_own_and_what_it_may_borrow() -> None:
    admission = Admission(NODES, QUEUES, POOLS)
    start(admission, needs(8, queue="qa"))
    assert why(admission, needs(2, queue="qa")) is None
    start(admission, needs(1, queue="qa"))
    assert why(admission, needs(2, queue="qa")) == (
        Reason.QUOTA,
        "pool 'team-a' uses 9 GPUs of its 8 GPUs and can get 1 GPU more, what it may borrow included; 2 GPUs more asked for",
    )
    assert why(admission, needs(11, queue="qa")) == (
        Reason.QUOTA,
        "asks for 11 GPUs; pool 'team-a' can never use more than 10 GPUs",
    )
    assert why(admission, needs(16, queue="q")) is None


def test_who_borrows_comes_after_those_who_do_not_and_may_go_further() -> None:
    admission = Admission(NODES, QUEUES, POOLS)
    start(admission, needs(8, queue="qa"))
    borrowing, nominal, pool_less = (needs(1, queue=queue) for queue in ("qa", "qb", "q"))
    turns = [admission.turn(one, asked(one)) for one in (pool_less, nominal, borrowing)]
    assert turns[0] == turns[1] == ()
    assert turns[2] > ()
    assert admission.reach(nominal, asked(nominal)) == frozenset({"", "b"})
    assert admission.reach(borrowing, asked(borrowing)) == frozenset({"", "all", "a", "b"})
    assert admission.reach(pool_less, asked(pool_less)) == frozenset({""})


def test_a_what_if_leaves_no_trace() -> None:
    accounts = [Account("p", most=gpus_at_most(8))]
    admission = Admission(NODES, [replace(QUEUES[0], most_running=2), *QUEUES[1:]], POOLS, accounts)
    start(admission, needs(6, queue="qa"))
    before = state(admission)
    mark = admission.mark()
    start(admission, needs(2, queue="qa"))
    assert why(admission, needs(1, queue="qa")) is not None
    admission.give(needs(6, queue="qa"), asked(needs(6)))
    start(admission, needs(1, queue="qb"))
    admission.rollback(mark)
    assert state(admission) == before
    assert why(admission, needs(2, queue="qa")) is None


def state(admission: Admission) -> object:
    usage, cohorts = admission.usage, admission.cohorts
    return (
        [(usage.queue(queue).held, usage.queue(queue).jobs) for queue in ("q", "qa", "qb")],
        usage.path(needs(1)),
        [(cohorts.used(pool.id), cohorts.available(pool.id)) for pool in POOLS],
    )


def test_holdings_are_carried_over_to_other_limits_and_weights() -> None:
    admission = Admission(NODES, QUEUES, POOLS)
    start(admission, needs(6, queue="qa"))
    start(admission, needs(1, queue="qb"))
    stricter = admission.renewed(NODES, QUEUES, POOLS, [Account("p", used=0.5, most=gpus_at_most(7))])
    fresh = Admission(NODES, QUEUES, POOLS, [Account("p", used=0.5, most=gpus_at_most(7))])
    start(fresh, needs(6, queue="qa"))
    start(fresh, needs(1, queue="qb"))
    assert state(stricter) == state(fresh)
    assert why(stricter, needs(1, queue="qa")) is not None


def test_a_queue_charged_to_an_unknown_pool_is_named() -> None:
    with pytest.raises(ValueError, match="queue 'qa' is charged to pool 'a', which the snapshot lacks"):
        Admission(NODES, QUEUES)


def test_what_is_owed_is_kept_from_others_and_not_from_the_books() -> None:
    admission = Admission(NODES, [DEFAULT], accounts=[Account("p", most=gpus_at_most(8))])
    start(admission, needs(4))
    large = needs(8, user="ann")
    assert admission.owe(large, asked(large))
    assert why(admission, needs(1)) == (
        Reason.QUOTA,
        "what is left of the quota is kept for a job that has waited for it longer than patience",
    )
    # To whom it is owed is told what is really missing, and whoever could not start anyway, too.
    for job_class in (large, needs(5)):
        refused = why(admission, job_class)
        assert refused is not None
        assert "holds 4 GPUs of the 8 GPUs" in refused[1]
    assert why(admission, needs(0)) is None
    admission.forgive()
    assert why(admission, needs(4)) is None


def test_nothing_is_owed_to_a_job_that_can_never_fit_its_limits() -> None:
    accounts = [Account("p", most=gpus_at_most(8))]
    admission = Admission(NODES, [*QUEUES, replace(DEFAULT, id="none", most_running=0)], POOLS, accounts)
    for job_class in (needs(9), needs(11, queue="qa"), needs(1, queue="none")):
        assert not admission.owe(job_class, asked(job_class))
    assert why(admission, needs(8)) is None
