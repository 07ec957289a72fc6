"""Whoever had least goes first."""

from scheduler.snapshot import PendingJob
from scheduler.standing import Standing


def fair_share(job: PendingJob, standing: Standing) -> tuple[int, ...]:
    """Rank first the organisation that used and holds the least for its weight; in it the project, in it the user.

    Use is the dominant share of the cluster: what was used before comes decayed with the snapshot, what runs and what
    the plan has started counts on top, at once. Starves nobody: use decays, and who is served falls behind.
    Sources: Ghodsi et al., Dominant Resource Fairness, NSDI 2011; Slurm, Fair Tree.
    """
    return standing.usage.path(job.job_class)
