"""Nodes as they are sold, for a machine that has no such devices: real processes, devices of the profile."""

import re
from dataclasses import dataclass
from uuid import NAMESPACE_DNS, uuid5

from trellis.settings import SettingsError
from trellis.wire import GpuDescription, GpuReading

GIB = 2**30
_IDLE_TEMPERATURE_C = 30
_IDLE_SHARE_OF_POWER = 10
_GPU_POWER_W = 400
# What a profile in words may say, and what is meant where it does not.
_WORDS = {
    "gpus": 0, "gpu_memory_gb": 80, "cpu_cores": 8, "memory_gb": 32, "partitioned": 0, "numa_nodes": 0, "gpus_a_link": 0,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Profile:
    """`gpus_a_link` devices each reach one another by a fast interconnect. `sockets`: devices are spread over so many.
    The last `partitioned` of them are given in slices.
    """

    model: str
    gpus: int
    gpu_memory_bytes: int
    gpu_power_w: int
    cpus: int
    memory_bytes: int
    sockets: int = 1
    gpus_a_link: int = 1
    partitioned: int = 0

    def is_partitioned(self, index: int) -> bool:
        """Whether device `index` is given in slices."""
        return index >= self.gpus - self.partitioned


def _cpu(cpus: int, memory_gib: int) -> Profile:
    return Profile("", 0, 0, 0, cpus, memory_gib * GIB)


PROFILES = {
    "h200x8": Profile("NVIDIA H200", 8, 141 * GIB, 700, 192, 2048 * GIB, sockets=2, gpus_a_link=8),
    "h100x8": Profile("NVIDIA H100 80GB HBM3", 8, 80 * GIB, 700, 96, 2048 * GIB, sockets=2, gpus_a_link=8),
    "h100x1": Profile("NVIDIA H100 PCIe", 1, 80 * GIB, 350, 24, 240 * GIB),
    "a100x8": Profile("NVIDIA A100-SXM4-80GB", 8, 80 * GIB, 400, 96, 1024 * GIB, sockets=2, gpus_a_link=8),
    "a100x1": Profile("NVIDIA A100 80GB PCIe", 1, 80 * GIB, 300, 24, 220 * GIB),
    "l40sx4": Profile("NVIDIA L40S", 4, 48 * GIB, 350, 64, 512 * GIB, sockets=2),
    "l4x1": Profile("NVIDIA L4", 1, 24 * GIB, 72, 8, 32 * GIB),
    "t4x4": Profile("Tesla T4", 4, 16 * GIB, 70, 48, 192 * GIB),
    "cpu8": _cpu(8, 32),
    "cpu32": _cpu(32, 128),
    "cpu96": _cpu(96, 384),
}


def find(text: str) -> Profile | None:
    """The profile that `text` names or spells out; None for "", which is what is really there.

    Raises: SettingsError for one that can't be understood.
    """
    if not text:
        return None
    if text in PROFILES:
        return PROFILES[text]
    if "=" not in text:
        raise SettingsError(f"there is no profile {text}; there are {', '.join(sorted(PROFILES))}")
    said = dict(part.partition("=")[::2] for part in text.split(","))
    if unknown := said.keys() - {"gpu_type", *_WORDS}:
        raise SettingsError(f"a profile has no {min(unknown)}; it has gpu_type, {', '.join(_WORDS)}")
    amounts = {word: said.get(word, str(usual)) for word, usual in _WORDS.items()}
    if wrong := next((word for word, amount in amounts.items() if not re.fullmatch("[0-9]{1,7}", amount)), None):
        raise SettingsError(f"{wrong} of a profile must be a whole number, not {amounts[wrong]!r}")
    gpus, gpu_memory_gb, cpus, memory_gb, partitioned, numa_nodes, gpus_a_link = map(int, amounts.values())
    if partitioned > gpus:
        raise SettingsError(f"partitioned of a profile is how many of its {gpus} gpus are given in slices")
    return Profile(
        said.get("gpu_type", ""), gpus, gpu_memory_gb * GIB, _GPU_POWER_W, cpus or 1, (memory_gb or 1) * GIB,
        sockets=numa_nodes or (2 if gpus > 4 else 1), gpus_a_link=gpus_a_link or max(1, gpus), partitioned=partitioned,
    )  # fmt: skip


def describe_gpus(profile: Profile, node_name: str) -> tuple[GpuDescription, ...]:
    """The profile's devices; a node of the same name always has the same ones."""
    everyone = range(profile.gpus)
    return tuple(
        GpuDescription(
            index=index,
            uuid=f"GPU-{uuid5(NAMESPACE_DNS, f'{node_name}.{index}')}",
            model=profile.model,
            memory_bytes=profile.gpu_memory_bytes,
            numa=index * profile.sockets // profile.gpus,
            links=tuple(
                other
                for other in everyone
                if other != index and other // profile.gpus_a_link == index // profile.gpus_a_link
            ),
            partitioned=profile.is_partitioned(index),
        )
        for index in everyone
    )


def read_gpus(profile: Profile) -> tuple[GpuReading, ...]:
    """What such devices say when nothing runs on them."""
    idle_w = profile.gpu_power_w // _IDLE_SHARE_OF_POWER
    return tuple(GpuReading(index, 0, 0, _IDLE_TEMPERATURE_C, idle_w) for index in range(profile.gpus))


def figures(profile: Profile, node_name: str) -> dict[str, dict[str, float]]:
    """The same by uuid, as `agent.gpu_readings` tells it to the replicas that were given them."""
    uuids = [gpu.uuid for gpu in describe_gpus(profile, node_name)]
    return {
        uuid: {
            "utilisation_percent": reading.utilisation_percent, "memory_bytes": reading.memory_used_bytes,
            "power_w": reading.power_w, "temperature_c": reading.temperature_c, "ecc_errors": 0,
        }
        for uuid, reading in zip(uuids, read_gpus(profile), strict=True)
    }  # fmt: skip
