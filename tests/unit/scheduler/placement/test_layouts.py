from dataclasses import replace

import pytest

from scheduler.placement.layouts import choose_share, choose_slice, choose_whole, cliques_of, layout_of
from scheduler.snapshot import Node
from tests.support.clusters import a_node

PAIRS = (0, 0, 1, 1, 2, 2, 3, 3)
FOURS = (0, 0, 0, 0, 1, 1, 1, 1)


def wired(links: tuple[int, ...] = (), numa: tuple[int, ...] = (), gpus: int = 8) -> Node:
    return replace(a_node(gpus=gpus), gpu_links=links, gpu_numa=numa)


def test_nodes_with_the_same_devices_share_a_layout() -> None:
    assert layout_of(wired(FOURS)) is layout_of(replace(wired(FOURS), id="other", cpu_milli=1))
    assert layout_of(wired(FOURS)) is not layout_of(wired(PAIRS))


def test_where_nothing_is_known_the_lowest_devices_are_taken() -> None:
    assert choose_whole(layout_of(wired()), [0, 1000, 500, 1000, 1000, 1000, 0, 0], 2) == (1, 3)


@pytest.mark.parametrize(
    ("free", "count", "chosen"),
    [
        # The clique with exactly enough, so that the whole one stays whole.
        ("11001111", 2, (0, 1)),
        ("11101111", 1, (0,)),
        ("11101111", 3, (0, 1, 2)),
        ("11101111", 4, (4, 5, 6, 7)),
        # No clique has enough: the fewest cliques, the emptiest first.
        ("11001110", 4, (0, 4, 5, 6)),
        ("11111111", 6, (0, 1, 2, 3, 4, 5)),
    ],
)
def test_as_few_cliques_as_can_be_are_used_and_broken_into(free: str, count: int, chosen: tuple[int, ...]) -> None:
    gpus = [1000 * int(each) for each in free]
    assert choose_whole(layout_of(wired(FOURS)), gpus, count) == chosen


def test_within_a_clique_one_numa_node_is_preferred() -> None:
    layout = layout_of(wired(numa=(0, 0, 0, 0, 1, 1, 1, 1)))
    assert choose_whole(layout, [1000, 0, 0, 0, 1000, 1000, 0, 0], 2) == (4, 5)
    assert choose_whole(layout, [1000, 1000, 0, 0, 1000, 1000, 1000, 1000], 2) == (0, 1)


def test_cliques_count_before_numa_nodes() -> None:
    layout = layout_of(wired(links=(0, 1, 0, 1), numa=(0, 0, 1, 1), gpus=4))
    assert choose_whole(layout, [1000] * 4, 2) == (0, 2)


def test_a_share_breaks_into_no_clique_that_is_whole() -> None:
    layout = layout_of(wired(PAIRS))
    assert choose_share(layout, [1000, 1000, 1000, 0, 1000, 1000, 1000, 1000], 1000) == 2
    assert choose_share(layout, [400, 1000, 400, 0, 0, 0, 0, 0], 400) == 2
    assert choose_share(layout_of(wired()), [0, 400, 400, 0, 0, 0, 0, 0], 400) == 1


def test_cliques_are_counted() -> None:
    layout = layout_of(wired(PAIRS))
    assert cliques_of(layout, (0, 1)) == 1
    assert cliques_of(layout, (0, 2, 4)) == 3


def test_a_slice_goes_to_the_device_that_loses_least_by_it_then_to_the_fullest() -> None:
    node = replace(
        a_node(gpus=3, model="H100"), partitioned=(1, 2), gpu_milli_free=(1000, 0, 0), gpu_memory_bytes=80 * 2**30
    )
    layout = layout_of(node)
    # Device 1 has its upper half taken: there the small slice costs no start of a 7g.
    assert choose_slice(layout, [0, 0b11110000, 0], "1g.10gb") == (14, 1, 0b1000)
    assert choose_slice(layout, [0, 0, 0], "1g.10gb") == (16, 1, 0b1000000)
    assert choose_slice(layout, [0, 0xFF, 0xFF], "1g.10gb") is None
    assert choose_slice(layout_of(a_node(gpus=1)), [0], "1g.10gb") is None


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (wired(links=(0,)), "gpu_links names 1 devices of a node with 8"),
        (wired(numa=(0, 1)), "gpu_numa names 2 devices of a node with 8"),
        (replace(wired(), partitioned=(8,)), "partitioned names device 8 of a node with 8"),
    ],
)
def test_devices_that_the_node_has_not_are_refused(node: Node, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        layout_of(node)
