"""The least slack first, within bounds that make a false deadline worth little."""

from scheduler.snapshot import PendingJob
from scheduler.standing import Standing

MILLISECONDS = 1000


def deadline(job: PendingJob, standing: Standing) -> int:
    """Rank first the job that must start soonest to end in time: deadline less expected run (least laxity).

    A job without a deadline must start `patience_s` after it came; that is its age, so nobody starves. A deadline
    never ranks a job before those that came `patience_s` earlier, nor behind where it would be without one. A job with
    which its project would hold more than its share of the cluster ranks `patience_s` later: deadlines say who of those
    within their share is first, and buy nobody more than the share.
    Source: Mok, 1983, least laxity first; the bounds are our own.
    """
    # Whole milliseconds: what is added for being beyond the share must not make two jobs equal by rounding.
    came, patience = round(job.submitted_at * MILLISECONDS), round(standing.config.patience_s * MILLISECONDS)
    start_by = came + patience
    due = standing.deadline(job)
    if due is not None:
        start_by = min(start_by, max(came, round((due - _expected_s(job)) * MILLISECONDS)))
    return start_by if standing.usage.within_share(job.job_class) else start_by + patience


def _expected_s(job: PendingJob) -> float:
    """Return how long a job will run as far as anybody knows; without a word about it, no time at all."""
    if job.expected_s is not None:
        return job.expected_s
    return job.job_class.time_limit_s or 0.0
