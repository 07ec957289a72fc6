"""Whether a submission can be accepted: what the shape alone does not tell. Every fault is named at once."""

from dataclasses import dataclass
from uuid import UUID

from app.core.access import Permission
from app.core.ids import read_id
from app.core.uow import UnitOfWork
from app.jobs.models import Job
from app.jobs.spec import JobSpec
from app.queues.models import Queue
from app.queues.service import find_queue
from app.tenancy.models import Project
from trellis.errors import Field, Invalid

# Of several projects this one is meant by whoever names none.
DEFAULT_PROJECT = "default"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a submission goes."""

    project: Project
    queue: Queue


def find_place(uow: UnitOfWork, project: str, queue: str) -> Place:
    """The project (by name or id; if not given, the only one the actor may work in) and its queue of that name.

    One statement: every submission asks. Raises Invalid for what there is not, Forbidden for a mere viewer.
    """
    own_or_shared = (Queue.project_id == Project.id) | Queue.project_id.is_(None)
    named = (Queue.name == queue) & own_or_shared
    statement = uow.visible(Project).add_columns(Queue).outerjoin(Queue, named)
    if project:
        statement = statement.where(
            Project.id == known_id if (known_id := read_id(project)) else Project.name == project
        )
    elif not uow.actor.sees_all:
        statement = statement.where(Project.id.in_(uow.actor.projects_with(Permission.JOB_WRITE)))
    own_first = (Project.name != DEFAULT_PROJECT, Project.id, Queue.project_id.is_(None))
    found = uow.session.execute(statement.order_by(*own_first).limit(4)).all()
    projects = {row[0].id: row[0] for row in found}
    if not projects:
        known = f"there is no project {project!r} that you can see" if project else "you are a member of none"
        raise Invalid(Field("/project", f"{known}: `trellis whoami` lists yours"))
    chosen, at = found[0]
    if len(projects) > 1 and (project or chosen.name != DEFAULT_PROJECT):
        raise Invalid(Field("/project", "several projects match: give the id of one"))
    uow.require(Permission.JOB_WRITE, chosen.id)
    return Place(chosen, at or find_queue(uow, chosen.id, queue))


def validate_spec(uow: UnitOfWork, spec: JobSpec, project_id: UUID) -> None:
    """Raises Invalid with every fault that the shape alone does not show."""
    faults = [*_time_faults(uow, spec), *_dependency_faults(uow, spec, project_id)]
    if faults:
        raise Invalid(*faults)


def _time_faults(uow: UnitOfWork, spec: JobSpec) -> list[Field]:
    if spec.deadline_at is not None and spec.deadline_at <= uow.clock.now():
        return [Field("/deadline", "lies in the past")]
    return []


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
