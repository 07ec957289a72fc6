"""Whether a submission can be accepted: what the shape alone does not tell. Every fault is named at once."""

from uuid import UUID

from app.core.access import Permission
from app.core.uow import UnitOfWork
from app.jobs.models import Job
from app.jobs.spec import JobSpec
from app.tenancy.models import Project
from trellis.errors import Field, Invalid


def find_project(uow: UnitOfWork, given: str) -> Project:
    """The project by name or id, or the only one the actor may work in. Raises Invalid, NotFound or Forbidden."""
    statement = uow.visible(Project)
    if given:
        statement = statement.where(Project.id == UUID(given) if _is_id(given) else Project.name == given)
    elif not uow.actor.sees_all:
        statement = statement.where(Project.id.in_(uow.actor.projects_with(Permission.JOB_WRITE)))
    found = uow.session.execute(statement.limit(2)).scalars().all()
    if len(found) == 2 and not given:
        default = [p for p in uow.session.execute(statement).scalars() if p.name == "default"]
        found = default or found
    if not found:
        known = "you are a member of none" if not given else f"there is no project {given!r} that you can see"
        raise Invalid(Field("/project", f"{known}: `trellis whoami` lists yours"))
    if len(found) > 1:
        raise Invalid(Field("/project", "several projects match: give its id"))
    uow.require(Permission.JOB_WRITE, found[0].id)
    return found[0]


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


def _is_id(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
