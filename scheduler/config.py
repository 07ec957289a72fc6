"""How the scheduler is told to behave."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Config:
    """`policy` ranks the jobs of queues that name none; `backfill` lets later jobs pass a blocked head
    where they do not delay it; `max_placements` bounds one plan, so that its transaction stays short."""

    policy: str = "priority"
    backfill: bool = True
    max_placements: int = 500
