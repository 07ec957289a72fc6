"""Whoever had least goes first."""

from scheduler.ledger import Ledger
from scheduler.snapshot import PendingJob


def fair_share(job: PendingJob, ledger: Ledger) -> tuple[int, int, float, str]:
    """Rank first the project that used and holds the least of the cluster.

    Past use comes decayed with the snapshot; what runs and what the plan has started already counts on top.
    Inside a project the higher priority goes first, then the older job, then the id, so that equal
    snapshots give equal plans. Starves nobody: use decays, and a project that is served falls behind.
    """
    return ledger.usage.of_project(job.job_class.project_id), -job.job_class.priority, job.submitted_at, job.id
