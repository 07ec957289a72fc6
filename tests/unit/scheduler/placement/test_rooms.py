import pytest

from scheduler.placement.rooms import Room
from scheduler.snapshot import Request
from tests.support.clusters import GIB, a_request


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
        (Request(0, 0), 5, 5),
    ],
)
def test_a_room_counts_the_replicas_it_holds(request_: Request, most: int, fitting: int) -> None:
    room = Room(8000, 16 * GIB, [1000, 200, 1000], "h100")
    assert room.slots(request_, most) == fitting


def test_what_is_below_zero_holds_nothing() -> None:
    assert Room(-1, GIB, [], "").slots(a_request()) == 0
    assert Room(1000, GIB, [-500], "h100").slots(a_request(gpu_milli=500)) == 0


def test_whole_devices_are_chosen_lowest_first() -> None:
    assert Room(0, 0, [0, 1000, 500, 1000, 1000], "h100").devices_for(2000) == ((1, 1000), (3, 1000))


def test_a_share_takes_the_tightest_hole() -> None:
    assert Room(0, 0, [1000, 600, 500, 400], "h100").devices_for(500) == ((2, 500),)


def test_no_device_is_chosen_for_a_cpu_job() -> None:
    assert Room(0, 0, [1000], "h100").devices_for(0) == ()


def test_a_copy_changes_alone() -> None:
    room = Room(1000, GIB, [1000], "h100")
    room.copy().gpus[0] = 0
    assert room.gpus == [1000]
