"""What a node tells of a replica that is to be debugged: beside its log, never in place of it."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

from agent.executors.base import Exit, Start, Usage
from agent.reading import read_small

# Of those that the kernel keeps for each process (proc(5), /proc/PID/limits).
_LIMITS = frozenset({"processes", "open files", "core file size", "locked memory"})


def told_at_start(start: Start, spent_s: Mapping[str, float]) -> Iterator[str]:
    """What it starts, kept in how, with which variables (names alone: values may be secrets), and what took how long."""
    ground, spec, program = start.ground, start.spec, start.program
    yield f"debug: {', '.join(f'{phase} {seconds * 1000:.1f} ms' for phase, seconds in spent_s.items())}"
    yield f"debug: program {program.argv[0]!r} with {len(program.argv) - 1} arguments in {program.places.work}"
    yield f"debug: variables {', '.join(sorted(program.environment))}"
    kept_in = f"isolation {ground.confinement.level} ({ground.confinement.detail})"
    if spec.container:
        kept_in = f"container of {spec.container.image} as user {ground.site.user} by {ground.site.socket}"
    yield f"debug: {kept_in}, network {spec.network}"
    limit_s = "none" if spec.time_limit_s is None else f"{spec.time_limit_s} s"
    yield f"debug: {spec.cpu_milli} milli CPU, {spec.memory_bytes} bytes, time limit {limit_s}, grace {spec.grace_s} s"
    devices = [*(f"{one.uuid} ({one.milli} milli)" for one in spec.gpus), *(one.profile for one in spec.slices)]
    yield f"debug: devices {', '.join(devices) or 'none'}; nodes {', '.join(ground.device_nodes(spec)) or 'none'}"


def told_while_it_runs(pids: Sequence[int], proc: str = "/proc") -> Iterator[str]:
    """What the job itself could see of how it is kept: its mounts, without where on the node they are from, and its limits."""
    ours = _link(f"{proc}/self/ns/mnt")
    # The last is the furthest from us: past whatever sets up the namespaces.
    for pid in reversed(pids):
        limits = _limits(f"{proc}/{pid}/limits")
        if not limits:
            continue
        apart = _link(f"{proc}/{pid}/ns/mnt") != ours
        mounts = (
            ", ".join(_mounts(f"{proc}/{pid}/mountinfo")) if apart else "as the node does: it has no namespace for them"
        )
        yield f"debug: sees files {mounts}"
        yield f"debug: limits {', '.join(limits)}"
        return


def _mounts(path: str) -> Iterator[str]:
    """Where something is mounted, and whether it may be written to."""
    with suppress(OSError):
        for line in read_small(path).decode("utf-8", "replace").splitlines():
            fields = line.split()
            yield f"{fields[4]} ({'rw' if 'rw' in fields[5].split(',') else 'ro'})"


def _limits(path: str) -> list[str]:
    with suppress(OSError):
        rows = read_small(path).decode().splitlines()[1:]
        return [f"{row[4:26].strip()} {row[26:47].strip()}" for row in rows if row[4:26].strip() in _LIMITS]
    return []


def _link(path: str) -> str:
    with suppress(OSError):
        return os.readlink(path)
    return ""


def told_at_end(ended: Exit, usage: Usage, run_s: float, rested_s: float) -> str:
    """How it ended, and what it used."""
    rest = f", stood still for {rested_s:.3f} s" if rested_s else ""
    return (
        f"debug: code {ended.code}, signal {ended.signal}, ran {run_s:.3f} s{rest}, {usage.cpu_s:.3f} s of CPU, "
        f"at most {usage.peak_memory_bytes} bytes"
    )
