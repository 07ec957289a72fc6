"""Short jobs first, but only as long as that is fair: everybody waits in proportion to what they ask for."""

from math import log2

from scheduler.ledger import Ledger
from scheduler.snapshot import PendingJob

STANDS_BACK_S = 4 * 3600.0
"""How much longer a job stands back for each doubling of its run time."""

SHORT_S = 60.0
"""The run time from which doublings count: what is shorter than this is short."""

UNKNOWN_S = 86400.0
"""What a job without limit and without history is taken to run."""


def slowdown(job: PendingJob, ledger: Ledger) -> tuple[float, str]:
    """Rank by the time of submission, put off by four hours for each doubling of the expected run time over a minute.

    What is expected comes from the owner's last jobs (`scheduler.predictions`), or else is the limit. Ageing is built
    in, and bounded: a job that is expected to run for a day is passed by those that come within 42 hours after it, by
    none that come later. So it starves nobody, and lying gains at most that.
    The order follows the expected slowdown, which keeps its mean low (Gaussier et al., Improving Backfilling by Using
    Machine Learning to Predict Running Times, SC 2015; Carastan-Santos and de Camargo, SC 2017); a rank that never
    changes while a job waits is what makes it cheap and easy to explain.
    """
    expected_s = job.expected_s
    if expected_s is None:
        limit_s = job.job_class.time_limit_s
        expected_s = UNKNOWN_S if limit_s is None else limit_s
    return job.submitted_at + STANDS_BACK_S * log2(1.0 + expected_s / SHORT_S), job.id
