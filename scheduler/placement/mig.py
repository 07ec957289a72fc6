"""Partitioned devices: which slices a model can be cut into, where each may begin, and where one had better.

A device's memory is a row of slots (eight, or four of an A30); a slice takes some side by side and may begin only at
certain ones. The state of a device is the mask of the slots that are taken; the bit above them stands for the one set
of media engines. Source: NVIDIA Multi-Instance GPU User Guide, "Supported MIG Profiles", and the placements that
`nvidia-smi mig -lgipp` lists there.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from scheduler.snapshot import Slice

GIB = 2**30
MEDIA = 1 << 8
"""The media engines that one slice of a device may have: a profile with `+me` takes them."""

_ONES, _PAIRS, _TWOS, _HALVES = (0, 1, 2, 3, 4, 5, 6), (0, 2, 4, 6), (0, 2, 4), (0, 4)


@dataclass(frozen=True, slots=True)
class Geometry:
    """What one device can be cut into: for each profile the masks that it may take, lowest start first."""

    masks: Mapping[str, tuple[int, ...]]

    def only(self, cuts: Collection[tuple[str, int]]) -> "Geometry":
        """Return what is left of it once a device has been cut: pairs of profile and first slot; unknown ones fall away."""
        kept = {
            name: tuple(mask for mask in masks if (name, start_of(mask)) in cuts) for name, masks in self.masks.items()
        }
        return Geometry({name: masks for name, masks in kept.items() if masks})

    def free(self, taken: int, profile: str) -> list[int]:
        """Return the masks at which `profile` fits beside what is `taken`; none for a profile the device has not."""
        return [mask for mask in self.masks.get(profile, ()) if not mask & taken]

    def count(self, taken: int, profile: str) -> int:
        """Count the slices of `profile` that fit side by side; starts of one profile never overlap."""
        free = self.free(taken, profile)
        return min(len(free), 1) if free and free[0] & MEDIA else len(free)

    def choose(self, taken: int, profile: str, weights: Mapping[str, int]) -> tuple[int, int] | None:
        """Choose the mask that keeps the most starts of other slices open, each worth its size times its weight.

        Returns (worth that is lost, mask), None where nothing fits. Of equals the highest start: low ones are those
        that large slices begin at.
        """
        free = self.free(taken, profile)
        before = self.worth(taken, weights) if free else 0
        return min(((before - self.worth(taken | mask, weights), mask) for mask in reversed(free)), default=None,
                   key=lambda loss: loss[0])  # fmt: skip

    def worth(self, taken: int, weights: Mapping[str, int]) -> int:
        """Return the memory slots that the starts still open lead to, each weighed; without weights all count alike.

        A start of a large slice is worth more than one of a small one, so a full device is preferred to an empty one.
        """
        return sum(
            weights.get(profile, not weights) * sum((mask & ~MEDIA).bit_count() for mask in self.free(taken, profile))
            for profile in self.masks
        )

    def mask_of(self, piece: Slice) -> int:
        """Return the mask that a slice takes. Raises ValueError for one that this device cannot have."""
        for mask in self.masks.get(piece.profile, ()):
            if start_of(mask) == piece.start:
                return mask
        raise ValueError(f"no slice {piece.profile} can begin at slot {piece.start} of device {piece.device}")


def start_of(mask: int) -> int:
    """Return the first memory slot of a mask."""
    return (mask & -mask).bit_length() - 1


@cache
def geometry_of(model: str, memory_bytes: int) -> Geometry | None:
    """Return how a device of this model and memory may be cut; None for a model that cannot be, or is not known.

    Of a model with several sizes of memory the nearest counts; where the memory is not known (0), the largest.
    """
    sizes = _MODELS.get(model.upper())
    if sizes is None:
        return None
    wanted = memory_bytes or max(sizes) * GIB
    return Geometry(sizes[min(sizes, key=lambda gb: abs(gb * GIB - wanted))])


def slots_of(model: str, memory_bytes: int, piece: Slice) -> tuple[int, ...]:
    """Return the memory slots that a slice takes, and for the media engines the one above them all.

    Raises: ValueError for a slice that such a device cannot have.
    """
    geometry = geometry_of(model, memory_bytes)
    if geometry is None:
        raise ValueError(f"device {piece.device} is a {model}, of which no slices are known")
    mask = geometry.mask_of(piece)
    return tuple(slot for slot in range(mask.bit_length()) if mask >> slot & 1)


def profiles() -> frozenset[str]:
    """Return the names of all slices that some model can be cut into."""
    return frozenset(name for sizes in _MODELS.values() for profiles in sizes.values() for name in profiles)


def _masks(size: int, starts: Iterable[int], extra: int = 0) -> tuple[int, ...]:
    return tuple((((1 << size) - 1) << start) | extra for start in starts)


def _seven(one: int, double: int, half: int, full: int) -> dict[str, tuple[int, ...]]:
    """Return the profiles of a device with seven compute slices over eight memory slots, by their sizes in GB."""
    return dict(_seven_items(one, double, half, full))


def _seven_items(one: int, double: int, half: int, full: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"1g.{one}gb", _masks(1, _ONES)
    yield f"1g.{one}gb+me", _masks(1, _ONES, MEDIA)
    yield f"1g.{double}gb", _masks(2, _PAIRS)
    yield f"2g.{double}gb", _masks(2, _TWOS)
    yield f"3g.{half}gb", _masks(4, _HALVES)
    yield f"4g.{half}gb", _masks(4, (0,))
    # Whoever has the whole device has its media engines.
    yield f"7g.{full}gb", _masks(8, (0,), MEDIA)


_A30 = {
    "1g.6gb": _masks(1, (0, 1, 2, 3)),
    "1g.6gb+me": _masks(1, (0, 1, 2, 3), MEDIA),
    "2g.12gb": _masks(2, (0, 2)),
    "2g.12gb+me": _masks(2, (0, 2), MEDIA),
    "4g.24gb": _masks(4, (0,), MEDIA),
}
_H100 = {80: _seven(10, 20, 40, 80), 94: _seven(12, 24, 47, 94), 96: _seven(12, 24, 48, 96)}
_MODELS: dict[str, dict[int, dict[str, tuple[int, ...]]]] = {
    "A30": {24: _A30},
    "A100": {40: _seven(5, 10, 20, 40), 80: _seven(10, 20, 40, 80)},
    "H100": _H100,
    "GH200": {96: _H100[96]},
    "H20": {96: _H100[96]},
    "H200": {141: _seven(18, 35, 71, 141)},
    "B200": {180: _seven(23, 45, 90, 180)},
}
"""Profiles by model and memory in GB."""
