"""Jobs that move together, so that a large one fits at one place; each has its new place before anybody is told."""

from collections.abc import Collection, Sequence
from math import inf

from scheduler.config import Config
from scheduler.occupants import Occupant
from scheduler.placement.rooms import Grant
from scheduler.plan import EvictionKind
from scheduler.preemption import evictable
from scheduler.snapshot import WHOLE, JobClass, PendingJob


class ByMoving:
    """Jobs that checkpoint move, if they are not more important; each GPU moved costs a restart.

    `fixed` are the ids of those that have no other place.
    """

    kind = EvictionKind.CONSOLIDATE

    def __init__(self, priority: int, config: Config, now: float, fixed: Collection[str] = ()) -> None:
        self.most_priority: float = priority
        self._config = config
        self._now = now
        self._fixed = fixed

    def may_go(self, occupant: Occupant) -> bool:
        """Tell whether it can go on elsewhere."""
        return (
            occupant.job_class.checkpointable
            and occupant.job_class.priority <= self.most_priority
            and not occupant.leaving
            and occupant.id not in self._fixed
            and evictable(occupant, self._config.preemption, self._now)
        )

    def may_shrink(self, occupant: Occupant) -> bool:
        """Nobody loses anything by a move."""
        return False

    def rank(self, occupant: Occupant) -> tuple[int, ...]:
        """All are alike: what counts is how much must move."""
        return ()

    def lost(self, occupant: Occupant) -> int:
        """Return what it does not do while it restarts."""
        return restart_cost(occupant, self._config)

    def note(self, occupant: Occupant, grants: Sequence[Grant], *, goes: bool) -> None:
        """Nothing depends on who has gone."""

    def satisfied(self) -> bool:
        """Room is all that is missing."""
        return True


def restart_cost(occupant: Occupant, config: Config) -> int:
    """Return what a job does not do while it is moved, in millionths of a GPU-second."""
    return round(config.restart_s * occupant.worth)


def gain(job: PendingJob) -> float:
    """Return what a job does if it starts, in millionths of a GPU-second; infinity where nobody says for how long."""
    run_s = job.expected_s if job.expected_s is not None else job.job_class.time_limit_s
    if run_s is None:
        return inf
    roles = job.job_class.roles
    return run_s * sum((role.request.gpu_milli * WHOLE + role.request.cpu_milli) * role.least for role in roles)


def needs_one_place(job_class: JobClass) -> bool:
    """Tell whether scattered room may be enough in sum and still not do: for whole GPUs, or for a gang."""
    roles = job_class.roles
    return any(role.request.gpu_milli >= WHOLE for role in roles) or sum(role.least for role in roles) > 1
