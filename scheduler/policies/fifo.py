"""First come, first served."""

from scheduler.snapshot import PendingJob
from scheduler.standing import Standing


def fifo(job: PendingJob, standing: Standing) -> float:
    """Rank the oldest job first. Starves nobody."""
    return job.submitted_at
