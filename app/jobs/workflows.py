"""Workflows: jobs by name that wait for one another, submitted at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from app.core.ids import new_id
from app.core.uow import UnitOfWork
from app.jobs.code import Pins
from app.jobs.dependencies import add_dependencies, wait_for
from app.jobs.models import Dependency, Job
from app.jobs.service import hold_quotas, make_job, queue_all, store
from app.jobs.spec import JobSpec
from app.jobs.validator import Place, find_place, pools_named, validate_spec
from trellis.errors import Field, Invalid
from trellis.vocabulary import DependencyKind


@dataclass(frozen=True, slots=True)
class Step:
    """One job of a workflow: its name there is the job's, and `after` says which others it waits for, and how."""

    spec: JobSpec
    after: tuple[tuple[str, DependencyKind], ...] = ()


@dataclass(frozen=True, slots=True)
class WorkflowSpec:
    """A submission of several jobs that belong together."""

    name: str
    steps: tuple[Step, ...]
    dry_run: bool = False


def submit_workflow(uow: UnitOfWork, spec: WorkflowSpec) -> list[Job]:
    """Accept all jobs of a workflow or none. Raises Invalid that names a cycle, or the job at fault by `/jobs/<number>`."""
    check_names(spec.steps)
    pins = Pins(uow, lock=not spec.dry_run)
    places: dict[tuple[str, str], Place] = {}
    wanted = [_accept(uow, pins, step.spec, number, places) for number, step in enumerate(spec.steps)]
    if len({place.project_id for _, place in wanted}) > 1:
        raise Invalid(Field("/jobs", "are of several projects: a workflow is of one"))
    hold_quotas(uow, wanted)
    workflow_id, pools = new_id(), pools_named(uow, [each for each, _ in wanted])
    jobs = {}
    for each, place in wanted:
        job = make_job(uow, each, place, pools)
        job.workflow_id, job.workflow = workflow_id, spec.name
        jobs[job.name] = job
    if spec.dry_run:
        return list(jobs.values())
    waits: list[Dependency] = []
    for step in spec.steps:
        job = jobs[step.spec.name]
        waits += [wait_for(job, jobs[name], kind) for name, kind in step.after]
        waits += add_dependencies(uow, [job], step.spec.depends_on) if step.spec.depends_on else []
    queue_all(uow, list(jobs.values()))
    store(uow, list(jobs.values()), waits)
    return list(jobs.values())


def find_cycle(after: Mapping[str, Sequence[str]]) -> list[str]:
    """A cycle among names that wait for names, from one of them back to it; none where there is none."""
    try:
        TopologicalSorter(after).prepare()
    except CycleError as error:
        cycle: list[str] = error.args[1]
        return cycle[::-1]  # each waits for the next
    return []


def check_names(steps: Sequence[Step]) -> None:
    """Raises Invalid for a name that stands twice, one that nobody has, and for who wait in a circle."""
    names = [step.spec.name for step in steps]
    faults = [Field("/jobs", f"name {name!r} twice") for name in sorted({n for n in names if names.count(n) > 1})]
    for number, step in enumerate(steps):
        waited = [name for name, _ in step.after]
        pointer = f"/jobs/{number}/after"
        faults += [
            Field(pointer, f"names {name!r}, which is no job of this workflow") for name in set(waited) - set(names)
        ]
        faults += [Field(pointer, f"names {name!r} twice") for name in {n for n in waited if waited.count(n) > 1}]
    if not faults and (cycle := find_cycle({step.spec.name: [name for name, _ in step.after] for step in steps})):
        faults.append(Field("/jobs", f"wait for one another in a circle: {' -> '.join(cycle)}"))
    if faults:
        raise Invalid(*faults)


def _accept(
    uow: UnitOfWork, pins: Pins, spec: JobSpec, number: int, known: dict[tuple[str, str], Place]
) -> tuple[JobSpec, Place]:
    where = (spec.project, spec.queue)
    try:
        place = known[where] = known.get(where) or find_place(uow, *where)
        validate_spec(uow, spec, place.project_id)
        if spec.array is not None:
            raise Invalid(Field("/array", "is not for workflows: submit it on its own"))
        return pins.pin(spec, place.project_id), place
    except Invalid as error:
        raise Invalid(*(Field(f"/jobs/{number}{f.pointer}", f.message) for f in error.fields)) from error
