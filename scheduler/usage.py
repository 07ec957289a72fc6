"""Who has how much of the cluster: past use, decayed by the caller, and what is held now."""

from collections.abc import Iterable, Sequence

from scheduler.snapshot import WHOLE, Account, Amounts, Holding, JobClass, Node

WHOLE_CLUSTER = 10**9
"""Use is counted in billionths of the cluster: integers, so that the order of additions never matters."""


class Usage:
    """Dominant shares by project and by queue; they grow as the plan starts jobs.

    A started job counts at once, as a running one does: a burst cannot slip through before its use is
    measured, and planning an applied plan again sees the same ranks.
    Source: Ghodsi et al., Dominant Resource Fairness, NSDI 2011.
    """

    def __init__(self, nodes: Sequence[Node], accounts: Iterable[Account] = ()) -> None:
        self._total = Amounts(
            sum(node.cpu_milli for node in nodes),
            sum(node.memory_bytes for node in nodes),
            sum(WHOLE * len(node.gpu_milli_free) for node in nodes),
        )
        self._of_project = {account.id: round(account.used * WHOLE_CLUSTER) for account in accounts}
        self._of_queue: dict[str, int] = {}

    def of_project(self, project_id: str) -> int:
        """Return past use and present holdings of a project, in billionths of the cluster."""
        return self._of_project.get(project_id, 0)

    def of_queue(self, queue_id: str) -> int:
        """Return what the jobs of a queue hold now, in billionths of the cluster."""
        return self._of_queue.get(queue_id, 0)

    def charge(self, job_class: JobClass, held: Amounts) -> None:
        """Count what a job of this class holds from now on."""
        self._add(job_class, self._dominant_share(held))

    def discharge(self, job_class: JobClass, held: Amounts) -> None:
        """Count no longer what a job held."""
        self._add(job_class, -self._dominant_share(held))

    def _add(self, job_class: JobClass, share: int) -> None:
        self._of_project[job_class.project_id] = self.of_project(job_class.project_id) + share
        self._of_queue[job_class.queue_id] = self.of_queue(job_class.queue_id) + share

    def _dominant_share(self, amounts: Amounts) -> int:
        return max(
            (amount * WHOLE_CLUSTER // total for amount, total in zip(amounts, self._total, strict=True) if total),
            default=0,
        )


def asked(job_class: JobClass) -> Amounts:
    """What a job of this class holds when it starts with the fewest replicas."""
    cpu_milli = memory_bytes = gpu_milli = 0
    for role in job_class.roles:
        cpu_milli += role.request.cpu_milli * role.least
        memory_bytes += role.request.memory_bytes * role.least
        gpu_milli += role.request.gpu_milli * role.least
    return Amounts(cpu_milli, memory_bytes, gpu_milli)


def held(holdings: Iterable[Holding]) -> Amounts:
    """What the replicas of a running job hold together."""
    cpu_milli = memory_bytes = gpu_milli = 0
    for holding in holdings:
        cpu_milli += holding.cpu_milli
        memory_bytes += holding.memory_bytes
        gpu_milli += sum(milli for _, milli in holding.gpus)
    return Amounts(cpu_milli, memory_bytes, gpu_milli)
