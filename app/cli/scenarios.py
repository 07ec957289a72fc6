"""What `trellis simulate` reads: the nodes of a simulated cluster, and what work to draw for it.

The cluster is written as for `trellis up`, but may have thousands of nodes; `rack_of: 16` puts so many into one rack.

    clusters:
      - nodes:
          - {name: dgx, count: 512, gpus: 8, gpu_type: H100, cpu_cores: 96, memory_gb: 2048, rack_of: 16}

The load names any of the fields of `scheduler.simulator.workload.Load`:

    jobs: 5000
    intensity: 0.95
    sizes: {1: 60, 8: 30, 64: 10}
"""

from dataclasses import fields
from math import isfinite
from pathlib import Path
from typing import Any

import yaml

from app.cli.cluster import LARGEST_FILE_BYTES
from app.cli.errors import StackError
from scheduler.simulator.cluster import NodeGroup, build_nodes
from scheduler.simulator.workload import Load
from scheduler.snapshot import WHOLE, Node

MOST_NODES = 100_000
MOST_JOBS = 1_000_000
GB = 10**9
_WHOLE = {
    "count": MOST_NODES,
    "gpus": 64,
    "cpu_cores": 4096,
    "memory_gb": 1 << 20,
    "gpu_memory_gb": 4096,
    "rack_of": 4096,
}
_NODE_KEYS = frozenset({"name", "gpu_type", *_WHOLE})
_COUNTS = {"jobs": MOST_JOBS, "users": 100_000, "projects": 10_000}
_AMOUNTS = {
    "intensity": (0.001, 100.0), "daily": (0.0, 0.99), "median_s": (1.0, 1e8), "spread": (0.0, 10.0),
    "overestimate": (1.0, 1000.0), "failing": (0.0, 0.99), "node_mtbf_h": (0.01, 1e8), "repair_h": (0.01, 1e6),
}  # fmt: skip


def read_nodes(path: Path) -> tuple[Node, ...]:
    """The nodes of a simulated cluster. Raises StackError that says where the file is wrong, and how."""
    content = _read(path)
    try:
        groups = [
            _group(node, f"clusters[{i}].nodes[{j}]")
            for i, cluster in enumerate(_list(content, "clusters", "the file"))
            for j, node in enumerate(_list(cluster, "nodes", f"clusters[{i}]"))
        ]
        if sum(group.count for group in groups) > MOST_NODES:
            raise ValueError(f"a simulated cluster has at most {MOST_NODES} nodes")
        return build_nodes(groups)
    except ValueError as error:
        raise StackError(f"{path}: {error}.") from error


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


def _list(mapping: Any, key: str, where: str) -> list[Any]:
    found = mapping.get(key) if isinstance(mapping, dict) else None
    if not isinstance(found, list) or not found:
        raise ValueError(f"{where} must hold a list `{key}`")
    return found


def _group(node: Any, where: str) -> NodeGroup:
    if not isinstance(node, dict):
        raise ValueError(f"{where} must be a mapping")
    if unknown := {str(key) for key in node} - _NODE_KEYS:
        raise ValueError(f"{where}.{min(unknown)} is not known; there are {', '.join(sorted(_NODE_KEYS))}")
    if not isinstance(node.get("name"), str) or not node["name"]:
        raise ValueError(f"{where}.name must be a text")
    whole = {key: _whole_number(node.get(key, 0), f"{where}.{key}", most) for key, most in _WHOLE.items()}
    if bool(whole["gpus"]) != bool(node.get("gpu_type")):
        raise ValueError(f"{where} must have both gpus and gpu_type, or neither")
    return NodeGroup(
        name=node["name"],
        count=whole["count"] or 1,
        cpu_milli=(whole["cpu_cores"] or 32) * WHOLE,
        memory_bytes=(whole["memory_gb"] or 128) * GB,
        gpus=whole["gpus"],
        gpu_model=str(node.get("gpu_type", "")),
        rack_of=whole["rack_of"],
    )


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
