"""Whether a submission can be accepted: what the shape alone does not tell. Every fault is named at once."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import ARRAY, Select, String, Uuid, any_, bindparam, cast, select

from app.core.access import Permission
from app.core.constraints import NODE
from app.core.ids import read_id
from app.core.uow import UnitOfWork
from app.jobs.models import Job
from app.jobs.spec import JobSpec
from app.queues.models import Queue
from app.queues.service import find_queue
from app.resources.pools import list_pools
from app.resources.topology import list_levels
from app.storage.starts import fault_of
from app.tenancy.features import read_switches, switched
from app.tenancy.models import Project
from app.tenancy.quotas import are_set_for
from app.tenancy.service import DEFAULT_PROJECT
from trellis.errors import Field, Invalid


@dataclass(frozen=True, slots=True)
class Place:
    """Where a submission goes: a project and a queue; `limited`: some quota concerns it. `features` and `hang_after_s` are what
    is said there.
    """

    project_id: UUID
    project: str
    queue_id: UUID
    queue: str
    limited: bool = True
    features: Mapping[str, bool] = field(default_factory=dict)
    hang_after_s: int | None = None


def find_place(uow: UnitOfWork, project: str, queue: str) -> Place:
    """The project (by name or id; if not given, the only one the actor may work in) and its queue of that name.

    One statement: every submission asks. Raises Invalid for what there is not, Forbidden for a mere viewer.
    """
    among = uow.projects_with(Permission.PROJECT_READ if project else Permission.JOB_WRITE)
    statement = _places(bounded=among is not None, by="" if not project else "id" if read_id(project) else "name")
    found = uow.execute(statement, {"among": among, "project": project, "queue": queue}).all()
    if not found:
        known = f"there is no project {project!r} that you can see" if project else "you are a member of none"
        raise Invalid(Field("/project", f"{known}: `trellis whoami` lists yours"))
    chosen = found[0]
    if any(row.id != chosen.id for row in found) and (project or chosen.name != DEFAULT_PROJECT):
        raise Invalid(Field("/project", "several projects match: give the id of one"))
    uow.require(Permission.JOB_WRITE, chosen.id)
    queue_id = find_queue(uow, chosen.id, queue).id if chosen.queue_id is None else chosen.queue_id
    features = read_switches(chosen.features)
    return Place(chosen.id, chosen.name, queue_id, queue, chosen.limited, features, chosen.hang_after_s)


@cache
def _places(*, bounded: bool, by: Literal["", "id", "name"]) -> Select[UUID, str, UUID, bool, Any, int | None]:
    own_or_shared = (Queue.project_id == Project.id) | Queue.project_id.is_(None)
    named = (Queue.name == bindparam("queue")) & own_or_shared
    limited = are_set_for(Project).label("limited")
    said = switched(Project).label("features")
    columns = (Project.id, Project.name, Queue.id.label("queue_id"), limited, said, Project.hang_after_s)
    statement = select(*columns).outerjoin(Queue, named)
    if bounded:
        statement = statement.where(Project.id == any_(bindparam("among", type_=ARRAY(Uuid))))
    if by == "id":
        statement = statement.where(Project.id == cast(bindparam("project", type_=String), Uuid))
    elif by == "name":
        statement = statement.where(Project.name == bindparam("project"))
    own_first = (Project.name != DEFAULT_PROJECT, Project.id, Queue.project_id.is_(None))
    return statement.order_by(*own_first).limit(4)


def validate_spec(uow: UnitOfWork, spec: JobSpec, project_id: UUID) -> None:
    """Raises Invalid with every fault that the shape alone does not show."""
    faults = [*_time_faults(uow, spec), *_level_faults(uow, spec), *_dependency_faults(uow, spec, project_id)]
    faults += _origin_faults(uow, spec, project_id)
    if faults:
        raise Invalid(*faults)


def pools_named(uow: UnitOfWork, specs: Iterable[JobSpec]) -> dict[str, UUID]:
    """The ids of the pools that constraints name; asks nobody where they name none. Raises Invalid."""
    names = sorted({spec.constraints.pool for spec in specs} - {""})
    if not names:
        return {}
    pools = {pool.name: pool.id for pool in list_pools(uow)}
    for name in names:
        if name not in pools:
            there = ", ".join(sorted(pools)) or "none"
            raise Invalid(Field("/constraints/pool", f"there is no pool {name}; there are {there}"))
    return pools


def _level_faults(uow: UnitOfWork, spec: JobSpec) -> list[Field]:
    """Levels that are named and that the topology lacks; where only nodes are named it need not be asked."""
    said = spec.constraints
    named = [("/constraints/topology/level", said.topology.level)]
    for side in ("affinity", "anti_affinity"):
        named += [(f"/constraints/{side}/{i}/level", one.level) for i, one in enumerate(getattr(said, side))]
    if all(level in ("", NODE) for _, level in named):
        return []
    levels = (*list_levels(uow), NODE)
    there = f"is no level of the topology; there are {', '.join(levels)}"
    return [Field(pointer, there) for pointer, level in named if level and level not in levels]


def _time_faults(uow: UnitOfWork, spec: JobSpec) -> list[Field]:
    if spec.deadline_at is not None and spec.deadline_at <= uow.clock.now():
        return [Field("/deadline", "lies in the past")]
    return []


def _origin_faults(uow: UnitOfWork, spec: JobSpec, project_id: UUID) -> list[Field]:
    if spec.from_checkpoint is None:
        return []
    fault = fault_of(uow, spec.from_checkpoint, project_id)
    return [Field("/from_checkpoint", fault)] if fault else []


def _dependency_faults(uow: UnitOfWork, spec: JobSpec, project_id: UUID) -> list[Field]:
    if not spec.depends_on:
        return []
    wanted = [dependency.job for dependency in spec.depends_on]
    ids = uow.visible(Job).with_only_columns(Job.id).where(Job.id.in_(wanted), Job.project_id == project_id)
    known = set(uow.session.execute(ids).scalars())
    faults = [
        Field(f"/depends_on/{i}/job", f"there is no job {job} in this project")
        for i, job in enumerate(wanted)
        if job not in known
    ]
    twice = {job for job in wanted if wanted.count(job) > 1} if len(set(wanted)) < len(wanted) else set()
    return faults + [Field("/depends_on", f"names job {job} twice") for job in sorted(twice)]
