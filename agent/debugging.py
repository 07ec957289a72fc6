"""What a node tells of a replica that is to be debugged: beside its log, never in place of it."""

from collections.abc import Iterator

from agent.executors.base import Exit, Start, Usage


def told_at_start(start: Start, prepared_s: float, started_s: float) -> Iterator[str]:
    """What it starts, kept in how, with which variables (names alone: values may be secrets), and how long that took."""
    ground, spec, program = start.ground, start.spec, start.program
    yield f"debug: prepared in {prepared_s * 1000:.1f} ms, started in {started_s * 1000:.1f} ms"
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


def told_at_end(ended: Exit, usage: Usage, run_s: float, rested_s: float) -> str:
    """How it ended, and what it used."""
    rest = f", stood still for {rested_s:.3f} s" if rested_s else ""
    return (
        f"debug: code {ended.code}, signal {ended.signal}, ran {run_s:.3f} s{rest}, {usage.cpu_s:.3f} s of CPU, "
        f"at most {usage.peak_memory_bytes} bytes"
    )
