from scheduler.capacity import Capacity
from scheduler.placement.rooms import Room


def test_rooms_are_found_by_model_and_whole_devices_with_fewest_cpus_first() -> None:
    capacity = Capacity()
    capacity.add(1, Room(4000, 0, [1000, 0], "h100"))
    capacity.add(2, Room(2000, 0, [0, 1000], "h100"))
    capacity.add(3, Room(1000, 0, [1000], "a100"))
    assert capacity.bucket("h100", 1) == [(2000, 2), (4000, 1)]
    assert capacity.bucket("h100", 7) == []
    assert capacity.bucket("b200", 1) == []


def test_holes_come_tightest_first() -> None:
    capacity = Capacity()
    capacity.add(0, Room(0, 0, [700, 1000, 0], "h100"))
    capacity.add(1, Room(0, 0, [300, 500], "h100"))
    assert list(capacity.holes("h100", 400)) == [(500, 1, 1), (700, 0, 0)]
    assert list(capacity.holes("a100", 1)) == []


def test_a_removed_room_is_gone_everywhere() -> None:
    capacity, room = Capacity(), Room(1000, 0, [400, 1000], "h100")
    capacity.add(0, room)
    capacity.remove(0, room)
    assert capacity.bucket("h100", 1) == []
    assert list(capacity.holes("h100", 1)) == []


def test_no_model_means_any_and_an_unknown_one_means_none() -> None:
    capacity = Capacity()
    for number, model in enumerate(("", "h100", "a100")):
        capacity.add(number, Room(0, 0, [], model))
    assert capacity.models(()) == ["", "a100", "h100"]
    assert capacity.models(("h100",)) == ["h100"]
    assert capacity.models(("b200",)) == []
