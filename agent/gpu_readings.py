"""What GPUs say of themselves, from the one that asks the driver to all supervisors of the node.

The daemon asks with each heartbeat and writes it to a file: a supervisor that asked by itself would hold a driver of its own
in memory, and a node of a profile has none.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent import clock
from agent.ground import Ground, slice_key
from agent.layout import read_json, write_json
from trellis.wire import ReplicaSpec

# What is older says nothing of now: the daemon is gone, or the driver hangs.
STALE_S = 30.0
# What a device may say that is used by nobody.
IDLE_PERCENT = 1
# Counters that only grow: told as rates.
_COUNTERS = {"nvlink_sent_bytes": "nvlink_sent_bytes_per_s", "nvlink_received_bytes": "nvlink_received_bytes_per_s"}
Figures = Mapping[str, float]


def publish(path: Path, gpus: Mapping[str, Figures]) -> None:
    """Write what each device says now, by its uuid."""
    write_json(path, {"at": clock.boottime(), "gpus": gpus})


def are_busy(path: Path, uuids: Collection[str]) -> bool:
    """Whether any of these devices does anything, or may: nobody has asked lately. One that says nothing does nothing."""
    told: Any = read_json(path) if uuids else None
    if told is None:
        return False
    if not 0 <= clock.boottime() - told["at"] <= STALE_S:
        return True
    return any(told["gpus"].get(uuid, {}).get("utilisation_percent", 0) >= IDLE_PERCENT for uuid in uuids)


def uuids_of(ground: Ground, spec: ReplicaSpec) -> tuple[str, ...]:
    """The devices of a replica in the order in which it counts them; a slice has a uuid of its own."""
    keys = [slice_key(one.uuid, one.profile, one.start) for one in spec.slices]
    return (*(one.uuid for one in spec.gpus), *(ground.slices[key][0] for key in keys if key in ground.slices))


@dataclass(slots=True)
class GpuMeter:
    """Reads those of one replica's devices; counters are told as rates since the last time."""

    path: Path
    uuids: Sequence[str] = ()
    _before: dict[str, tuple[float, Figures]] = field(default_factory=dict)

    def read(self) -> dict[str, float]:
        """`gpu<n>_<figure>`, n being the number by which the job knows the device; nothing of what nobody has asked lately."""
        told: Any = read_json(self.path) if self.uuids else None
        if told is None or not 0 <= clock.boottime() - told["at"] <= STALE_S:
            return {}
        found = {}
        for number, uuid in enumerate(self.uuids):
            for name, value in self._since(uuid, told["at"], told["gpus"].get(uuid, {})).items():
                found[f"gpu{number}_{name}"] = value
        return found

    def _since(self, uuid: str, at: float, figures: Figures) -> dict[str, float]:
        before_at, before = self._before.get(uuid, (at, {}))
        self._before[uuid] = (at, figures)
        plain = {name: value for name, value in figures.items() if name not in _COUNTERS}
        rates = {
            _COUNTERS[name]: max(0.0, value - before[name]) / (at - before_at)
            for name, value in figures.items()
            if name in _COUNTERS and name in before and at > before_at
        }
        return plain | rates
