from math import inf

import pytest

from scheduler.backfill import Guard
from scheduler.gang import place_gang
from scheduler.ledger import Ledger
from scheduler.placement.rooms import Grant
from tests.support.clusters import GIB, a_class, a_node, a_request

GRANT = Grant(0, 2000, GIB, ((1, 500), (2, 1000)))


def placed_on(ledger: Ledger, *, gpu_milli: int) -> tuple[tuple[int, int], ...] | None:
    grants = place_gang(ledger, a_class(a_request(gpu_milli=gpu_milli)), Guard((), inf))
    return grants[0].gpus if grants else None


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
    assert placed_on(ledger, gpu_milli=3000) is None
    assert placed_on(ledger, gpu_milli=500) == ((1, 500),)


def test_rolling_back_restores_the_mark_and_keeps_what_was_before_it() -> None:
    ledger = Ledger([a_node(gpus=4)])
    ledger.take(Grant(0, 1000, 0, ((0, 1000),)))
    mark = ledger.mark()
    ledger.take(GRANT)
    ledger.give(Grant(0, 1000, 0, ((0, 1000),)))
    ledger.rollback(mark)
    assert (ledger.rooms[0].cpu_milli, ledger.rooms[0].gpus) == (7000, [0, 1000, 1000, 1000])
    assert placed_on(ledger, gpu_milli=3000) == ((1, 1000), (2, 1000), (3, 1000))


def test_what_runs_already_is_seated_and_takes_nothing() -> None:
    ledger = Ledger([a_node(gpus=4)])
    ledger.seat(GRANT)
    assert (ledger.rooms[0].cpu_milli, ledger.rooms[0].tenants) == (8000, 1)


@pytest.mark.parametrize("grant", [Grant(0, 8001, 0, ()), Grant(0, 0, 33 * GIB, ()), Grant(0, 0, 0, ((0, 1001),))])
def test_nothing_is_given_twice(grant: Grant) -> None:
    with pytest.raises(ValueError, match="more than node 'n1' has free"):
        Ledger([a_node(gpus=1)]).take(grant)
