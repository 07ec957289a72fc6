"""What is asked for, held and offered, as sums: what shares, quotas and pools are counted in."""

from collections.abc import Iterable
from functools import lru_cache

from scheduler.placement.rooms import Grant
from scheduler.snapshot import WHOLE, Amounts, Holding, JobClass, Node

MIG_SLICES = 7
"""Compute slices of one partitioned device (NVIDIA, Multi-Instance GPU User Guide)."""


@lru_cache(maxsize=20_000)
def asked(job_class: JobClass) -> Amounts:
    """Return what a job of this class holds at the least once it runs."""
    cpu_milli = memory_bytes = gpu_milli = 0
    for role in job_class.roles:
        request = role.request
        cpu_milli += request.cpu_milli * role.least
        memory_bytes += request.memory_bytes * role.least
        gpu_milli += (slice_milli(request.mig_profile) if request.mig_profile else request.gpu_milli) * role.least
    return Amounts(cpu_milli, memory_bytes, gpu_milli)


def held(holdings: Iterable[Holding | Grant]) -> Amounts:
    """Return what replicas hold together, as shares, quotas and pools count it: slices too."""
    cpu_milli = memory_bytes = gpu_milli = 0
    for holding in holdings:
        cpu_milli += holding.cpu_milli
        memory_bytes += holding.memory_bytes
        gpu_milli += sum(milli for _, milli in holding.gpus)
        gpu_milli += sum(slice_milli(one.profile) for one in holding.slices)
    return Amounts(cpu_milli, memory_bytes, gpu_milli)


def offered(nodes: Iterable[Node]) -> Amounts:
    """Return what nodes have together, free or not, ready or not: a share shall not change with every reboot."""
    cpu_milli = memory_bytes = gpu_milli = 0
    for node in nodes:
        cpu_milli += node.cpu_milli
        memory_bytes += node.memory_bytes
        gpu_milli += WHOLE * len(node.gpu_milli_free)
    return Amounts(cpu_milli, memory_bytes, gpu_milli)


def slice_milli(profile: str) -> int:
    """Return which part of a device a MIG profile such as "2g.20gb" counts as: its compute slices of seven.

    Raises: ValueError for a name that does not begin with 1g to 7g.
    """
    slices, unit = profile[:1], profile[1:2]
    if not slices.isdecimal() or not 1 <= int(slices) <= MIG_SLICES or unit != "g":
        raise ValueError(f"mig_profile {profile!r} does not begin with 1g to {MIG_SLICES}g")
    return int(slices) * WHOLE // MIG_SLICES
