"""Submissions as they would be stored, judged as they would be and kept nowhere: for who only asks."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select

from app.core.amounts import Amounts
from app.core.pointers import below
from app.core.uow import UnitOfWork
from app.jobs.code import Pins
from app.jobs.models import Job
from app.jobs.service import hold_quotas, make_job
from app.jobs.spec import JobSpec
from app.jobs.validator import Place, find_place, pools_named, validate_spec
from app.jobs.workflows import Step, check_names
from app.tenancy import quotas
from trellis.errors import QuotaExceeded


@dataclass(frozen=True, slots=True)
class Draft:
    """What one submission would become: `count` jobs like `job`, of which `at_once` wait for nothing but room.

    `waits_for` are names of the workflow, and ids of jobs, that have to end before.
    """

    job: Job
    spec: JobSpec
    place: Place
    count: int
    at_once: int
    waits_for: tuple[str, ...]

    @property
    def amounts(self) -> Amounts:
        """What all of them hold together if they run at once, with as few replicas as may be."""
        return self.spec.least() * self.count


def draft_steps(uow: UnitOfWork, steps: Sequence[Step], pointer: str) -> list[Draft]:
    """A draft for each; writes and locks nothing. Faults are named below `pointer` (`{}` is the step's number).

    Raises: Invalid and Forbidden as submitting them would.
    """
    if any(step.after for step in steps):
        check_names(steps)
    places: dict[tuple[str, str], Place] = {}
    pins, pools = Pins(uow, lock=False), pools_named(uow, [step.spec for step in steps])
    waiting = _waiting(uow, steps)
    drafts = []
    for number, step in enumerate(steps):
        with below(pointer.format(number)):
            where = (step.spec.project, step.spec.queue)
            place = places[where] = places.get(where) or find_place(uow, *where)
            validate_spec(uow, step.spec, place.project_id)
            spec = pins.pin(step.spec, place.project_id)
        count = len(spec.array.indexes) if spec.array else 1
        at_once = min(count, spec.array.max_parallel or count) if spec.array else 1
        others = (*(name for name, _ in step.after), *(str(d.job) for d in spec.depends_on if d.job in waiting))
        drafts.append(Draft(make_job(uow, spec, place, pools), spec, place, count, 0 if others else at_once, others))
    return drafts


def why_refused(uow: UnitOfWork, drafts: Sequence[Draft]) -> str:
    """Why a quota would refuse them together; empty where none does. Locks nothing."""
    try:
        hold_quotas(uow, [(draft.spec, draft.place) for draft in drafts], quotas.require_submission)
    except QuotaExceeded as error:
        return error.detail
    return ""


def _waiting(uow: UnitOfWork, steps: Sequence[Step]) -> set[object]:
    """Of the jobs that they depend on, those that have not ended."""
    ids = {dependency.job for step in steps for dependency in step.spec.depends_on}
    if not ids:
        return set()
    return set(uow.session.execute(select(Job.id).where(Job.id.in_(ids), Job.ended_at.is_(None))).scalars())
