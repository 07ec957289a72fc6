"""First come, first served."""

from scheduler.ledger import Ledger
from scheduler.snapshot import PendingJob


def fifo(job: PendingJob, ledger: Ledger) -> tuple[float, str]:
    """Rank the oldest job first; ties fall to the id. Starves nobody."""
    return job.submitted_at, job.id
