"""How the scheduler is told to behave."""

from dataclasses import dataclass, field
from enum import StrEnum


class BackfillOrder(StrEnum):
    """In which order jobs are tried that may pass a blocked head: the queue's, or the shortest first."""

    QUEUE = "queue"
    SHORTEST = "shortest"


@dataclass(frozen=True, slots=True)
class Preemption:
    """When a running job may be evicted for a waiting one.

    The waiting one's priority is at least `priority_threshold` higher (a reclaim needs no such thing); the victim has
    run `min_run_s`, has been evicted fewer than `max_preemptions` times, and gets `grace_s` to end. One plan makes room
    for at most `most_heads` jobs and evicts at most `most_evictions`, but for those that its first one needs.
    """

    enabled: bool = True
    grace_s: float = 60.0
    priority_threshold: int = 1
    max_preemptions: int = 3
    min_run_s: float = 300.0
    most_heads: int = 32
    most_evictions: int = 256


@dataclass(frozen=True, slots=True)
class Config:
    """`policy` and `second_policy` rank the jobs of queues that name none.

    `backfill` lets later jobs pass a blocked one where they delay none of the first `reserved_heads` blocked ones of a
    queue; None: none at all (conservative). `predictions` takes the shortest by expected run times, not by limits.
    `ageing_per_hour` is the priority a job gains each hour it waits. Moving a job costs it `restart_s`, and
    so does giving it more replicas, which `elastic` allows.
    `patience_s` is how long after it came a job without a deadline is to start, and the most that a deadline is worth;
    a job of twice the size ranks as if it had come `size_lead_s` earlier under the gang policy, one that is expected to
    run twice as long as if it had come `stand_back_s` later under the slowdown policy.
    `max_placements` bounds one plan, so that its transaction stays short.
    """

    policy: str = "priority"
    second_policy: str = "slowdown"
    backfill: bool = True
    backfill_order: BackfillOrder = BackfillOrder.QUEUE
    reserved_heads: int | None = 1
    predictions: bool = False
    gangs: bool = True
    preemption: Preemption = field(default_factory=Preemption)
    reclaim: bool = True
    consolidate: bool = True
    elastic: bool = True
    restart_s: float = 120.0
    ageing_per_hour: float = 0.0
    patience_s: float = 86_400.0
    size_lead_s: float = 3600.0
    stand_back_s: float = 14_400.0
    max_placements: int = 500
