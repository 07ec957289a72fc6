from dataclasses import replace

import pytest

from scheduler.capacity import Setting
from scheduler.config import Config
from scheduler.engine import plan
from scheduler.ledger import Ledger
from scheduler.plan import Because, Reason
from scheduler.prospects import Prospects
from scheduler.snapshot import Constraints, JobClass, Node, Operator, Pool, Queue, Request, Taint, Term
from tests.support.clusters import GIB, a_class, a_job, a_node, a_request, a_snapshot

RACKS = ("zone", "rack")


def why_never(
    nodes: list[Node], job_class: JobClass, within: frozenset[int] | None = None, levels: tuple[str, ...] = ()
) -> Because | None:
    return Prospects(Ledger(nodes, Setting(levels=levels))).why_never(job_class, within)


def never(message: str) -> Because:
    return Reason.NEVER_FITS, message


def constrained(job_class: JobClass, **said: object) -> JobClass:
    return replace(job_class, constraints=Constraints(**said))  # type: ignore[arg-type]


def in_rack(node: Node, rack: str) -> Node:
    return replace(node, domains=("north", rack))


def partitioned(name: str, model: str = "A30", gib: int = 24) -> Node:
    node = a_node(name, gpus=1, model=model)
    return replace(node, partitioned=(0,), gpu_milli_free=(0,), gpu_memory_bytes=gib * GIB)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (a_request(gpu_milli=9000), "asks for 9 GPUs a replica, the largest node has 8"),
        (a_request(gpu_milli=1000, model="b200"), "none has any b200 GPU"),
        (a_request(cpus=9), "asks for 9 CPUs a replica, the largest node has 8 CPUs"),
        (a_request(gib=33), "asks for 33.0 GiB a replica, the largest node has 32.0 GiB"),
        (a_request(cpus=8, gib=20), "no single node has all that a replica asks for"),
        (Request(1000, GIB, mig_profile="2g.20gb"), "none can be cut into a slice 2g.20gb"),
    ],
)
def test_what_no_machine_could_hold_is_told_so(request_: Request, message: str) -> None:
    nodes = [a_node("n1", gpus=8, cpus=8, gib=16), a_node("n2", gpus=1, cpus=1, gib=32)]
    wanted = (Reason.NEVER_FITS, f"no node of the cluster could ever hold this: {message}")
    assert why_never(nodes, a_class(request_)) == wanted


def test_a_slice_of_a_kind_that_there_is_not_is_told_which_there_are() -> None:
    nodes = [a_node("whole", gpus=8), partitioned("cut")]
    assert why_never(nodes, a_class(Request(1000, GIB, mig_profile="7g.80gb"))) == never(
        "no node of the cluster could ever hold this: none can be cut into a slice 7g.80gb; "
        "there are 1g.6gb, 1g.6gb+me, 2g.12gb, 2g.12gb+me, 4g.24gb"
    )
    assert why_never(nodes, a_class(Request(1000, GIB, mig_profile="2g.12gb"))) is None


def test_a_slice_beside_more_memory_than_such_a_node_has_is_told_of_the_memory() -> None:
    nodes = [replace(a_node("whole", gpus=8, gib=512)), partitioned("cut")]
    (_, message) = why_never(nodes, a_class(Request(1000, 64 * GIB, mig_profile="2g.12gb"))) or ("", "")
    assert message == "no node of the cluster could ever hold this: no single node has all that a replica asks for"


def test_a_job_that_no_node_may_have_is_told_what_keeps_it_away() -> None:
    nodes = [replace(a_node("a"), taints=(Taint("gpu"),)), replace(a_node("b"), spot=True), a_node("c")]
    wanted = constrained(a_class(), spot=False, selector=(Term("name", Operator.NOT_IN, ("c",)),))
    assert why_never(nodes, wanted) == never(
        "no node may have it; kept away: 1 node by being spot nodes, 1 node by selector name not in c, 1 node by taint gpu"
    )
    assert why_never(nodes, a_class()) is None


def test_a_label_that_no_node_has_is_named_with_what_there_is() -> None:
    nodes = [replace(a_node("a"), labels=(("disk", "ssd"),)), replace(a_node("b"), labels=(("disk", "hdd"),))]
    for key, hint in (("disk", "disk is hdd, ssd"), ("arch", "no node has a label arch")):
        because = why_never(nodes, constrained(a_class(), selector=(Term(key, Operator.IN, ("nvme",)),)))
        assert because == (
            Reason.NEVER_FITS, f"no node may have it; kept away: 2 nodes by selector {key}=nvme; {hint}"
        )  # fmt: skip


def test_one_that_only_nodes_it_may_not_have_could_hold_is_told_which_keep_it_away() -> None:
    nodes = [replace(a_node("big", gpus=8), taints=(Taint("reserved"),)), a_node("small", gpus=2)]
    assert why_never(nodes, a_class(a_request(gpu_milli=4000))) == never(
        "no node of 1 that may have it could ever hold this: asks for 4 GPUs a replica, the largest node has 2; "
        "kept away: 1 node by taint reserved"
    )


def test_what_lies_in_a_pool_that_the_queue_does_not_reach_is_out_of_reach() -> None:
    nodes = [a_node("a", gpus=8), a_node("b")]
    assert why_never(nodes, a_class(a_request(gpu_milli=1000)), within=frozenset({1})) == never(
        "no node of 1 that may have it could ever hold this: none has any GPU; "
        "kept away: 1 node by being in pools that its queue does not reach"
    )
    assert why_never(nodes, a_class(a_request(gpu_milli=1000)), within=frozenset({0})) is None


def test_a_plan_says_never_of_a_job_whose_queue_reaches_no_node_of_the_pool_it_asks_for() -> None:
    node = replace(a_node("a", gpus=8), pool_id="p-id")
    wish = a_job("j", a_request(gpu_milli=1000))
    snapshot = a_snapshot([node, a_node("b")], [replace(wish, job_class=constrained(wish.job_class, pool_id="p-id"))])
    snapshot = replace(snapshot, pools=(Pool("p-id", "research"), Pool("other", "other")))
    (verdict,) = plan(snapshot, Config()).verdicts
    assert verdict.reason is Reason.NEVER_FITS
    assert (
        "1 node by being in pools that its queue does not reach, 1 node by not being in pool 'research'"
        in verdict.message
    )
    charged = replace(snapshot, queues=(Queue("q", "default", pool_id="p-id"),))
    assert len(plan(charged, Config()).placements) == 1


def test_a_pool_from_which_can_be_borrowed_is_in_reach_even_while_nothing_is() -> None:
    pools = (Pool("all", "all"), Pool("mine", "mine", "all"), Pool("theirs", "theirs", "all"))
    nodes = [replace(a_node("a"), pool_id="mine"), replace(a_node("b", gpus=4), pool_id="theirs")]
    snapshot = a_snapshot(
        nodes, [a_job("j", a_request(gpu_milli=4000))], queues=[Queue("q", "default", pool_id="mine")]
    )
    assert len(plan(replace(snapshot, pools=pools), Config()).placements) == 1


def test_being_alone_on_nodes_of_which_there_are_not_enough_is_never() -> None:
    nodes = [replace(a_node(name, cpus=4), labels=(("fast", "yes"),)) for name in "ab"] + [a_node("c", cpus=64)]
    alone = constrained(
        a_class(a_request(cpus=4), replicas=3), exclusive=True, selector=(Term("fast", Operator.EXISTS),)
    )
    assert why_never(nodes, alone) == never(
        "asks for 3 replicas; 2 nodes that may have it have room for 2 if empty; "
        "kept away: 1 node by selector fast exists"
    )


@pytest.mark.parametrize(
    ("level", "replicas", "message"),
    [
        ("rack", 17, "asks for 17 replicas in one rack; the largest has room for 16 if empty"),
        ("node", 9, "asks for 9 replicas in one node; the largest has room for 8 if empty"),
        ("row", 2, "no node may have it; kept away: 3 nodes by level 'row', which the cluster has not"),
        ("rack", 16, None),
        ("zone", 24, None),
    ],
)
def test_what_must_lie_in_one_domain_is_measured_by_the_largest(level: str, replicas: int, message: str | None) -> None:
    nodes = [in_rack(a_node("a"), "r1"), in_rack(a_node("b"), "r1"), in_rack(a_node("c"), "r2")]
    together = constrained(a_class(replicas=replicas), within=level, within_required=True)
    because = why_never(nodes, together, levels=RACKS)
    assert because == (None if message is None else (Reason.NEVER_FITS, message))


def test_a_wish_to_lie_in_one_domain_is_no_reason_for_never() -> None:
    nodes = [in_rack(a_node("a"), "r1"), in_rack(a_node("b"), "r2")]
    assert why_never(nodes, constrained(a_class(replicas=16), within="rack"), levels=RACKS) is None


def test_a_domain_that_could_hold_it_but_is_away_is_waited_for() -> None:
    away = replace(in_rack(a_node("b"), "r1"), ready=False)
    nodes = [in_rack(a_node("a"), "r1"), away, in_rack(a_node("c"), "r2")]
    together = constrained(a_class(replicas=16), within="rack", within_required=True)
    because = why_never(nodes, together, levels=RACKS)
    assert because == (Reason.NO_NODES, "1 node that could hold it is not ready")


def test_a_gang_beyond_the_whole_cluster_is_told_so() -> None:
    because = why_never([a_node("n1"), a_node("n2")], a_class(replicas=17))
    assert because == (Reason.NEVER_FITS, "asks for 17 replicas; the whole cluster has room for 16 if empty")


def test_load_is_no_reason_for_never() -> None:
    full = replace(a_node("a"), cpu_milli_free=0, memory_bytes_free=0)
    assert why_never([full], a_class()) is None


def test_a_node_that_is_away_is_no_reason_for_never() -> None:
    away = replace(a_node("n1", gpus=8), ready=False)
    because = why_never([away, a_node("n2")], a_class(a_request(gpu_milli=1000)))
    assert because == (Reason.NO_NODES, "1 node that could hold it is not ready")


def test_an_empty_cluster_says_so() -> None:
    assert why_never([], a_class()) == (Reason.NO_NODES, "the cluster has no node")
