"""Amounts as people read them, in the messages of verdicts."""

from scheduler.snapshot import WHOLE


def count(amount: int, noun: str) -> str:
    """Return "1 node", "2 nodes"."""
    return f"{amount} {noun}" if amount == 1 else f"{amount} {noun}s"


def cpus(milli: int) -> str:
    """Return "1 CPU", "0.5 CPUs"."""
    return "1 CPU" if milli == WHOLE else f"{milli / WHOLE:g} CPUs"


def gpus(milli: int) -> str:
    """Return "1 GPU", "0.5 GPUs"."""
    return "1 GPU" if milli == WHOLE else f"{milli / WHOLE:g} GPUs"


def memory(amount_bytes: int) -> str:
    """Return "1.5 GiB of memory", in the largest unit that it fills."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if amount_bytes >= size:
            return f"{amount_bytes / size:.1f} {unit} of memory"
    return f"{amount_bytes} B of memory"
