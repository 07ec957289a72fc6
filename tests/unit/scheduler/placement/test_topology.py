from dataclasses import replace

import pytest

from scheduler.placement.topology import WHOLE_CLUSTER, Part, Topology
from scheduler.snapshot import Node
from tests.support.clusters import a_node

LEVELS = ("zone", "rack")


def at(name: str, *domains: str) -> Node:
    return replace(a_node(name), domains=domains)


NODES = [at("n0", "a", "1"), at("n1", "a", "1"), at("n2", "a", "2"), at("n3", "b", "1"), at("n4", "b", ""), at("n5")]


def test_a_rack_of_one_zone_is_not_the_rack_of_that_name_in_another() -> None:
    zones, racks = Topology(NODES, LEVELS).levels
    assert zones.of == [0, 0, 0, 1, 1, -1]
    assert racks.paths == [("a", "1"), ("a", "2"), ("b", "1")]
    assert racks.of == [0, 0, 1, 2, -1, -1]
    assert racks.members == [[0, 1], [2], [3]]


def test_a_part_consists_of_the_next_level_and_of_nodes_that_lie_in_none_of_it() -> None:
    topology = Topology(NODES, LEVELS)
    assert list(topology.below(WHOLE_CLUSTER)) == [Part(0, 0), Part(0, 1), Part(2, 5)]
    assert list(topology.below(Part(0, 1))) == [Part(1, 2), Part(2, 4)]
    assert list(topology.below(Part(1, 0))) == [Part(2, 0), Part(2, 1)]


def test_who_shares_a_domain_shares_its_key_and_unknown_ones_share_it_with_nobody() -> None:
    topology = Topology(NODES, LEVELS)
    keys = [topology.domain("rack", number) for number in range(6)]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 5
    assert list(topology.members("rack", keys[0])) == [0, 1]
    assert [list(topology.members("rack", keys[number])) for number in (4, 5)] == [[4], [5]]
    assert [topology.domain("node", number) for number in range(6)] == list(range(6))


def test_levels_are_found_by_name() -> None:
    topology = Topology(NODES, LEVELS)
    assert [topology.depth(name) for name in ("zone", "rack", "node", "row")] == [0, 1, 2, None]
    assert topology.part_of(1, 4) is None
    assert topology.part_of(2, 4) == Part(2, 4)
    assert topology.part_of(-1, 4) == WHOLE_CLUSTER


def test_no_level_may_be_called_node() -> None:
    with pytest.raises(ValueError, match="may not be called 'node'"):
        Topology(NODES, ("node",))


def test_without_a_name_a_level_is_the_whole_cluster() -> None:
    topology = Topology(NODES, LEVELS)
    assert {topology.domain("", number) for number in range(6)} == {0}
    assert list(topology.members("", 0)) == list(range(6))
