"""The devices of a node: how they are wired, and which of the free ones a replica had better take."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

from scheduler.placement.mig import Geometry, geometry_of
from scheduler.snapshot import WHOLE, Node

Devices = tuple[tuple[int, int], ...]
"""Pairs of device index and milli."""

NOTHING: Mapping[str, int] = {}


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """What nodes with the same devices have in common; compared by identity.

    `links[i]` and `numa[i]` number the NVLink clique and the NUMA node of device i; `partitioned` are the devices that
    are cut into slices, as `geometry` allows. `largest_clique` is how many devices the largest NVLink clique has; in
    `one_clique` no choice of devices is better than another for being near to each other.
    """

    model: str
    links: tuple[int, ...]
    numa: tuple[int, ...]
    partitioned: tuple[int, ...]
    geometry: Geometry | None
    largest_clique: int
    one_clique: bool


def layout_of(node: Node) -> Layout:
    """Return the layout of a node; equal ones are one object."""
    return _layout(
        node.gpu_model,
        len(node.gpu_milli_free),
        node.gpu_links,
        node.gpu_numa,
        tuple(sorted(node.partitioned)),
        node.gpu_memory_bytes,
        node.cuts,
    )


def plain_layout(model: str, devices: int) -> Layout:
    """Return the layout of devices of which no more is known."""
    return _layout(model, devices, (), (), (), 0)


@lru_cache(maxsize=4096)
def _layout(
    model: str,
    devices: int,
    links: tuple[int, ...],
    numa: tuple[int, ...],
    partitioned: tuple[int, ...],
    memory_bytes: int,
    cuts: tuple[tuple[str, int], ...] = (),
) -> Layout:
    for name, values in (("gpu_links", links), ("gpu_numa", numa)):
        if values and len(values) != devices:
            raise ValueError(f"{name} names {len(values)} devices of a node with {devices}")
    if partitioned and not 0 <= partitioned[0] <= partitioned[-1] < devices:
        raise ValueError(f"partitioned names device {partitioned[-1]} of a node with {devices}")
    alike = (0,) * devices
    geometry = geometry_of(model, memory_bytes) if partitioned else None
    if geometry is not None and cuts:
        geometry = geometry.only(cuts)
    links, numa = links or alike, numa or alike
    largest_clique = max(Counter(links).values(), default=0)
    return Layout(model, links, numa, partitioned, geometry, largest_clique, len({*zip(links, numa, strict=True)}) <= 1)


def choose_whole(layout: Layout, gpus: Sequence[int], count: int) -> tuple[int, ...]:
    """Choose `count` unused devices, near to each other, so that as few cliques as can be are broken into.

    In one NVLink clique if any has enough, of those the one with fewest left over, and in it the same by NUMA node;
    where none has, the fewest cliques: the emptiest first, the last one as tight as it fits. There must be enough.
    """
    free = [device for device, milli in enumerate(gpus) if milli >= WHOLE]
    if layout.one_clique or len(free) == count:
        return tuple(free[:count])
    return tuple(sorted(_nearest(free, (layout.links, layout.numa), count)))


def choose_share(layout: Layout, gpus: Sequence[int], milli: int) -> int:
    """Choose a device with exactly `milli` left: of equals where its clique has fewest unused devices to lose."""
    able = [device for device, left in enumerate(gpus) if left == milli]
    if layout.one_clique or len(able) == 1:
        return able[0]
    unused = [(layout.links[device], layout.numa[device]) for device, left in enumerate(gpus) if left >= WHOLE]
    return min(
        able,
        key=lambda device: (
            sum(link == layout.links[device] for link, _ in unused),
            sum(numa == layout.numa[device] for _, numa in unused),
            device,
        ),
    )


def choose_slice(
    layout: Layout, masks: Sequence[int], profile: str, weights: Mapping[str, int] = NOTHING
) -> tuple[int, int, int] | None:
    """Choose (worth that is lost, device, mask) for a slice: the least is lost, then the fullest device.

    `masks[i]` is what is taken of device i. None where no partitioned device has room for it.
    """
    geometry = layout.geometry
    if geometry is None:
        return None
    found = [
        (choice[0], -masks[device].bit_count(), device, choice[1])
        for device in layout.partitioned
        if (choice := geometry.choose(masks[device], profile, weights)) is not None
    ]
    if not found:
        return None
    lost, _, device, mask = min(found)
    return lost, device, mask


def cliques_of(layout: Layout, devices: Sequence[int]) -> int:
    """Count the NVLink cliques that these devices lie in."""
    return len({layout.links[device] for device in devices})


def _nearest(free: list[int], groupings: Sequence[tuple[int, ...]], count: int) -> Iterator[int]:
    """Take devices group by group, narrowing from the first grouping to the last."""
    if not groupings or len(free) == count:
        yield from free[:count]
        return
    labels = groupings[0]
    ordered = sorted(free, key=lambda device: (labels[device], device))
    groups = [list(each) for _, each in groupby(ordered, key=lambda device: labels[device])]
    while count:
        enough = [group for group in groups if len(group) >= count]
        group = min(enough, key=len) if enough else max(groups, key=len)
        groups.remove(group)
        here = min(len(group), count)
        yield from _nearest(group, groupings[1:], here)
        count -= here
