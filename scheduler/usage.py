"""Who has how much of the cluster: past use, decayed by the caller, and what is held now."""

from collections.abc import Iterable, Mapping, Sequence

from scheduler.snapshot import WHOLE, Holding, Node, PendingJob, Request, RunningJob

WHOLE_CLUSTER = 10**9
"""Use is counted in billionths of the cluster: integers, so that the order of additions never matters."""

Amounts = tuple[int, int, int]
"""CPU milli, memory bytes, GPU milli."""


class Usage:
    """Dominant shares by project and by queue; they grow as the plan starts jobs.

    A started job counts at once, as a running one does: a burst cannot slip through before its use is
    measured, and planning an applied plan again sees the same ranks.
    Source: Ghodsi et al., Dominant Resource Fairness, NSDI 2011.
    """

    def __init__(self, nodes: Sequence[Node], past: Mapping[str, float] | None = None) -> None:
        self._total: Amounts = (
            sum(node.cpu_milli for node in nodes),
            sum(node.memory_bytes for node in nodes),
            sum(WHOLE * len(node.gpu_milli_free) for node in nodes),
        )
        self._of_project = {project: round(use * WHOLE_CLUSTER) for project, use in (past or {}).items()}
        self._of_queue: dict[str, int] = {}

    def of_project(self, project_id: str) -> int:
        """Return past use and present holdings of a project, in billionths of the cluster."""
        return self._of_project.get(project_id, 0)

    def of_queue(self, queue_id: str) -> int:
        """Return what the jobs of a queue hold now, in billionths of the cluster."""
        return self._of_queue.get(queue_id, 0)

    def count_running(self, running: Iterable[RunningJob]) -> None:
        """Count what running jobs hold."""
        for job in running:
            self._charge(job.project_id, job.queue_id, _held(job.holdings))

    def count_started(self, job: PendingJob) -> None:
        """Count a job that the plan starts."""
        self._charge(job.project_id, job.queue_id, _asked(job.request))

    def _charge(self, project_id: str, queue_id: str, amounts: Amounts) -> None:
        share = self._dominant_share(amounts)
        self._of_project[project_id] = self.of_project(project_id) + share
        self._of_queue[queue_id] = self.of_queue(queue_id) + share

    def _dominant_share(self, amounts: Amounts) -> int:
        return max(
            (amount * WHOLE_CLUSTER // total for amount, total in zip(amounts, self._total, strict=True) if total),
            default=0,
        )


def _asked(request: Request) -> Amounts:
    each = request.replicas
    return request.cpu_milli * each, request.memory_bytes * each, request.gpu_milli * each


def _held(holdings: Iterable[Holding]) -> Amounts:
    cpu_milli = memory_bytes = gpu_milli = 0
    for holding in holdings:
        cpu_milli += holding.cpu_milli
        memory_bytes += holding.memory_bytes
        gpu_milli += sum(milli for _, milli in holding.gpus)
    return cpu_milli, memory_bytes, gpu_milli
