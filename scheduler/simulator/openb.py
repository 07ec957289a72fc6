"""The openb GPU-sharing trace, packed by the scheduler's own rules: how much of the GPUs can be given away.

The trace is that of Weng et al., "Beware of Fragmentation", USENIX ATC 2023 (github.com/alibaba/clusterdata,
cluster-trace-gpu-v2023); so is the protocol: tasks arrive until they have asked for `load` times the GPUs there are,
none ever leaves, and what does not fit when it arrives is lost.
"""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf
from random import Random

from scheduler.backfill import Guard
from scheduler.capacity import Setting
from scheduler.config import Config
from scheduler.engine import plan
from scheduler.gang import place_gang
from scheduler.ledger import Ledger
from scheduler.snapshot import WHOLE, JobClass, Node, PendingJob, Queue, Request, Role, Shape, Snapshot

MIB = 2**20
POPULAR = 0.95
"""Shapes that so large a part of the tasks has, commonest first, are those that room is kept good for."""


@dataclass(frozen=True, slots=True)
class Packed:
    """What came of one run: milli-GPU asked for and given, tasks that arrived and tasks that found no room."""

    seed: int
    gpu_milli: int
    asked_milli: int
    given_milli: int
    arrived: int
    left_out: int

    @property
    def allocated_percent(self) -> float:
        """The part of the cluster's GPUs that is given away."""
        return 100 * self.given_milli / self.gpu_milli


class OpenbError(ValueError):
    """A file that is not such a trace; the text names the line."""


def read_nodes(lines: Iterable[str]) -> tuple[Node, ...]:
    """Read a node list: `sn,cpu_milli,memory_mib,gpu,model`. Raises OpenbError."""
    return tuple(
        Node(
            id=row["sn"],
            name=row["sn"],
            ready=True,
            cpu_milli=cpu_milli,
            memory_bytes=memory_bytes,
            cpu_milli_free=cpu_milli,
            memory_bytes_free=memory_bytes,
            gpu_model=row["model"] or "",
            gpu_milli_free=(WHOLE,) * _amount(row, "gpu", number),
        )
        for number, row in _rows(lines, ("sn", "cpu_milli", "memory_mib", "gpu", "model"))
        for cpu_milli, memory_bytes in [(_amount(row, "cpu_milli", number), _amount(row, "memory_mib", number) * MIB)]
    )


def read_pods(lines: Iterable[str]) -> tuple[Request, ...]:
    """Read a pod list: `name,cpu_milli,memory_mib,num_gpu,gpu_milli` and maybe `gpu_spec`. Raises OpenbError."""
    return tuple(
        Request(
            cpu_milli=_amount(row, "cpu_milli", number),
            memory_bytes=_amount(row, "memory_mib", number) * MIB,
            gpu_milli=_gpu_milli(row, number),
            gpu_models=tuple(sorted(filter(None, (row.get("gpu_spec") or "").split("|")))),
        )
        for number, row in _rows(lines, ("cpu_milli", "memory_mib", "num_gpu", "gpu_milli"))
    )


def popular_shapes(pods: Iterable[Request]) -> tuple[Shape, ...]:
    """Return the shapes that most tasks have, with how many have each; memory is not a part of them."""
    counts = Counter(replace(pod, memory_bytes=0) for pod in pods)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], _sortable(item[0])))
    shapes, covered = [], 0
    for request, count in ranked:
        if covered >= POPULAR * counts.total():
            break
        shapes.append(Shape(request, float(count)))
        covered += count
    return tuple(shapes)


def draw_arrivals(pods: Sequence[Request], most_milli: int, seed: int) -> Iterator[Request]:
    """Draw tasks: each pod once in random order, then any with replacement, until one would ask beyond `most_milli`.

    Equal seeds give equal draws on every machine.
    """
    random = Random(seed)
    shuffled = list(pods)
    random.shuffle(shuffled)
    asked = place = 0
    while True:
        pod = shuffled[place] if place < len(shuffled) else pods[random.randrange(len(pods))]
        place += 1
        asked += pod.gpu_milli
        if asked > most_milli:
            return
        yield pod


def pack_arrivals(nodes: Sequence[Node], pods: Sequence[Request], load: float, seed: int) -> Packed:
    """Place each task as it arrives, or lose it."""
    arrivals = list(draw_arrivals(pods, _most_milli(nodes, load), seed))
    ledger = Ledger(nodes, Setting(shapes=popular_shapes(pods)))
    classes: dict[Request, JobClass] = {}
    given_milli = left_out = 0
    for pod in arrivals:
        job_class = classes.setdefault(pod, _class_of(pod))
        if place_gang(ledger, job_class, Guard((), inf)):
            given_milli += pod.gpu_milli
        else:
            left_out += 1
    return _packed(nodes, arrivals, seed, given_milli, left_out)


def pack_queue(nodes: Sequence[Node], pods: Sequence[Request], load: float, seed: int, config: Config) -> Packed:
    """Let the same tasks all wait at once, and plan: nothing is lost, what finds no room goes on waiting."""
    arrivals = list(draw_arrivals(pods, _most_milli(nodes, load), seed))
    classes: dict[Request, JobClass] = {}
    pending = tuple(
        PendingJob(f"{number:06}", 0.0, classes.setdefault(pod, _class_of(pod))) for number, pod in enumerate(arrivals)
    )
    snapshot = Snapshot(0.0, tuple(nodes), (Queue("queue", "queue"),), pending, shapes=popular_shapes(pods))
    made = plan(snapshot, replace(config, max_placements=len(pending)))
    given_milli = sum(arrivals[int(placement.job_id)].gpu_milli for placement in made.placements)
    return _packed(nodes, arrivals, seed, given_milli, len(pending) - len(made.placements))


def _packed(nodes: Sequence[Node], arrivals: Sequence[Request], seed: int, given_milli: int, left_out: int) -> Packed:
    asked_milli = sum(pod.gpu_milli for pod in arrivals)
    return Packed(seed, _gpus(nodes), asked_milli, given_milli, len(arrivals), left_out)


def _class_of(pod: Request) -> JobClass:
    return JobClass("project", "queue", (Role(pod),))


def _gpus(nodes: Sequence[Node]) -> int:
    return sum(WHOLE * len(node.gpu_milli_free) for node in nodes)


def _most_milli(nodes: Sequence[Node], load: float) -> int:
    return int(_gpus(nodes) * load)


def _rows(lines: Iterable[str], columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    reader = csv.DictReader(lines)
    missing = [column for column in columns if column not in (reader.fieldnames or ())]
    if missing:
        raise OpenbError(f"line 1: there is no column {missing[0]!r}")
    for row in reader:
        yield reader.line_num, row


def _amount(row: dict[str, str], column: str, line: int) -> int:
    text = row[column]
    if not (text and text.isascii() and text.isdecimal()):
        raise OpenbError(f"line {line}: {column} is {text!r}, not a whole number")
    return int(text)


def _gpu_milli(row: dict[str, str], line: int) -> int:
    """A task has several whole devices, or a part of one."""
    gpus = _amount(row, "num_gpu", line)
    return gpus * WHOLE if gpus != 1 else _amount(row, "gpu_milli", line)


def _sortable(request: Request) -> tuple[int, int, tuple[str, ...]]:
    return request.cpu_milli, request.gpu_milli, request.gpu_models
