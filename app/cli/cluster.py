"""`cluster.yaml`: which nodes a cluster has, and what each of them is.

    clusters:
      - name: lab
        nodes:
          - {name: gpu-1, gpus: 8, gpu_type: H100, gpu_memory_gb: 80, cpu_cores: 96, memory_gb: 2048}
          - {name: cpu, count: 3, cpu_cores: 32, memory_gb: 128}

Names are unique over all clusters; `count: 3` makes cpu-1, cpu-2 and cpu-3, and `rack_of: 16` puts so many of them into
one rack. `trellis up --cluster`, `trellis up --simulate`, `trellis simulate --cluster` and `trellis cluster apply` all read
it. A node is told what it is as a profile in words (see `agent.profiles`), and runs real processes whatever it claims,
unless it is simulated. What the file says besides (levels, pools, labels, taints, domains, ...) is the server's: it is
applied once the nodes have joined.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from app.cli.errors import StackError
from app.cli.places import located
from trellis.client import Client
from trellis.errors import TrellisError
from trellis.simulation import HostPlan, Misshapen, SimulatedNodes, read_simulation

LARGEST_FILE_BYTES = 1 << 20
MOST_IN_FILE = 100_000
MOST_NODES = 64
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?")
MOST_SIMULATED = 10_000
_AMOUNTS = {
    "gpus": 64, "cpu_cores": 4096, "memory_gb": 1 << 20, "gpu_memory_gb": 4096, "numa_nodes": 64, "gpus_a_link": 64,
    "partitioned": 64,
}  # fmt: skip
# What a file says of nodes to the server; it judges it.
_TRAITS = frozenset({"labels", "taints", "domains", "pool", "spot", "usd_per_hour", "caches"})
_KNOWN = frozenset({"name", "count", "rack_of", "gpu_type", *_AMOUNTS}) | _TRAITS
# A machine that is not there and says nothing of itself has these.
_USUAL = {"cpu_cores": 32, "memory_gb": 128}


@dataclass(frozen=True, slots=True)
class Machine:
    """One node to start, and the profile it is to claim ("" for what this machine really is)."""

    name: str
    profile: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """An entry of the file: `count` nodes that are alike. `amounts` are those that it names; `where` it stands."""

    name: str
    where: str
    count: int = 1
    gpu_type: str = ""
    rack_of: int = 0
    amounts: Mapping[str, int] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: Sequence[Mapping[str, str]] = ()
    domains: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Of its nodes."""
        return [self.name] if self.count == 1 else [f"{self.name}-{number}" for number in range(1, self.count + 1)]

    def claims(self, usual: Mapping[str, int] | None = None) -> str:
        """What each is, as a profile in words; `usual` is what it has of which it says nothing."""
        said = {"gpu_type": self.gpu_type, **(usual or {}), **self.amounts}
        return ",".join(f"{key}={value}" for key, value in said.items() if value)


def alike(count: int, profile: str) -> tuple[Machine, ...]:
    """node-1 to node-`count`, all of one profile."""
    return tuple(Machine(f"node-{number}", profile) for number in range(1, count + 1))


def read_cluster(path: Path) -> tuple[Machine, ...]:
    """The nodes that a `cluster.yaml` names. Raises StackError that says where the file is wrong, and how."""
    groups = read_groups(path, read_file(path), MOST_NODES)
    return tuple(Machine(name, group.claims()) for group in groups for name in group.names)


def read_profile(path: Path) -> HostPlan:
    """The nodes that a profile names, and how their jobs are played. Raises StackError that says what is wrong where."""
    content = read_file(path)
    nodes = tuple(
        SimulatedNodes(tuple(group.names), group.claims(_USUAL)) for group in read_groups(path, content, MOST_SIMULATED)
    )
    try:
        return HostPlan(nodes, read_simulation(content.get("simulation")))
    except Misshapen as error:
        raise StackError(located(path, str(error))) from error


def read_groups(path: Path, content: Any, most: int) -> tuple[Group, ...]:
    """The entries of a file, which has this `content` and names at most so many nodes. Raises StackError."""
    try:
        groups = tuple(_groups(content))
    except ValueError as error:
        raise StackError(located(path, str(error))) from error
    count = Counter(name for group in groups for name in group.names)
    if twice := [name for name, times in count.items() if times > 1]:
        raise StackError(f"{path} names the node {min(twice)} twice.")
    if not 1 <= len(count) <= most:
        raise StackError(f"{path} names {len(count)} nodes; one machine runs 1 to {most}.")
    return groups


def apply_file(path: Path, url: str, api_key: str) -> None:
    """Tell the server what the file says of its nodes, which have joined. Raises StackError with what it refuses."""
    content = {key: said for key, said in read_file(path).items() if key != "simulation"}
    with Client(url=url, api_key=api_key) as client:
        try:
            client.nodes.apply_cluster(content)
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


def _groups(content: Any) -> Iterator[Group]:
    for i, cluster in enumerate(_list(content, "clusters", "the file")):
        for j, node in enumerate(_list(cluster, "nodes", f"clusters[{i}]")):
            yield _group(node, cluster, f"clusters[{i}].nodes[{j}]")


def _list(mapping: Any, key: str, where: str) -> list[Any]:
    found = mapping.get(key) if isinstance(mapping, dict) else None
    if not isinstance(found, list) or not found:
        raise ValueError(f"{where} must hold a list `{key}`")
    return found


def _group(node: Any, cluster: Mapping[str, Any], where: str) -> Group:
    if not isinstance(node, dict):
        raise ValueError(f"{where} must be a mapping")
    if unknown := {str(key) for key in node} - _KNOWN:
        raise ValueError(f"{where}.{min(unknown)} is not known; there are {', '.join(sorted(_KNOWN))}")
    name = node.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"{where}.name must be 1 to 42 of a-z, 0-9 and -")
    amounts = {key: _whole(node, key, most, where) for key, most in _AMOUNTS.items()}
    if bool(node.get("gpus")) != bool(node.get("gpu_type")):
        raise ValueError(f"{where} must have both gpus and gpu_type, or neither")
    if not re.fullmatch(r"[A-Za-z0-9 ._-]{0,63}", str(node.get("gpu_type", ""))):
        raise ValueError(f"{where}.gpu_type must be a name such as H100")
    if amounts["partitioned"] > amounts["gpus"]:
        raise ValueError(f"{where}.partitioned must be at most its gpus: so many of them are given in slices")
    return Group(
        name=name,
        where=where,
        count=_whole(node, "count", MOST_IN_FILE, where) or 1,
        gpu_type=str(node.get("gpu_type", "")),
        rack_of=_whole(node, "rack_of", MOST_IN_FILE, where),
        amounts={key: amount for key, amount in amounts.items() if amount},
        labels=_texts(cluster, "labels", where) | _texts(node, "labels", where),
        taints=_taints(node, where),
        domains=_texts(cluster, "domains", where) | _texts(node, "domains", where),
    )


def _texts(mapping: Mapping[str, Any], key: str, where: str) -> dict[str, str]:
    said = mapping.get(key) or {}
    if not isinstance(said, dict):
        raise ValueError(f"{where}.{key} must be a mapping")
    return {str(name): str(text) for name, text in said.items()}


def _taints(node: Mapping[str, Any], where: str) -> list[dict[str, str]]:
    said = node.get("taints") or []
    if not isinstance(said, list) or not all(isinstance(taint, dict) and "key" in taint for taint in said):
        raise ValueError(f"{where}.taints must be a list of mappings with a key")
    return [{str(name): str(text) for name, text in taint.items()} for taint in said]


def _whole(node: dict[Any, Any], key: str, most: int, where: str) -> int:
    value = node.get(key, 0)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise ValueError(f"{where}.{key} must be a whole number from 0 to {most}")
    return value
