"""The most urgent first."""

from scheduler.snapshot import PendingJob
from scheduler.standing import Standing

HOUR_S = 3600


def priority(job: PendingJob, standing: Standing) -> float:
    """Rank the highest priority first, its own or that of a job which waits for it.

    With ageing a job gains `ageing_per_hour` each hour it waits: two that wait gain alike, so when they came is all
    that counts, and their order never changes. Without, an endless stream of higher priorities starves lower ones:
    that is what its users ask for. Source: Slurm, priority/multifactor, age factor (there capped, here not).
    """
    ageing = standing.config.ageing_per_hour
    own = standing.priority(job)
    return job.submitted_at * ageing / HOUR_S - own if ageing else -own
