"""How the jobs of one queue are ranked.

A policy gives a job its leading key, lowest first. The queue's second policy breaks the ties of its first; then age
decides, then the id, so that no two jobs are ever equal. While a plan starts jobs a key only grows, and the keys of
two jobs of one class never change places, whatever time passes and whoever starts.
"""

from collections.abc import Callable, Mapping
from typing import Any

from scheduler.policies.deadline import deadline
from scheduler.policies.fair_share import fair_share
from scheduler.policies.fifo import fifo
from scheduler.policies.gang import gang
from scheduler.policies.priority import priority
from scheduler.policies.slowdown import slowdown
from scheduler.snapshot import PendingJob, Queue
from scheduler.standing import Standing

Policy = Callable[[PendingJob, Standing], Any]
"""Returns numbers, or tuples of them, that compare with those of any other job."""

Rank = Callable[[PendingJob], tuple[Any, ...]]
"""A whole sort key: no two are equal."""

POLICIES: Mapping[str, Policy] = {
    "deadline": deadline,
    "fair_share": fair_share,
    "fifo": fifo,
    "gang": gang,
    "priority": priority,
    "slowdown": slowdown,
}

STARVING = frozenset({"priority"})
"""Under these an endless stream of others can pass a job for ever, unless `Config.ageing_per_hour` says otherwise."""


def rank_of(queue: Queue, standing: Standing) -> Rank:
    """Return the order of a queue: its own policies, or those of the configuration where it names none.

    Raises: ValueError for a name that is not in POLICIES.
    """
    config = standing.config
    names = dict.fromkeys([queue.policy or config.policy, queue.second_policy or config.second_policy])
    policies = [_policy(name, queue) for name in names]
    if len(policies) == 1:
        return _rank_by_one(policies[0], standing)
    first, second = policies
    return lambda job: (first(job, standing), second(job, standing), job.submitted_at, job.id)


def by_age(queue: Queue, standing: Standing) -> bool:
    """Tell whether jobs of one class start oldest first in a queue: nothing about them ranks but their age."""
    config = standing.config
    names = {queue.policy or config.policy, queue.second_policy or config.second_policy}
    return names.isdisjoint(("deadline", "slowdown")) and not ("priority" in names and standing.lifts)


def _rank_by_one(policy: Policy, standing: Standing) -> Rank:
    return lambda job: (policy(job, standing), job.submitted_at, job.id)


def _policy(name: str, queue: Queue) -> Policy:
    if name not in POLICIES:
        raise ValueError(f"queue {queue.name!r} asks for policy {name!r}; there are {', '.join(sorted(POLICIES))}")
    return POLICIES[name]
