"""The most urgent first."""

from scheduler.ledger import Ledger
from scheduler.snapshot import PendingJob


def priority(job: PendingJob, ledger: Ledger) -> tuple[int, float, str]:
    """Rank the highest priority first, then the oldest, then by id.

    An endless stream of higher priorities starves lower ones: that is what its users ask for.
    """
    return -job.job_class.priority, job.submitted_at, job.id
