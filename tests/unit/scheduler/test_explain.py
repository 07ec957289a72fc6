from dataclasses import replace

import pytest

from scheduler.explain import why_behind, why_no_room
from scheduler.ledger import Ledger
from scheduler.placement.rooms import Grant
from scheduler.plan import Reason
from scheduler.snapshot import Node, Request, Slice, Taint
from tests.support.clusters import GIB, a_class, a_node, a_request


def left(name: str, *, cpus: int = 8, gib: int = 8, gpus: tuple[int, ...] = ()) -> Node:
    node = a_node(name, gpus=len(gpus))
    return replace(node, cpu_milli_free=cpus * 1000, memory_bytes_free=gib * GIB, gpu_milli_free=gpus)


@pytest.mark.parametrize(
    ("nodes", "request_", "message"),
    [
        (
            [left("a", gib=4), left("b", gib=2), left("c", cpus=0)],
            a_request(gib=8),
            "2 of 3 nodes fit but for memory: 4.0 GiB short",
        ),
        (
            [left("a", gib=1), left("b", cpus=3)],
            a_request(cpus=4, gib=8),
            "1 of 2 nodes fits but for CPUs: 1 CPU short",
        ),
        ([left("a", gib=4), left("b", gib=2)], a_request(gib=8), "2 of 2 nodes fit but for memory: 4.0 GiB short"),
        (
            [left("a", gib=4), left("b", cpus=0, gib=2)],
            a_request(gib=8),
            "1 of 2 nodes fits but for memory: 4.0 GiB short",
        ),
        (
            [left("a", cpus=1, gib=1)],
            a_request(cpus=3, gib=2),
            "no node has both CPUs and memory free: the nearest is 2 CPUs and 1.0 GiB short",
        ),
        (
            [left("a", gpus=(1000, 1000, 0)), left("b", gpus=(1000, 500))],
            a_request(gpu_milli=3000),
            "needs 3 GPUs on one node; the best node has 2 free",
        ),
        (
            [left("a", gpus=(0,))],
            a_request(gpu_milli=1000, model="h100"),
            "needs 1 h100 GPU on one node; the best node has 0 free",
        ),
        ([left("a", gpus=(0, 250))], a_request(gpu_milli=500), "needs 0.5 of one GPU; the largest free share is 0.25"),
        (
            [left("a", gib=1, gpus=(500,))],
            a_request(gib=2, gpu_milli=500),
            "1 of 1 node fits but for memory: 1.0 GiB short",
        ),
    ],
)
def test_a_lack_of_room_names_the_nearest_miss(nodes: list[Node], request_: Request, message: str) -> None:
    assert why_no_room(Ledger(nodes), a_class(request_), 0) == (Reason.NO_ROOM, message)


def test_nodes_that_room_would_not_help_are_counted_with_their_commonest_cause() -> None:
    taint = Taint("gpu", "reserved")
    nodes = [replace(left(f"t{number}"), taints=(taint,)) for number in range(3)] + [
        left("a", gib=1),
        left("b", cpus=0),
    ]
    assert why_no_room(Ledger(nodes), a_class(a_request(gib=2)), 0)[1] == (
        "3 of 5 nodes are kept away by taint gpu=reserved; 1 of 5 nodes fits but for memory: 1.0 GiB short"
    )
    assert why_no_room(Ledger(nodes[:3]), a_class(), 0)[1] == "3 of 3 nodes are kept away by taint gpu=reserved"


def test_a_slice_that_is_not_free_is_named() -> None:
    node = replace(left("a", gpus=(0,)), partitioned=(0,), gpu_model="H100", gpu_memory_bytes=80 * GIB)
    ledger = Ledger([node])
    ledger.seat(Grant(0, 0, 0, slices=(Slice(0, "7g.80gb", 0),)))
    job_class = a_class(Request(1000, GIB, mig_profile="2g.20gb"))
    assert why_no_room(ledger, job_class, 0)[1] == "needs a slice 2g.20gb of one GPU; none is free"


def test_a_gang_is_told_how_many_replicas_have_room() -> None:
    assert why_no_room(Ledger([a_node()]), a_class(replicas=9), 8)[1] == "room for 8 of 9 replicas"


def test_the_first_in_line_waits_behind_nobody() -> None:
    assert why_behind(1)[1] == "waits behind 0 jobs of its queue"
