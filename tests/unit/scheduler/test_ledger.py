import pytest

from scheduler.ledger import Ledger
from scheduler.placement.rooms import Grant
from tests.support.clusters import GIB, a_node

GRANT = Grant(0, 2000, GIB, ((1, 500), (2, 1000)))


def test_nodes_are_numbered_by_name_then_id() -> None:
    ledger = Ledger([a_node("b"), a_node("a")])
    assert [node.name for node in ledger.nodes] == ["a", "b"]
    assert ledger.number_of == {"id-a": 0, "id-b": 1}


def test_taking_subtracts_and_giving_adds() -> None:
    ledger = Ledger([a_node(gpus=4)])
    room = ledger.rooms[0]
    ledger.take(GRANT)
    assert (room.cpu_milli, room.memory_bytes, room.gpus, room.whole) == (6000, 31 * GIB, [1000, 500, 0, 1000], 2)
    ledger.give(GRANT)
    assert (room.cpu_milli, room.memory_bytes, room.gpus, room.whole) == (8000, 32 * GIB, [1000] * 4, 4)


def test_the_index_follows_every_change() -> None:
    ledger = Ledger([a_node(gpus=4)])
    ledger.take(GRANT)
    assert ledger.capacity.bucket("h100", 4) == []
    assert ledger.capacity.bucket("h100", 2) == [(6000, 0)]
    assert list(ledger.capacity.holes("h100", 1)) == [(500, 0, 1)]


def test_rolling_back_restores_the_mark_and_keeps_what_was_before_it() -> None:
    ledger = Ledger([a_node(gpus=4)])
    ledger.take(Grant(0, 1000, 0, ((0, 1000),)))
    mark = ledger.mark()
    ledger.take(GRANT)
    ledger.give(Grant(0, 1000, 0, ((0, 1000),)))
    ledger.rollback(mark)
    assert (ledger.rooms[0].cpu_milli, ledger.rooms[0].gpus) == (7000, [0, 1000, 1000, 1000])
    assert ledger.capacity.bucket("h100", 3) == [(7000, 0)]


@pytest.mark.parametrize("grant", [Grant(0, 8001, 0, ()), Grant(0, 0, 33 * GIB, ()), Grant(0, 0, 0, ((0, 1001),))])
def test_nothing_is_given_twice(grant: Grant) -> None:
    with pytest.raises(ValueError, match="more than node 'n1' has free"):
        Ledger([a_node(gpus=1)]).take(grant)
