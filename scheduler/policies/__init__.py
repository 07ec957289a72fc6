"""How the jobs of one queue are ranked: one sort key a policy, lowest first.

A key ends in the job's id, so that no two jobs are ever equal, and only grows while a plan starts jobs.
"""

from collections.abc import Callable, Mapping
from typing import Any

from scheduler.ledger import Ledger
from scheduler.policies.fair_share import fair_share
from scheduler.policies.fifo import fifo
from scheduler.policies.priority import priority
from scheduler.snapshot import PendingJob

Policy = Callable[[PendingJob, Ledger], tuple[Any, ...]]

POLICIES: Mapping[str, Policy] = {"fifo": fifo, "priority": priority, "fair_share": fair_share}
