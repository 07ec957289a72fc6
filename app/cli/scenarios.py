"""What `trellis simulate` reads: the nodes of a simulated cluster, and what work to draw for it.

The cluster is written as for `trellis up`, but may have thousands of nodes.

    clusters:
      - nodes:
          - {name: dgx, count: 512, gpus: 8, gpu_type: H100, cpu_cores: 96, memory_gb: 2048, rack_of: 16}

The load names any of the fields of `scheduler.simulator.workload.Load`:

    jobs: 5000
    intensity: 0.95
    sizes: {1: 60, 8: 30, 64: 10}
"""

from collections.abc import Mapping
from dataclasses import fields
from math import isfinite
from pathlib import Path
from typing import Any

import yaml

from app.cli.cluster import LARGEST_FILE_BYTES, MOST_IN_FILE, Group, read_groups
from app.cli.errors import StackError
from app.cli.places import located
from scheduler.simulator.cluster import NodeGroup, build_nodes
from scheduler.simulator.workload import Load
from scheduler.snapshot import WHOLE, Effect, Node, Taint

MOST_JOBS = 1_000_000
GB = 10**9
_COUNTS = {"jobs": MOST_JOBS, "users": 100_000, "projects": 10_000}
_AMOUNTS = {
    "intensity": (0.001, 100.0), "daily": (0.0, 0.99), "median_s": (1.0, 1e8), "spread": (0.0, 10.0),
    "overestimate": (1.0, 1000.0), "failing": (0.0, 0.99), "node_mtbf_h": (0.01, 1e8), "repair_h": (0.01, 1e6),
}  # fmt: skip


def read_nodes(path: Path) -> tuple[Node, ...]:
    """The nodes of a simulated cluster. Raises StackError that says where the file is wrong, and how."""
    groups = read_groups(path, _read(path), MOST_IN_FILE)
    try:
        return build_nodes(map(_group, groups))
    except ValueError as error:
        raise StackError(located(path, str(error))) from error


def read_load(path: Path) -> Load:
    """What work to draw. Raises StackError that says where the file is wrong, and how."""
    content = _read(path)
    try:
        return _load(content)
    except ValueError as error:
        raise StackError(f"{path}: {error}.") from error


def _read(path: Path) -> Any:
    try:
        if path.stat().st_size > LARGEST_FILE_BYTES:
            raise StackError(f"{path} is larger than 1 MiB.")
        return yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StackError(f"{path} is not YAML: {str(error).splitlines()[0]}.") from error


def _group(group: Group) -> NodeGroup:
    """As the simulator has it. Pools and prices are the server's: drawn work knows none."""
    of = group.amounts.get
    return NodeGroup(
        name=group.name,
        count=group.count,
        cpu_milli=of("cpu_cores", 32) * WHOLE,
        memory_bytes=of("memory_gb", 128) * GB,
        gpus=of("gpus", 0),
        gpu_model=group.gpu_type,
        gpus_a_link=of("gpus_a_link", 0),
        partitioned=of("partitioned", 0),
        rack_of=group.rack_of,
        rack=group.domains.get("rack", ""),
        labels=tuple(sorted(group.labels.items())),
        taints=tuple(_taint(taint, f"{group.where}.taints[{number}]") for number, taint in enumerate(group.taints)),
    )


def _taint(taint: Mapping[str, str], where: str) -> Taint:
    effect = taint.get("effect", str(Effect.REFUSE))
    if effect not in {str(known) for known in Effect}:
        raise ValueError(f"{where}.effect must be one of {', '.join(map(str, Effect))}")
    return Taint(taint["key"], taint.get("value", ""), Effect(effect))


def _load(content: Any) -> Load:
    if not isinstance(content, dict):
        raise ValueError("the file must be a mapping")
    known = {field.name for field in fields(Load)}
    if unknown := {str(key) for key in content} - known:
        raise ValueError(f"{min(unknown)} is not known; there are {', '.join(sorted(known))}")
    given: dict[str, Any] = {}
    for key, value in content.items():
        if key == "sizes":
            given[key] = _sizes(value)
        elif key in _COUNTS:
            given[key] = _whole_number(value, key, _COUNTS[key], least=1)
        else:
            given[key] = _amount(value, key, *_AMOUNTS[key])
    return Load(**given)


def _sizes(value: Any) -> tuple[tuple[int, float], ...]:
    if not isinstance(value, dict) or not value:
        raise ValueError("sizes must be a mapping of GPUs to weight")
    return tuple(
        (_whole_number(size, "sizes", 1 << 20, least=1), _amount(weight, f"sizes.{size}", 1e-9, 1e9))
        for size, weight in value.items()
    )


def _whole_number(value: Any, where: str, most: int, *, least: int = 0) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{where} must be a whole number from {least} to {most}")
    return value


def _amount(value: Any, where: str, least: float, most: float) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not (isfinite(value) and least <= value <= most)
    ):
        raise ValueError(f"{where} must be a number from {least:g} to {most:g}")
    return float(value)
