from dataclasses import replace

from scheduler.capacity import Setting
from scheduler.ledger import Ledger
from scheduler.placement.misses import Misses, count_misses
from scheduler.placement.rooms import Grant
from scheduler.snapshot import Affinity, Constraints, Node, Request, Taint
from tests.support.clusters import GIB, a_node, a_request
from tests.support.placing import a_kind, partly


def left(name: str, cpus: int, gib: int, *gpus: int) -> Node:
    return replace(partly(name, *gpus), cpu_milli_free=cpus * 1000, memory_bytes_free=gib * GIB)


def test_every_ready_node_is_under_the_first_thing_it_lacks() -> None:
    nodes = [
        left("fits", 4, 4, 1000),
        left("no gpu", 8, 8, 300, 0),
        left("no cpus", 1, 8, 1000),
        left("no memory", 8, 1, 1000),
        left("less memory", 8, 0, 1000),
        left("neither", 1, 1, 1000),
        replace(left("tainted", 8, 8, 1000), taints=(Taint("gpu", "reserved"),)),
        replace(left("away", 8, 8, 1000), ready=False),
    ]
    assert count_misses(Ledger(nodes), a_kind(Request(4000, 4 * GIB, 1000))) == Misses(
        ready=7,
        kept_away=(("taint gpu=reserved", 1),),
        devices=1,
        most_gpu_milli=1000,
        cpus_only=1,
        cpu_milli_short=3000,
        memory_only=2,
        memory_bytes_short=3 * GIB,
        both=1,
        both_short=(3000, 3 * GIB),
        fits=1,
    )


def test_of_shares_the_largest_hole_is_told() -> None:
    misses = count_misses(Ledger([partly("n1", 400, 300), partly("n2", 450)]), a_kind(a_request(gpu_milli=500)))
    assert (misses.devices, misses.most_gpu_milli, misses.lacking) == (2, 450, False)


def test_what_other_jobs_want_keeps_nodes_away() -> None:
    alone = a_kind(constraints=Constraints(exclusive=True))
    apart = a_kind(
        labels=(("app", "web"),), constraints=Constraints(affinities=(Affinity((("app", "web"),), apart=True),))
    )
    ledger = Ledger([a_node("n1"), a_node("n2"), a_node("n3")], Setting())
    ledger.seat(Grant(0, 0, 0, job_class=alone))
    ledger.seat(Grant(1, 0, 0, job_class=apart))
    assert count_misses(ledger, a_kind()).kept_away == (("a job that is there alone", 1),)
    assert count_misses(ledger, alone).kept_away == (("jobs that run there, where it wants to be alone", 2),)
    assert count_misses(ledger, apart).kept_away == (
        ("a job that is there alone", 1), ("what it has to be near to or apart from", 1),
    )  # fmt: skip
    assert count_misses(ledger, a_kind(), within=frozenset({2})).kept_away == (("being in another pool", 2),)
