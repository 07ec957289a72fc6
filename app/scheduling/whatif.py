"""What would become of a job if it were submitted now: the scheduler's own answer on what is there, changing nothing.

Three steps, so that no connection is held while it plans: `read_case` in a unit that only reads, `plan_case` with no
unit at all, `report_case` in another unit, which says of others' jobs no more than the caller may see.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, any_, bindparam, select

from app.core.ids import new_id, read_id
from app.core.pointers import below
from app.core.uow import UnitOfWork
from app.jobs.models import Job
from app.jobs.service import draft_job, require_submission
from app.jobs.spec import JobSpec
from app.jobs.validator import Place
from app.resources.models import Node
from app.scheduling.classes import Classes
from app.scheduling.cluster import load_snapshot
from app.scheduling.jobs import pending_job
from app.scheduling.policy import config_of, policy_in_force
from app.scheduling.predictions import expected_by
from scheduler import snapshot as plain
from scheduler.config import Config
from scheduler.foresight import Certainty, Fate, Foresight, foresee
from scheduler.plan import ReplicaPlacement
from scheduler.suppositions import held_on, with_twins, without_nodes
from trellis.errors import Field, Invalid, QuotaExceeded

_SUBMITTED = select(Job.id, Job.created_at).where(Job.id == any_(bindparam("ids", type_=ARRAY(Uuid))))
_PROFILES = select(Node.profile, Node.name).where(Node.profile != "").order_by(Node.name)


@dataclass(frozen=True, slots=True)
class MoreNodes:
    """`count` nodes more, like the node of that name, or like one that has the profile of that name."""

    like: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class WishSpec:
    """A job that somebody thinks of submitting `copies` times, with these nodes more, and without those named."""

    job: JobSpec
    copies: int = 1
    more: tuple[MoreNodes, ...] = ()
    without: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Case:
    """All that an answer follows from. `requeued` jobs would wait again for what is taken away."""

    snapshot: plain.Snapshot
    config: Config
    jobs: tuple[plain.PendingJob, ...]
    queue: str
    refused: str
    requeued: int


def read_case(uow: UnitOfWork, wish: WishSpec) -> Case:
    """Read what a plan would be made from, with what `wish` supposes. Locks and writes nothing.

    Raises: Invalid and Forbidden as a submission does, Invalid for nodes that there are not.
    """
    if wish.job.array is not None:
        raise Invalid(Field("/job/array", "is not asked about: say how many with copies"))
    with below("/job"):
        draft, place = draft_job(uow, wish.job)
    policy, classes = policy_in_force(uow).policy, Classes()
    expected = expected_by(uow, policy)
    snapshot = load_snapshot(uow, classes, expected)
    first = pending_job(draft, classes, expected)
    jobs = (first, *(replace(first, id=str(new_id())) for _ in range(wish.copies - 1)))
    snapshot, requeued = _supposed(uow, snapshot, wish)
    refused = _refusal(uow, wish, place)
    return Case(snapshot, config_of(policy), jobs, place.queue, refused, requeued)


def plan_case(case: Case) -> Foresight:
    """Plan, with everything that waits ahead."""
    return foresee(case.snapshot, case.config, case.jobs)


def report_case(uow: UnitOfWork, case: Case, seen: Foresight) -> dict[str, Any]:
    """The answer: of jobs that would be displaced those that the actor may see by name, of the others their number."""
    names = {node.id: node.name for node in case.snapshot.nodes}
    return {
        "queue": case.queue,
        "asked_at": _moment(case.snapshot.now),
        "copies": [_copy(fate, names) for fate in seen.fates],
        "starting_now": sum(fate.certainty is Certainty.NOW for fate in seen.fates),
        "could_ever_start": all(fate.certainty is not Certainty.NEVER for fate in seen.fates),
        "why": None if seen.verdict is None else {"reason": str(seen.verdict.reason), "message": seen.verdict.message},
        "refused": case.refused or None,
        "displaced": _displaced(uow, seen),
        "requeued": case.requeued,
    }


def _refusal(uow: UnitOfWork, wish: WishSpec, place: Place) -> str:
    """Why the submission itself would be refused."""
    try:
        require_submission(uow, wish.job, place, wish.copies)
    except QuotaExceeded as error:
        return error.detail
    return ""


def _supposed(uow: UnitOfWork, snapshot: plain.Snapshot, wish: WishSpec) -> tuple[plain.Snapshot, int]:
    """The cluster as it is supposed to be, and how many jobs would wait again for it."""
    by_name = {node.name: node for node in snapshot.nodes}
    twins = _twins(uow, by_name, wish.more)
    away = _named(by_name, wish.without)
    for name, count in twins.items():
        snapshot = with_twins(snapshot, by_name[name], count)
    if not away:
        return snapshot, 0
    ids = [job_id for job in held_on(snapshot, away) if (job_id := read_id(job.id))]
    submitted_at = {str(row.id): row.created_at.timestamp() for row in uow.execute(_SUBMITTED, {"ids": ids})}
    return without_nodes(snapshot, away, submitted_at), len(submitted_at)


def _twins(uow: UnitOfWork, by_name: Mapping[str, plain.Node], wanted: Sequence[MoreNodes]) -> Mapping[str, int]:
    """How many nodes more there would be like the node of each name. Raises Invalid."""
    profiles: dict[str, str] = {}
    if wanted:
        for row in uow.execute(_PROFILES):
            profiles.setdefault(row.profile, row.name)
    counts: dict[str, int] = {}
    faults = []
    for number, more in enumerate(wanted):
        name = more.like if more.like in by_name else profiles.get(more.like, "")
        if name in by_name:
            counts[name] = counts.get(name, 0) + more.count
        else:
            faults.append(Field(f"/more/{number}/like", f"no node and no profile of a node is called {more.like!r}"))
    if faults:
        raise Invalid(*faults)
    return counts


def _named(by_name: Mapping[str, plain.Node], names: Sequence[str]) -> set[str]:
    faults = [
        Field(f"/without/{number}", f"there is no node {name!r}: `trellis nodes` lists them")
        for number, name in enumerate(names)
        if name not in by_name
    ]
    if faults:
        raise Invalid(*faults)
    return {by_name[name].id for name in names}


def _copy(fate: Fate, names: Mapping[str, str]) -> dict[str, Any]:
    at = None if fate.starts_at is None else _moment(fate.starts_at)
    is_later = fate.certainty is Certainty.LATER
    numbers = dict.fromkeys([*(one.node_id for one in fate.replicas), *fate.node_ids])
    return {
        "certainty": fate.certainty,
        "starts_at": None if is_later else at,
        "not_before": at if is_later else None,
        "position": fate.position or None,
        "nodes": [names[node_id] for node_id in numbers],
        "replicas": [_replica(one, names) for one in fate.replicas],
        "reason": fate.reason,
    }


def _replica(one: ReplicaPlacement, names: Mapping[str, str]) -> dict[str, Any]:
    return {
        "index": one.index,
        "role": one.role,
        "node": names[one.node_id],
        "gpus": [{"index": index, "milli": milli} for index, milli in one.gpus],
        "slices": [{"index": piece.device, "profile": piece.profile} for piece in one.slices],
    }


def _displaced(uow: UnitOfWork, seen: Foresight) -> dict[str, Any]:
    """Who would have to go, or give up replicas."""
    fates = {one.job_id: (str(one.kind), one.grace_s) for one in seen.evictions}
    fates |= {one.job_id: ("shrink", one.grace_s) for one in seen.resizes if one.removed}
    known = uow.visible(Job).with_only_columns(Job.id, Job.name, Job.priority).where(Job.id.in_(map(UUID, fates)))
    shown = [
        {"job_id": row.id, "name": row.name, "priority": row.priority, "how": fates[str(row.id)][0],
         "grace_s": fates[str(row.id)][1]}
        for row in (uow.session.execute(known.order_by(Job.id)) if fates else ())
    ]  # fmt: skip
    return {"jobs": shown, "others": len(fates) - len(shown)}


def _moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)
