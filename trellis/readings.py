"""Which readings a machine can have: what a node never sends, and what is refused from one that does."""

from collections.abc import Iterator

from trellis.errors import Field
from trellis.units import LARGEST
from trellis.wire import GpuReading, Heartbeat

MOST_DEVICES = 64
MOST_FINDINGS = 100
MOST_HOOK_RUNS = 50
LONGEST_WORD, LONGEST_SAYING = 40, 2000
_BOUNDS = {
    "utilisation_percent": (0, 100), "memory_used_bytes": (0, LARGEST), "temperature_c": (-100, 300), "power_w": (0, 100_000),
    "index": (0, MOST_DEVICES - 1),
}  # fmt: skip


def faults_of(reading: GpuReading) -> list[Field]:
    """What in a reading of a device can't be."""
    return [
        Field(f"/{name}", f"is {getattr(reading, name)}, and can only be {least} to {most}")
        for name, (least, most) in _BOUNDS.items()
        if not least <= getattr(reading, name) <= most
    ]


def faults_in(beat: Heartbeat) -> Iterator[Field]:
    """What in a heartbeat can't be, by where it stands."""
    bounds = {"load_percent": (0, 100), "memory_used_bytes": (0, LARGEST), "disk_free_bytes": (0, LARGEST)}
    for name, (least, most) in bounds.items():
        if not least <= getattr(beat, name) <= most:
            yield Field(f"/{name}", f"is {getattr(beat, name)}, and can only be {least} to {most}")
    if len(beat.gpus) > MOST_DEVICES:
        yield Field("/gpus", f"are more than {MOST_DEVICES}")
    for place, reading in enumerate(beat.gpus[:MOST_DEVICES]):
        for fault in faults_of(reading):
            yield Field(f"/gpus/{place}{fault.pointer}", fault.message)
    yield from _in_words(beat)


def _in_words(beat: Heartbeat) -> Iterator[Field]:
    if len(beat.at) > LONGEST_WORD:
        yield Field("/at", f"is longer than {LONGEST_WORD} characters")
    if len(beat.hooks) > MOST_HOOK_RUNS:
        yield Field("/hooks", f"are more than {MOST_HOOK_RUNS}")
    for place, run in enumerate(beat.hooks[:MOST_HOOK_RUNS]):
        if max(len(run.hook), len(run.replica_id)) > LONGEST_WORD or len(run.output) > LONGEST_SAYING:
            yield Field(f"/hooks/{place}", "says too much")
    if beat.checkup is None:
        return
    if not 0 <= beat.checkup.number <= LARGEST or len(beat.checkup.findings) > MOST_FINDINGS:
        yield Field("/checkup", f"must be numbered from 0, with at most {MOST_FINDINGS} findings")
    for place, finding in enumerate(beat.checkup.findings[:MOST_FINDINGS]):
        if not 1 <= len(finding.check) <= LONGEST_WORD or len(finding.message) > LONGEST_SAYING:
            yield Field(f"/checkup/findings/{place}", "says too much, or not what was checked")
        if finding.device is not None and not 0 <= finding.device < MOST_DEVICES:
            yield Field(f"/checkup/findings/{place}/device", "is no index of a device")
