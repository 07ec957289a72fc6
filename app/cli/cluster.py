"""`cluster.yaml`: which nodes a cluster has, and what each of them is.

    clusters:
      - name: lab
        nodes:
          - {name: gpu-1, gpus: 8, gpu_type: H100, gpu_memory_gb: 80, cpu_cores: 96, memory_gb: 2048}
          - {name: cpu, count: 3, cpu_cores: 32, memory_gb: 128}

Names are unique over all clusters; `count: 3` makes cpu-1, cpu-2 and cpu-3. A node is told what it is as a profile in
words (see `agent.profiles`), and runs real processes whatever it claims. What the file says besides (levels, pools,
labels, taints, domains, ...) is the server's: it is applied once the nodes have joined.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from app.cli.errors import StackError
from trellis.client import Client
from trellis.errors import TrellisError

LARGEST_FILE_BYTES = 1 << 20
MOST_NODES = 64
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?")
_AMOUNTS = {"gpus": 64, "cpu_cores": 4096, "memory_gb": 1 << 20, "gpu_memory_gb": 4096, "partitioned": 64}
# What a file says of nodes to the server; it judges it.
_TRAITS = frozenset({"labels", "taints", "domains", "pool", "spot", "usd_per_hour", "caches"})
_KNOWN = frozenset({"name", "count", "gpu_type", *_AMOUNTS}) | _TRAITS


@dataclass(frozen=True, slots=True)
class Machine:
    """One node to start, and the profile it is to claim ("" for what this machine really is)."""

    name: str
    profile: str = ""


def alike(count: int, profile: str) -> tuple[Machine, ...]:
    """node-1 to node-`count`, all of one profile."""
    return tuple(Machine(f"node-{number}", profile) for number in range(1, count + 1))


def read_cluster(path: Path) -> tuple[Machine, ...]:
    """The nodes that a `cluster.yaml` names. Raises StackError that says where the file is wrong, and how."""
    content = read_file(path)
    try:
        machines = tuple(_machines(content))
    except ValueError as error:
        raise StackError(f"{path}: {error}.") from error
    names = [machine.name for machine in machines]
    if twice := {name for name in names if names.count(name) > 1}:
        raise StackError(f"{path} names the node {min(twice)} twice.")
    if not 1 <= len(machines) <= MOST_NODES:
        raise StackError(f"{path} names {len(machines)} nodes; one machine runs 1 to {MOST_NODES}.")
    return machines


def apply_file(path: Path, url: str, api_key: str) -> None:
    """Tell the server what the file says of its nodes, which have joined. Raises StackError with what it refuses."""
    with Client(url=url, api_key=api_key) as client:
        try:
            client.nodes.apply_cluster(read_file(path))
        except TrellisError as error:
            raise StackError(f"{path}: {error}.") from error


def read_file(path: Path) -> Any:
    """What the YAML file holds. Raises StackError."""
    try:
        if path.stat().st_size > LARGEST_FILE_BYTES:
            raise StackError(f"{path} is larger than 1 MiB: that is no list of nodes.")
        return yaml.safe_load(path.read_text())
    except OSError as error:
        raise StackError(f"{path} can't be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StackError(f"{path} is not YAML: {str(error).splitlines()[0]}.") from error


def _machines(content: Any) -> Iterator[Machine]:
    for i, cluster in enumerate(_list(content, "clusters", "the file")):
        for j, node in enumerate(_list(cluster, "nodes", f"clusters[{i}]")):
            yield from _nodes(node, f"clusters[{i}].nodes[{j}]")


def _list(mapping: Any, key: str, where: str) -> list[Any]:
    found = mapping.get(key) if isinstance(mapping, dict) else None
    if not isinstance(found, list) or not found:
        raise ValueError(f"{where} must hold a list `{key}`")
    return found


def _nodes(node: Any, where: str) -> Iterator[Machine]:
    if not isinstance(node, dict):
        raise ValueError(f"{where} must be a mapping")
    if unknown := {str(key) for key in node} - _KNOWN:
        raise ValueError(f"{where}.{min(unknown)} is not known; there are {', '.join(sorted(_KNOWN))}")
    name = node.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"{where}.name must be 1 to 42 of a-z, 0-9 and -")
    for key, most in _AMOUNTS.items():
        _whole(node, key, most, where)
    if bool(node.get("gpus")) != bool(node.get("gpu_type")):
        raise ValueError(f"{where} must have both gpus and gpu_type, or neither")
    if not re.fullmatch(r"[A-Za-z0-9 ._-]{0,63}", str(node.get("gpu_type", ""))):
        raise ValueError(f"{where}.gpu_type must be a name such as H100")
    count = _whole(node, "count", MOST_NODES, where) or 1
    claims = ",".join(f"{key}={node[key]}" for key in ("gpu_type", *_AMOUNTS) if node.get(key))
    yield from (Machine(name if count == 1 else f"{name}-{number}", claims) for number in range(1, count + 1))


def _whole(node: dict[Any, Any], key: str, most: int, where: str) -> int:
    value = node.get(key, 0)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise ValueError(f"{where}.{key} must be a whole number from 0 to {most}")
    return value
