"""How much of the cluster was in use, from moment to moment."""

from collections import defaultdict
from dataclasses import dataclass, field
from math import inf

from scheduler.simulator.run import History, Span
from scheduler.snapshot import WHOLE, Node


@dataclass(frozen=True, slots=True)
class Moment:
    """From `at` on, until the next one: parts of the whole cluster, from 0 to 1."""

    at: float
    cpu: float
    gpu: float
    fragmented: float


@dataclass(slots=True)
class Course:
    """The use of a cluster over a run; `of_project` is what each had, in seconds of GPUs (CPUs where there are none)."""

    moments: list[Moment] = field(default_factory=list)
    of_project: dict[str, float] = field(default_factory=dict)
    mean_cpu: float = 0.0
    mean_gpu: float = 0.0
    mean_fragmented: float = 0.0


def follow(history: History) -> Course:
    """Add up what every stay held."""
    board = _Board(history.scenario.nodes)
    changes: dict[float, list[tuple[Span, int]]] = defaultdict(list)
    for span in history.spans:
        if span.ended_at > span.started_at:
            changes[span.started_at].append((span, 1))
            changes[span.ended_at].append((span, -1))
    course = Course(of_project=_of_projects(history, gpus=board.gpu_milli > 0))
    before: Moment | None = None
    begun, area = inf, [0.0, 0.0, 0.0]
    for at in sorted(changes):
        if before is not None:
            for place, part in enumerate((before.cpu, before.gpu, before.fragmented)):
                area[place] += part * (at - before.at)
        for span, sign in changes[at]:
            board.change(span, sign)
        before = board.look(at)
        begun = min(begun, at)
        course.moments.append(before)
    if before is not None and before.at > begun:
        course.mean_cpu, course.mean_gpu, course.mean_fragmented = (each / (before.at - begun) for each in area)
    return course


class _Board:
    """What is held now, node by node."""

    def __init__(self, nodes: tuple[Node, ...]) -> None:
        self.gpu_milli = sum(sum(node.gpu_milli_free) for node in nodes)
        self._cpu_milli = sum(node.cpu_milli for node in nodes)
        self._size = {node.id: sum(node.gpu_milli_free) for node in nodes}
        self._held = dict.fromkeys(self._size, 0)
        self._cpu_held = 0
        self._gpu_held = 0
        self._fragmented = 0

    def change(self, span: Span, sign: int) -> None:
        """Let a stay begin (1) or end (-1)."""
        roles = span.work.job_class.roles
        for replica in span.replicas:
            request = roles[replica.role].request
            self._cpu_held += sign * request.cpu_milli
            milli = sign * request.gpu_milli
            if milli:
                self._gpu_held += milli
                self._fragmented -= self._broken(replica.node_id)
                self._held[replica.node_id] += milli
                self._fragmented += self._broken(replica.node_id)

    def look(self, at: float) -> Moment:
        """How things stand."""
        cpu = self._cpu_held / self._cpu_milli if self._cpu_milli else 0.0
        if not self.gpu_milli:
            return Moment(at, cpu, 0.0, 0.0)
        return Moment(at, cpu, self._gpu_held / self.gpu_milli, self._fragmented / self.gpu_milli)

    def _broken(self, node_id: str) -> int:
        held = self._held[node_id]
        return self._size[node_id] - held if held else 0


def _of_projects(history: History, *, gpus: bool) -> dict[str, float]:
    had: dict[str, float] = {work.job_class.project_id: 0.0 for work in history.scenario.workload.works}
    for span in history.spans:
        roles = span.work.job_class.roles
        requests = [roles[replica.role].request for replica in span.replicas]
        milli = sum(request.gpu_milli if gpus else request.cpu_milli for request in requests)
        had[span.work.job_class.project_id] += milli / WHOLE * (span.ended_at - span.started_at)
    return had
