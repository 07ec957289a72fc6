"""Figures of a run."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from scheduler.simulator.run import LAST, History, Outcome, Span
from scheduler.simulator.usage import follow
from scheduler.snapshot import WHOLE

BOUND_S = 10
"""Jobs shorter than this count as this long in a slowdown: waiting a second for a second's work is no harm."""

CHECKSUM_MODULUS = 2**61 - 1


@dataclass(frozen=True, slots=True)
class BatchFigures:
    """What batch schedulers are compared by; times in seconds.

    `start_checksum` is the sum of (i + 1) times the start of job i, modulo 2^61 - 1, so that schedules can be compared
    exactly. `util` is the part of the processors' time, from the first submission to the last end, that jobs used.
    """

    jobs: int
    procs: int
    mean_wait_s: float
    median_wait_s: float
    p99_wait_s: float
    max_wait_s: float
    mean_bsld: float
    p99_bsld: float
    makespan_s: float
    util: float
    start_checksum: int


@dataclass(frozen=True, slots=True)
class Figures:
    """What a run on any cluster is judged by; waits and slowdowns are of the jobs that came to their end.

    `gpu_percent` and `cpu_percent` are the parts that were given away, over the whole run. `fragmentation_percent` is
    the part of the GPUs that were free on nodes where others were not: no job that needs a whole node can have them.
    `fairness` is Jain's index of what the projects had (1: all the same; 1/n: one had it all).
    """

    jobs: int
    unfinished: int
    mean_wait_s: float
    median_wait_s: float
    p99_wait_s: float
    max_wait_s: float
    mean_bsld: float
    p99_bsld: float
    makespan_s: float
    cpu_percent: float
    gpu_percent: float
    fragmentation_percent: float
    fairness: float
    preemptions: int
    failures: int
    start_checksum: int


def figures(history: History) -> Figures:
    """Judge a run. Raises ValueError where no job came to its end."""
    firsts, lasts = _first_and_last(history.spans)
    waits = sorted(firsts[span.work.id] - span.work.submitted_at for span in lasts)
    slowdowns = sorted(map(bounded_slowdown, lasts))
    usage = follow(history)
    outcomes = Counter(span.outcome for span in history.spans)
    return Figures(
        jobs=len(lasts),
        unfinished=len(history.scenario.workload.works) - len(lasts),
        mean_wait_s=round(fmean(waits), 2),
        median_wait_s=percentile(waits, 50),
        p99_wait_s=percentile(waits, 99),
        max_wait_s=waits[-1],
        mean_bsld=round(fmean(slowdowns), 4),
        p99_bsld=round(percentile(slowdowns, 99), 2),
        makespan_s=max(span.ended_at for span in lasts) - min(span.work.submitted_at for span in lasts),
        cpu_percent=round(usage.mean_cpu * 100, 2),
        gpu_percent=round(usage.mean_gpu * 100, 2),
        fragmentation_percent=round(usage.mean_fragmented * 100, 2),
        fairness=round(jain(usage.of_project.values()), 5),
        preemptions=history.evictions,
        failures=outcomes[Outcome.FAILED] + outcomes[Outcome.NODE_LOST],
        start_checksum=start_checksum([firsts[span.work.id] for span in lasts]),
    )


def jain(amounts: Iterable[float]) -> float:
    """Return how equal amounts are, from one over their number to 1; 1 for none at all.

    Source: Jain, Chiu and Hawe, A Quantitative Measure of Fairness, DEC TR-301, 1984.
    """
    given = list(amounts)
    squares = sum(amount * amount for amount in given)
    return sum(given) ** 2 / (len(given) * squares) if squares else 1.0


def _first_and_last(spans: Sequence[Span]) -> tuple[dict[str, float], list[Span]]:
    """When each job started first, and the stays in which jobs came to their end, by submission."""
    firsts: dict[str, float] = {}
    for span in spans:
        firsts[span.work.id] = min(firsts.get(span.work.id, span.started_at), span.started_at)
    lasts = sorted(
        (span for span in spans if span.outcome in LAST), key=lambda span: (span.work.submitted_at, span.work.id)
    )
    if not lasts:
        raise ValueError("no job came to its end")
    return firsts, lasts


def batch_figures(history: History, processors: int) -> BatchFigures:
    """Judge the replay of a log. Raises ValueError where no job came to its end."""
    _, lasts = _first_and_last(history.spans)
    waits = sorted(span.started_at - span.work.submitted_at for span in lasts)
    slowdowns = sorted(map(bounded_slowdown, lasts))
    makespan_s = max(span.ended_at for span in lasts) - lasts[0].work.submitted_at
    busy_s = sum((span.ended_at - span.started_at) * _processors(span) for span in lasts)
    return BatchFigures(
        jobs=len(lasts),
        procs=processors,
        mean_wait_s=round(fmean(waits), 2),
        median_wait_s=percentile(waits, 50),
        p99_wait_s=percentile(waits, 99),
        max_wait_s=waits[-1],
        mean_bsld=round(fmean(slowdowns), 4),
        p99_bsld=round(percentile(slowdowns, 99), 2),
        makespan_s=makespan_s,
        util=round(busy_s / (processors * makespan_s), 5),
        start_checksum=start_checksum([span.started_at for span in lasts]),
    )


def bounded_slowdown(span: Span) -> float:
    """Return how many times longer a job took than it ran, at least 1; runs below ten seconds count as ten.

    Source: Feitelson et al., Theory and Practice in Parallel Job Scheduling, JSSPP 1997.
    """
    run_s = span.ended_at - span.started_at
    return max(1.0, (span.ended_at - span.work.submitted_at) / max(run_s, BOUND_S))


def start_checksum(starts: Sequence[float]) -> int:
    """Return one number for all starts, which are whole seconds."""
    return sum(place * int(at) for place, at in enumerate(starts, start=1)) % CHECKSUM_MODULUS


def percentile(ranked: Sequence[float], percent: int) -> float:
    """Return the value of a sorted sequence that `percent` of it lie before. Raises IndexError for an empty one."""
    return ranked[min(len(ranked) * percent // 100, len(ranked) - 1)]


def _processors(span: Span) -> float:
    return sum(role.request.cpu_milli * role.least for role in span.work.job_class.roles) / WHOLE
