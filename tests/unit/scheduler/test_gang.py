from math import inf

from scheduler.backfill import Guard
from scheduler.gang import place_gang
from scheduler.ledger import Ledger
from tests.support.clusters import a_class, a_node, a_request


def test_replicas_share_a_node_where_they_fit() -> None:
    ledger = Ledger([a_node("n1", gpus=4), a_node("n2", gpus=8)])
    grants = place_gang(ledger, a_class(a_request(gpu_milli=2000), replicas=3), Guard((), inf))
    assert [(grant.number, grant.gpus) for grant in grants] == [
        (0, ((0, 1000), (1, 1000))),
        (0, ((2, 1000), (3, 1000))),
        (1, ((0, 1000), (1, 1000))),
    ]


def test_a_gang_short_of_room_takes_nothing_and_tells_how_many_fit() -> None:
    ledger = Ledger([a_node("n1", gpus=2), a_node("n2", gpus=1)])
    assert len(place_gang(ledger, a_class(a_request(gpu_milli=1000), replicas=4), Guard((), inf))) == 3
    assert [room.gpus for room in ledger.rooms] == [[1000, 1000], [1000]]
