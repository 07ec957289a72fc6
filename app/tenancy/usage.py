"""What projects and their actors have now: what they hold, and how many of their jobs have not ended."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Select, column, func, select, table

from app.core.amounts import NOTHING, Amounts
from app.core.uow import UnitOfWork
from trellis.vocabulary import ENDED_JOB_STATES, JobState

# Jobs and allocations stand above, so their models are not to be had here; some columns of their tables are.
_JOBS = table("jobs", *map(column, ("id", "project_id", "actor_id", "state", "ended_at")))
_HELD = table(
    "allocations", *map(column, ("id", "job_id", "project_id", "owner_id", "cpu_milli", "memory_bytes", "released_at"))
)
_DEVICES = table("allocation_gpus", column("allocation_id"), column("milli"), column("live"))
# By state, so that an index of few rows tells it: what has ended is never looked at.
_OPEN = [str(state) for state in JobState if state not in ENDED_JOB_STATES]
Who = tuple[UUID, UUID | None]
"""A project and an actor in it."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What is held at once, and jobs that have not ended."""

    held: Amounts = NOTHING
    jobs: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(self.held + other.held, self.jobs + other.jobs)


def usage_by_actor(uow: UnitOfWork) -> Mapping[Who, Usage]:
    """Of every actor in every project who has anything, in three statements."""
    jobs = (
        select(_JOBS.c.project_id, _JOBS.c.actor_id, func.count())
        .where(_JOBS.c.state.in_(_OPEN), _JOBS.c.ended_at.is_(None))
        .group_by(_JOBS.c.project_id, _JOBS.c.actor_id)
    )
    shares = _by_holder(func.sum(_HELD.c.cpu_milli), func.sum(_HELD.c.memory_bytes))
    devices = _by_holder(func.sum(_DEVICES.c.milli)).join(_DEVICES, _DEVICES.c.allocation_id == _HELD.c.id)
    found: dict[Who, Usage] = {}
    for project_id, actor_id, count in uow.session.execute(jobs):
        _add(found, (project_id, actor_id), Usage(jobs=count))
    for project_id, actor_id, cpu, memory in uow.session.execute(shares):
        _add(found, (project_id, actor_id), Usage(Amounts(int(cpu), int(memory))))
    for project_id, actor_id, milli in uow.session.execute(devices.where(_DEVICES.c.live)):
        _add(found, (project_id, actor_id), Usage(Amounts(gpu_milli=int(milli))))
    return found


def open_jobs_of(uow: UnitOfWork, projects: Select[Any], actor_id: UUID | None) -> int:
    """How many jobs of these projects (and of this actor) have not ended."""
    statement = select(func.count()).where(
        _JOBS.c.state.in_(_OPEN), _JOBS.c.ended_at.is_(None), _JOBS.c.project_id.in_(projects)
    )
    if actor_id is not None:
        statement = statement.where(_JOBS.c.actor_id == actor_id)
    return int(uow.session.execute(statement).scalar_one())


def _by_holder(*sums: Any) -> Select[Any]:
    holder = func.coalesce(_JOBS.c.actor_id, _HELD.c.owner_id)
    return (
        select(_HELD.c.project_id, holder, *sums)
        .select_from(_HELD)
        .outerjoin(_JOBS, _JOBS.c.id == _HELD.c.job_id)
        .where(_HELD.c.released_at.is_(None))
        .group_by(_HELD.c.project_id, holder)
    )


def _add(found: dict[Who, Usage], who: Who, more: Usage) -> None:
    found[who] = found.get(who, Usage()) + more
