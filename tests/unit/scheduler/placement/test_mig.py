from itertools import permutations

import pytest

from scheduler.placement.mig import GIB, MEDIA, Geometry, geometry_of, profiles, slots_of, start_of
from scheduler.snapshot import Slice


def geometry(model: str = "H100", memory_gib: int = 80) -> Geometry:
    found = geometry_of(model, memory_gib * GIB)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("model", "memory_gib", "profiles"),
    [
        ("A100", 40, "1g.5gb 1g.5gb+me 1g.10gb 2g.10gb 3g.20gb 4g.20gb 7g.40gb"),
        ("A100", 80, "1g.10gb 1g.10gb+me 1g.20gb 2g.20gb 3g.40gb 4g.40gb 7g.80gb"),
        ("H100", 80, "1g.10gb 1g.10gb+me 1g.20gb 2g.20gb 3g.40gb 4g.40gb 7g.80gb"),
        ("H100", 94, "1g.12gb 1g.12gb+me 1g.24gb 2g.24gb 3g.47gb 4g.47gb 7g.94gb"),
        ("H100", 96, "1g.12gb 1g.12gb+me 1g.24gb 2g.24gb 3g.48gb 4g.48gb 7g.96gb"),
        ("h200", 141, "1g.18gb 1g.18gb+me 1g.35gb 2g.35gb 3g.71gb 4g.71gb 7g.141gb"),
        ("B200", 180, "1g.23gb 1g.23gb+me 1g.45gb 2g.45gb 3g.90gb 4g.90gb 7g.180gb"),
        ("A30", 24, "1g.6gb 1g.6gb+me 2g.12gb 2g.12gb+me 4g.24gb"),
    ],
)
def test_a_model_can_be_cut_into_the_profiles_of_the_user_guide(model: str, memory_gib: int, profiles: str) -> None:
    assert " ".join(geometry(model, memory_gib).masks) == profiles


@pytest.mark.parametrize(
    ("profile", "starts", "size"),
    [
        ("1g.10gb", [0, 1, 2, 3, 4, 5, 6], 1),
        ("1g.20gb", [0, 2, 4, 6], 2),
        ("2g.20gb", [0, 2, 4], 2),
        ("3g.40gb", [0, 4], 4),
        ("4g.40gb", [0], 4),
        ("7g.80gb", [0], 8),
    ],
)
def test_a_profile_begins_only_where_the_driver_lets_it(profile: str, starts: list[int], size: int) -> None:
    masks = [mask & ~MEDIA for mask in geometry().masks[profile]]
    assert masks == [((1 << size) - 1) << start for start in starts]


def test_what_is_known_of_the_memory_chooses_the_table_and_nothing_known_the_largest() -> None:
    assert "1g.12gb" in geometry("H100", 93).masks
    assert "1g.5gb" in geometry("A100", 39).masks
    largest = geometry_of("A100", 0)
    assert largest is not None
    assert "7g.80gb" in largest.masks
    assert geometry_of("T4", 16 * GIB) is None


@pytest.mark.parametrize(
    ("taken", "profile", "counted"),
    [(0, "1g.10gb", 7), (0, "1g.20gb", 4), (0, "2g.20gb", 3), (0, "3g.40gb", 2), (0, "7g.80gb", 1), (0, "1g.10gb+me", 1),
     (0b1111, "3g.40gb", 1), (0b10000, "3g.40gb", 1), (0b10000, "7g.80gb", 0), (MEDIA, "1g.10gb+me", 0),
     (0, "1g.5gb", 0)],
)  # fmt: skip
def test_slices_are_counted_side_by_side(taken: int, profile: str, counted: int) -> None:
    assert geometry().count(taken, profile) == counted


def test_the_start_is_chosen_that_keeps_most_others_open() -> None:
    # At 6 a small slice spoils neither 4g at 0 nor any 2g; at 0 it would spoil four profiles.
    chosen = geometry().choose(0, "1g.10gb", {})
    assert chosen is not None
    assert start_of(chosen[1]) == 6
    # A half goes to the upper end: 4g can begin at 0 alone.
    chosen = geometry().choose(0, "3g.40gb", {})
    assert chosen is not None
    assert start_of(chosen[1]) == 4


def test_what_is_popular_decides_which_starts_are_kept() -> None:
    # Where nobody asks for 4g but many for pairs at 6, the small one goes elsewhere.
    chosen = geometry().choose(0, "1g.10gb", {"1g.20gb": 10, "3g.40gb": 1})
    assert chosen is not None
    lost, mask = chosen
    assert lost == 10 * 2 + 4
    assert mask.bit_count() == 1


def test_seven_small_slices_placed_one_by_one_all_fit() -> None:
    taken = 0
    for _ in range(7):
        chosen = geometry().choose(taken, "1g.10gb", {})
        assert chosen is not None
        assert not chosen[1] & taken
        taken |= chosen[1]
    assert geometry().choose(taken, "1g.10gb", {}) is None


@pytest.mark.parametrize("order", sorted(set(permutations(["4g.40gb", "2g.20gb", "1g.10gb"]))))
def test_four_two_and_one_fit_together_whatever_comes_first(order: tuple[str, ...]) -> None:
    taken = 0
    for profile in order:
        chosen = geometry().choose(taken, profile, {})
        assert chosen is not None, f"{profile} found no start beside {taken:08b}"
        taken |= chosen[1]


def test_a_slice_knows_its_mask_and_an_impossible_one_is_refused() -> None:
    assert geometry().mask_of(Slice(0, "2g.20gb", 4)) == 0b110000
    with pytest.raises(ValueError, match=r"no slice 2g.20gb can begin at slot 1 of device 3"):
        geometry().mask_of(Slice(3, "2g.20gb", 1))


def test_what_has_been_cut_already_is_all_there_is() -> None:
    cut = geometry().only([("1g.10gb", 5), ("3g.40gb", 0), ("9g.90gb", 0)])
    assert {name: [start_of(mask) for mask in masks] for name, masks in cut.masks.items()} == {
        "1g.10gb": [5],
        "3g.40gb": [0],
    }
    assert cut.choose(0, "2g.20gb", {}) is None


def test_a_slice_takes_its_slots_and_perhaps_the_media_engines() -> None:
    assert slots_of("H100", 80 * GIB, Slice(0, "3g.40gb", 4)) == (4, 5, 6, 7)
    assert slots_of("H100", 80 * GIB, Slice(0, "1g.10gb+me", 2)) == (2, 8)
    with pytest.raises(ValueError, match="no slice 3g"):
        slots_of("H100", 80 * GIB, Slice(0, "3g.40gb", 1))
    with pytest.raises(ValueError, match="no slices are known"):
        slots_of("L4", 24 * GIB, Slice(0, "1g.10gb", 0))


def test_every_profile_of_every_model_is_known_by_name() -> None:
    assert {"1g.5gb", "1g.10gb+me", "7g.180gb", "4g.24gb"} <= profiles()
