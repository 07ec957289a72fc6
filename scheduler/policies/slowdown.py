"""Short jobs first, as far as that is fair: everybody waits in proportion to what they ask for."""

from math import log2

from scheduler.snapshot import PendingJob
from scheduler.standing import Standing

SHORT_S = 60.0
"""The run time from which doublings count: what is shorter than this is short."""

UNKNOWN_S = 86_400.0
"""What a job without limit and without history is taken to run."""


def slowdown(job: PendingJob, standing: Standing) -> float:
    """Rank a job as if it had come `stand_back_s` later for each doubling of its expected run time over a minute.

    What is expected comes from the owner's last jobs (`scheduler.predictions`), or else is the limit. Ageing is built
    in and bounded: by default a job that may run for a day is passed by those that come within 42 hours after it, by
    none that come later. So it starves nobody, and lying about the limit gains at most that, until the next job ends.
    To go by the expected slowdown keeps its mean low (Gaussier et al., Improving Backfilling by Using Machine Learning
    to Predict Running Times, SC 2015; Carastan-Santos and de Camargo, SC 2017); the logarithm, which makes the rank
    one that never changes while a job waits, is our own.
    """
    expected_s = job.expected_s
    if expected_s is None:
        limit_s = job.job_class.time_limit_s
        expected_s = UNKNOWN_S if limit_s is None else limit_s
    return job.submitted_at + standing.config.stand_back_s * log2(1.0 + expected_s / SHORT_S)
