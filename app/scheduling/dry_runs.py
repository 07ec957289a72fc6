"""What would happen to a submission, a batch or a workflow, said whole: what would be stored, whether a quota refuses it, where
and when each would start, what it would hold. Three steps as in `app.scheduling.whatif`, and nothing is changed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from app.core.access import Permission
from app.core.amounts import NAMES, NOTHING, Amounts
from app.core.ids import new_id
from app.core.uow import UnitOfWork
from app.jobs.drafts import Draft, draft_steps, why_refused
from app.jobs.workflows import Step
from app.scheduling.classes import Classes
from app.scheduling.cluster import load_snapshot
from app.scheduling.jobs import pending_job
from app.scheduling.policy import config_of, policy_in_force
from app.scheduling.predictions import expected_by
from app.scheduling.whatif import Case, report_case
from scheduler import snapshot as plain
from scheduler.config import Config
from scheduler.foresight import Foresight, foresee

# Each kind is planned for by itself, beside all the others; and of one kind so many jobs are followed.
MOST_KINDS, MOST_COPIES = 10, 100


@dataclass(frozen=True, slots=True)
class DryRun:
    """What somebody thinks of submitting. `pointer` is where in the body each of them stands."""

    steps: tuple[Step, ...]
    pointer: str


@dataclass(frozen=True, slots=True)
class _Kind:
    """Jobs that are equal to the scheduler; `queue` is the name of theirs."""

    jobs: tuple[plain.PendingJob, ...]
    queue: str


@dataclass(frozen=True, slots=True)
class DryCase:
    """All that an answer follows from; `kinds` by their class keys, in the order in which they stand in the body."""

    drafts: Sequence[Draft]
    refused: str
    snapshot: plain.Snapshot
    config: Config
    kinds: dict[str, _Kind]


def read_dry_run(uow: UnitOfWork, wish: DryRun) -> DryCase:
    """Read what plans would be made from. Locks and writes nothing. Raises Invalid and Forbidden as a submission does."""
    drafts = draft_steps(uow, wish.steps, wish.pointer)
    policy, classes = policy_in_force(uow).policy, Classes()
    expected = expected_by(uow, policy)
    snapshot = load_snapshot(uow, classes, expected)
    kinds: dict[str, _Kind] = {}
    for draft in drafts:
        key = draft.job.class_key
        known = kinds.get(key) or _Kind((), draft.place.queue)
        if draft.at_once and (key in kinds or len(kinds) < MOST_KINDS):
            first = pending_job(draft.job, classes, expected)
            more = min(draft.at_once, MOST_COPIES - len(known.jobs))
            jobs = (first, *(replace(first, id=str(new_id())) for _ in range(more - 1)))[: max(0, more)]
            kinds[key] = replace(known, jobs=(*known.jobs, *jobs))
    return DryCase(drafts, why_refused(uow, drafts), snapshot, config_of(policy), kinds)


def plan_dry_run(case: DryCase) -> list[Foresight]:
    """Plan for each kind, with all that waits, and all other kinds, beside it."""
    seen = []
    for key, kind in case.kinds.items():
        others = [job for other, each in case.kinds.items() if other != key for job in each.jobs]
        seen.append(foresee(replace(case.snapshot, pending=(*case.snapshot.pending, *others)), case.config, kind.jobs))
    return seen


def report_dry_run(uow: UnitOfWork, case: DryCase, seen: Sequence[Foresight]) -> dict[str, Any]:
    """The answer: jobs with what would be stored of each, and forecasts that they name by their number."""
    for project_id in {draft.place.project_id for draft in case.drafts}:
        uow.require(Permission.JOB_READ, project_id)  # it may have been taken away while the plan was made
    numbers = {key: number for number, key in enumerate(case.kinds)}
    forecasts = [
        report_case(uow, Case(case.snapshot, case.config, kind.jobs, kind.queue, case.refused, 0), each)
        for kind, each in zip(case.kinds.values(), seen, strict=True)
    ]
    return {
        "count": sum(draft.count for draft in case.drafts),
        "refused": case.refused or None,
        "could_ever_start": all(forecast["could_ever_start"] for forecast in forecasts),
        "total": _amounts(case.drafts),
        "jobs": [_present(draft, numbers) for draft in case.drafts],
        "forecasts": forecasts,
    }


def _present(draft: Draft, numbers: dict[str, int]) -> dict[str, Any]:
    return {
        "name": draft.job.name,
        "project": draft.place.project,
        "queue": draft.place.queue,
        "count": draft.count,
        "spec": draft.job.spec,
        "labels": draft.job.labels,
        "waits_for": draft.waits_for,
        "total": _amounts([draft]),
        "forecast": numbers.get(draft.job.class_key) if draft.at_once else None,
    }


def _amounts(drafts: Sequence[Draft]) -> dict[str, Any]:
    """What they hold together if all run at once, and GPU-seconds up to their time limits; None where one has no limit."""
    total = sum((draft.amounts for draft in drafts), NOTHING)
    limits = [draft.spec.time_limit_s for draft in drafts if draft.amounts.gpu_milli]
    gpu_s = sum(draft.amounts.gpu_milli * (draft.spec.time_limit_s or 0) for draft in drafts) / 1000
    return _named(total) | {"gpu_seconds_at_most": None if None in limits else gpu_s}


def _named(amounts: Amounts) -> dict[str, int]:
    return {name: getattr(amounts, name) for name in NAMES}
