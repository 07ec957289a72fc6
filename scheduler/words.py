"""Amounts as people read them, in the messages of verdicts."""

from collections.abc import Mapping

from scheduler.snapshot import WHOLE, Request


def count(amount: int, noun: str) -> str:
    """Return "1 node", "2 nodes"."""
    return f"{amount} {noun}" if amount == 1 else f"{amount} {noun}s"


def cpus(milli: int) -> str:
    """Return "1 CPU", "0.5 CPUs"."""
    return "1 CPU" if milli == WHOLE else f"{milli / WHOLE:g} CPUs"


def gpus(milli: int) -> str:
    """Return "1 GPU", "0.5 GPUs"."""
    return "1 GPU" if milli == WHOLE else f"{milli / WHOLE:g} GPUs"


def size(amount_bytes: int) -> str:
    """Return "1.5 GiB", in the largest unit that it fills."""
    for unit, unit_bytes in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if amount_bytes >= unit_bytes:
            return f"{amount_bytes / unit_bytes:.1f} {unit}"
    return f"{amount_bytes} B"


def memory(amount_bytes: int) -> str:
    """Return "1.5 GiB of memory"."""
    return f"{size(amount_bytes)} of memory"


def gpu_kind(request: Request) -> str:
    """Return "GPU", "h100 GPU", "a100 or h100 GPU": the devices that will do for a request."""
    return f"{' or '.join(request.gpu_models)} GPU".lstrip()


def and_away(away: Mapping[str, int]) -> str:
    """How many nodes take no work at all now, by what they are: after a message, or nothing."""
    told = [f"{count(number, 'node')} {'is' if number == 1 else 'are'} {what}" for what, number in sorted(away.items())]
    return f"; {', '.join(told)}" if told else ""
