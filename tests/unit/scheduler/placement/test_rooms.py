from dataclasses import replace

import pytest

from scheduler.placement.layouts import layout_of
from scheduler.placement.rooms import Grant, Room
from scheduler.snapshot import UNLIMITED, Constraints, Holding, Node, Request, Slice
from tests.support.clusters import GIB, a_class, a_node, a_request

HALF, PAIR = Slice(0, "3g.40gb", 4), Slice(0, "2g.20gb", 0)


def sliced_node() -> Node:
    node = a_node(gpus=2, model="H100")
    return replace(node, partitioned=(0,), gpu_milli_free=(0, 1000), gpu_memory_bytes=80 * GIB)


@pytest.mark.parametrize(
    ("request_", "most", "fitting"),
    [
        (a_request(), 99, 8),
        (a_request(), 3, 3),
        (a_request(gib=8), 99, 2),
        (a_request(gpu_milli=1000), 99, 2),
        (a_request(gpu_milli=2000), 99, 1),
        (a_request(gpu_milli=250), 99, 8),
        (a_request(gpu_milli=250, model="a100"), 99, 0),
        (Request(0, 0, 250, ("a100", "h100")), 99, 8),
        (Request(0, 0), 5, 5),
        (Request(0, 0), UNLIMITED, UNLIMITED),
        (Request(0, 0, mig_profile="1g.10gb"), 99, 0),
    ],
)
def test_a_room_counts_the_replicas_it_holds(request_: Request, most: int, fitting: int) -> None:
    room = Room(8000, 16 * GIB, [1000, 200, 1000], "h100")
    assert room.slots(request_, most) == fitting


def test_what_is_below_zero_holds_nothing() -> None:
    assert Room(-1, GIB, [], "").slots(a_request()) == 0
    assert Room(1000, GIB, [-500], "h100").slots(a_request(gpu_milli=500)) == 0


@pytest.mark.parametrize(
    "room",
    [Room(-1, GIB, [1000, 300], "h100"), Room(1000, -1, [1000, 300], "h100"), Room(1000, GIB, [-1, 1000], "h100")],
    ids=["CPUs", "memory", "a device"],
)
@pytest.mark.parametrize("cpu_milli", [0, 500])
@pytest.mark.parametrize("memory_bytes", [0, 5])
@pytest.mark.parametrize("gpu_milli", [0, 300, 1000])
def test_what_there_is_a_slot_for_can_be_taken_though_others_have_more_than_there_is_of_something_else(
    room: Room, cpu_milli: int, memory_bytes: int, gpu_milli: int
) -> None:
    """What is kept for others may be more than a node has: that concerns those who ask for the same."""
    request = Request(cpu_milli, memory_bytes, gpu_milli)
    assert room.slots(request, 1) == 0 or room.covers(room.grant(0, request))


def test_whole_devices_are_chosen_lowest_first() -> None:
    assert Room(0, 0, [0, 1000, 500, 1000, 1000], "h100").devices_for(2000) == ((1, 1000), (3, 1000))


def test_a_share_takes_the_tightest_hole() -> None:
    assert Room(0, 0, [1000, 600, 500, 400], "h100").devices_for(500) == ((2, 500),)


def test_no_device_is_chosen_for_a_cpu_job() -> None:
    assert Room(0, 0, [1000], "h100").devices_for(0) == ()


def test_an_overcommitted_device_has_room_for_a_whole_job_twice_but_not_for_two_devices_of_one() -> None:
    room = Room(0, 0, [2000], "h100")
    assert room.whole == 1
    assert room.slots(Request(0, 0, 2000)) == 0
    room.take(Grant(0, 0, 0, ((0, 1000),)))
    assert room.slots(Request(0, 0, 1000)) == 1


def test_a_copy_changes_alone() -> None:
    room = Room.of(sliced_node())
    room.copy().take(Grant(0, 1000, GIB, ((1, 1000),), (HALF,)))
    assert (room.gpus, room.masks, room.tenants) == ([0, 1000], [0, 0], 0)


def test_slices_are_taken_and_given_back() -> None:
    room = Room.of(sliced_node())
    assert room.slots(Request(0, 0, mig_profile="3g.40gb")) == 2
    room.take(Grant(0, 0, 0, slices=(HALF,)))
    assert room.masks == [0b11110000, 0]
    assert room.slots(Request(0, 0, mig_profile="3g.40gb")) == 1
    assert room.covers(Grant(0, 0, 0, slices=(PAIR,)))
    assert not room.covers(Grant(0, 0, 0, slices=(HALF,)))
    room.give(Grant(0, 0, 0, slices=(HALF,)))
    assert room.masks == [0, 0]


def test_slices_that_overlap_on_paper_are_put_back_exactly() -> None:
    room = Room.of(sliced_node())
    small = Slice(0, "1g.10gb", 5)
    room.take(Grant(0, 0, 0, slices=(HALF,)))
    room.take(Grant(0, 0, 0, slices=(small,)))
    room.give(Grant(0, 0, 0, slices=(small,)))
    assert room.masks == [0b11110000, 0]


def test_a_slice_is_granted_at_the_start_that_spoils_least() -> None:
    room = Room.of(sliced_node())
    grant = room.grant(3, Request(500, GIB, mig_profile="1g.10gb"), role=1)
    assert grant == Grant(3, 500, GIB, slices=(Slice(0, "1g.10gb", 6),), role=1)


def test_a_slice_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no device has a slice 7g\.80gb left"):
        Room.of(a_node(gpus=1)).choose(Request(0, 0, mig_profile="7g.80gb"))


def test_slices_of_a_model_that_nothing_is_known_of_are_nobodys_to_give() -> None:
    room = Room.of(replace(sliced_node(), gpu_model="X1"))
    room.seat(Grant(0, 0, 0, slices=(HALF,)))
    assert room.slots(Request(0, 0, mig_profile="3g.40gb")) == 0


def test_seating_tells_who_is_there_and_leaves_the_amounts_alone() -> None:
    room = Room.of(sliced_node())
    alone = replace(a_class(), constraints=Constraints(exclusive=True))
    room.seat(Grant.of(0, Holding("id-n1", 1000, GIB, slices=(PAIR,)), alone))
    assert (room.cpu_milli, room.masks, room.tenants, room.exclusive) == (8000, [0b11, 0], 1, 1)


def test_an_unused_room_is_the_whole_node() -> None:
    room = Room.unused(8000, GIB, layout_of(sliced_node()))
    assert (room.cpu_milli, room.gpus, room.model, room.tenants) == (8000, [0, 1000], "H100", 0)
