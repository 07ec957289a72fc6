"""`trellis simulate --openb-nodes --openb-pods`: how much of a cluster's GPUs can be given away."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from app.cli.errors import StackError
from scheduler.config import Config
from scheduler.simulator.openb import OpenbError, Packed, pack_arrivals, pack_queue, read_nodes, read_pods
from scheduler.snapshot import Node, Request

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Packing:
    """What to pack: lists of nodes and of pods, `load` times the GPUs there are, as many runs as `seeds`.

    With `queue_visible` all wait at once and are planned for under `config`; else each is placed as it comes, or lost.
    """

    nodes: Path
    pods: Path
    load: float
    seeds: int
    queue_visible: bool
    config: Config

    def run(self, *, quiet: bool) -> dict[str, Any]:
        """Return the figures. Raises StackError for files that cannot be read."""
        nodes, pods = _read(self.nodes, read_nodes), _read(self.pods, read_pods)
        if not any(node.gpu_milli_free for node in nodes):
            raise StackError(f"{self.nodes} lists no node with a GPU.")
        if not any(pod.gpu_milli for pod in pods):
            raise StackError(f"{self.pods} lists no pod that asks for a GPU: the load would never be reached.")
        begun = time.monotonic()
        runs = self._watched(nodes, pods, quiet=quiet)
        percents = [round(run.allocated_percent, 3) for run in runs]
        return {
            "nodes": self.nodes.name,
            "pods": self.pods.name,
            "mode": "queue" if self.queue_visible else "arrivals",
            "load": self.load,
            "seeds": self.seeds,
            "allocated_percent": {"mean": round(fmean(percents), 3), "per_seed": percents},
            "arrived": round(fmean(run.arrived for run in runs)),
            "left_out": round(fmean(run.left_out for run in runs)),
            "sim_s": round(time.monotonic() - begun, 2),
        }

    def _watched(self, nodes: Sequence[Node], pods: Sequence[Request], *, quiet: bool) -> list[Packed]:
        """Run for each seed, with a bar on standard error where a person watches."""
        console = Console(stderr=True)
        seeds: Iterable[int] = range(1, self.seeds + 1)
        if not quiet and console.is_terminal:
            columns = (
                TextColumn("packed"),
                BarColumn(40),
                MofNCompleteColumn(),
                TextColumn("runs"),
                TimeElapsedColumn(),
            )
            with Progress(*columns, console=console, transient=True) as bar:
                return [self._pack(nodes, pods, seed) for seed in bar.track(seeds, total=self.seeds)]
        return [self._pack(nodes, pods, seed) for seed in seeds]

    def _pack(self, nodes: Sequence[Node], pods: Sequence[Request], seed: int) -> Packed:
        if self.queue_visible:
            return pack_queue(nodes, pods, self.load, seed, self.config)
        return pack_arrivals(nodes, pods, self.load, seed)


def _read(path: Path, read: Callable[[Iterable[str]], T]) -> T:
    try:
        with open(path, encoding="utf-8", newline="") as lines:
            return read(lines)
    except OSError as error:
        raise StackError(f"{path} cannot be read: {error.strerror}.") from error
    except (OpenbError, UnicodeDecodeError) as error:
        raise StackError(f"{path} is no list that can be read: {error}.") from error
