"""The largest first, so that small jobs do not nibble away the room that a gang needs whole."""

from scheduler.amounts import asked
from scheduler.snapshot import PendingJob
from scheduler.standing import Standing


def gang(job: PendingJob, standing: Standing) -> float:
    """Rank a job of twice the size as if it had come `size_lead_s` earlier.

    Size is the dominant share of the cluster that all its replicas ask for. It counts by doublings, of which there are
    thirty from nothing to the whole cluster: nobody is passed by jobs that come more than thirty leads later, so the
    small starve as little as the large. Sources: first fit decreasing, for the order; the bound is our own.
    """
    size = standing.usage.share_of(asked(job.job_class))
    return job.submitted_at - size.bit_length() * standing.config.size_lead_s
