"""Attempts and replicas: how a try is opened, and how what its nodes report becomes the job's state."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, any_, bindparam, exists, select

from app.core.ids import new_id
from app.core.uow import UnitOfWork
from app.jobs.asks import RoleAsks, is_exclusive, roles_in
from app.jobs.endings import advance, conclude
from app.jobs.gangs import note_ready, numbered
from app.jobs.models import Attempt, Dependency, Job, Replica
from app.jobs.service import ask_stop
from app.jobs.starts import note_failed_start
from app.jobs.suspensions import ask_pause, count_parked, go_on, rest
from app.resources.allocations import Grant, lock_nodes, release
from app.resources.health import distrust
from app.resources.models import Gpu, Node
from trellis.vocabulary import ENDED_REPLICA_STATES, Cause, JobState, QuarantinedBy, ReplicaState, StopReason
from trellis.wire import Report

# What a replica holds is given back when it ends, and when it stands still.
_NODES_FAULT = frozenset({Cause.START_FAILED, Cause.NODE_FAULT})
FREEING = ENDED_REPLICA_STATES | {ReplicaState.SUSPENDED}


@dataclass(frozen=True, slots=True)
class Piece:
    """A slice of a partitioned device: its profile, its first memory slot, and all of its slots."""

    gpu: Gpu
    profile: str
    start: int
    slots: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Seat:
    """Where one replica goes, and what it holds there: milli of some devices of the node, or slices of them.

    `role` is the number of its role in the job.
    """

    index: int
    node: Node
    gpus: Sequence[tuple[Gpu, int]]
    pieces: Sequence[Piece] = ()
    role: int = 0


@dataclass(frozen=True, slots=True)
class Opened:
    """An attempt that is not stored yet, its replicas, and what these must be granted."""

    attempt: Attempt
    replicas: Sequence[Replica]
    grants: Sequence[Grant]


def store_attempts(uow: UnitOfWork, opened: Collection[Opened]) -> None:
    """Store all that a plan opened."""
    uow.insert([one.attempt for one in opened])
    uow.insert([replica for one in opened for replica in one.replicas])


def open_attempt(uow: UnitOfWork, job: Job, seats: Sequence[Seat], reason: str) -> Opened:
    """Begin the next try of a queued (locked) job under the next fence."""
    job.fence += 1
    job.attempt += 1
    job.paused_ms = 0
    if job.usual is not None:  # it has moved where it was told to
        job.asks, job.class_key, job.usual = job.usual["asks"], job.usual["class_key"], None
    job.run_after = None
    attempt = Attempt(
        id=new_id(), version=1, project_id=job.project_id, job_id=job.id, number=job.attempt, fence=job.fence,
        state=ReplicaState.PLACED, reason=reason, message="",
    )  # fmt: skip
    uow.move(job, JobState.SCHEDULED, reason=reason)
    replicas, grants = seat_all(uow, job, attempt, numbered(seats), len(seats))
    return Opened(attempt, replicas, grants)


def seat_all(
    uow: UnitOfWork, job: Job, attempt: Attempt, seats: Sequence[Seat], count: int
) -> tuple[list[Replica], list[Grant]]:
    """Members of an attempt that has `count` with them, and what these must be granted."""
    roles, alone = roles_in(job), is_exclusive(job)
    replicas, grants = [], []
    for seat in seats:
        replica = _seat(attempt, job, seat, count)
        replicas.append(replica)
        uow.emit("replica.placed", replica, node_id=str(seat.node.id), node=seat.node.name, fence=replica.fence)
        grants.append(claim_of(job, replica, seat, roles[seat.role], alone=alone))
    return replicas, grants


def claim_of(job: Job, replica: Replica, seat: Seat, role: RoleAsks, *, alone: bool) -> Grant:
    """What a replica in this seat must be granted."""
    return Grant(
        replica.id, seat.node.id, job.project_id, job.id, job.name, role.cpu_milli, role.memory_bytes,
        {gpu.id: milli for gpu, milli in seat.gpus},
        slots={piece.gpu.id: piece.slots for piece in seat.pieces},
        exclusive=alone,
    )  # fmt: skip


def _seat(attempt: Attempt, job: Job, seat: Seat, count: int) -> Replica:
    pieces = [
        {"index": piece.gpu.index, "uuid": piece.gpu.uuid, "profile": piece.profile, "start": piece.start}
        for piece in seat.pieces
    ]
    return Replica(
        id=new_id(),
        version=1,
        project_id=job.project_id,
        attempt_id=attempt.id,
        job_id=job.id,
        node_id=seat.node.id,
        node_name=seat.node.name,
        number=attempt.number,
        index=seat.index,
        fence=attempt.fence,
        state=ReplicaState.PLACED,
        role=seat.role,
        count=count,
        slices=pieces or None,
        gpus=[{"index": gpu.index, "uuid": gpu.uuid, "milli": milli} for gpu, milli in seat.gpus],
        stop_grace_s=0,
        message="",
        report_seq=0,
        metric_seq=0,
        log_bytes=0,
        run_ms=0,
        cpu_ms=0,
        peak_memory_bytes=0,
    )


_BY_IDS = Job.id == any_(bindparam("job_ids", type_=ARRAY(Uuid)))
_BY_REPLICAS = Job.id.in_(
    select(Replica.job_id).where(
        Replica.id == any_(bindparam("replica_ids", type_=ARRAY(Uuid))),
        Replica.node_id == any_(bindparam("node_ids", type_=ARRAY(Uuid))),
    )
)
_LOCKED = select(Job).order_by(Job.id).with_for_update(key_share=True).execution_options(populate_existing=True)
_LOCKED_BY_IDS, _LOCKED_BY_REPLICAS = _LOCKED.where(_BY_IDS), _LOCKED.where(_BY_REPLICAS)
# `awaited` is asked under the job's lock, in a statement of its own: whoever makes a job wait for this one locks it
# too, so what this does not see yet will find the job as it is after us.
_LATEST = (
    select(Attempt, Replica, exists().where(Dependency.on_job_id == Attempt.job_id, ~Dependency.met).label("awaited"))
    .join(Job, (Job.id == Attempt.job_id) & (Job.fence == Attempt.fence))
    .join(Replica, Replica.attempt_id == Attempt.id)
    .where(_BY_IDS)
    .order_by(Replica.index)
    .execution_options(populate_existing=True)
)


class Family:
    """Some jobs with the attempts that concern us and all replicas of those, locked job by job in one order."""

    def __init__(self, uow: UnitOfWork, locked: Iterable[Job]) -> None:
        self.jobs = {job.id: job for job in locked}
        self.attempts: dict[UUID, Attempt] = {}
        self.members: dict[UUID, list[Replica]] = {}
        self.awaited: set[UUID] = set()  # jobs that others wait for
        # Under the job's lock nothing below it changes: no further locks are needed.
        for attempt, replica, awaited in uow.session.execute(_LATEST, {"job_ids": list(self.jobs)}):
            if awaited:
                self.awaited.add(attempt.job_id)
            self.attempts[attempt.id] = attempt
            self.members.setdefault(attempt.id, []).append(replica)
        self.replicas = {replica.id: replica for members in self.members.values() for replica in members}

    @classmethod
    def of_jobs(cls, uow: UnitOfWork, job_ids: Iterable[UUID]) -> "Family":
        """Those jobs'."""
        return cls(uow, uow.session.execute(_LOCKED_BY_IDS, {"job_ids": list(job_ids)}).scalars())

    @classmethod
    def of_replicas(cls, uow: UnitOfWork, replica_ids: Iterable[UUID], node_ids: Iterable[UUID]) -> "Family":
        """That of the jobs of those replicas that are on those nodes."""
        named = {"replica_ids": list(replica_ids), "node_ids": list(node_ids)}
        return cls(uow, uow.session.execute(_LOCKED_BY_REPLICAS, named).scalars())


def apply_reports(uow: UnitOfWork, family: Family, reports: Collection[Report], node_ids: Collection[UUID]) -> set[str]:
    """Let the states of replicas, attempts and jobs follow from `reports` of nodes, locked where one is of an end.

    A report that is known already changes nothing. Returns the replica ids whose fence is old: their
    supervisors must end themselves.
    """
    stale: set[str] = set()
    freed: dict[UUID, list[UUID]] = {}
    parked_on: set[UUID] = set()
    for report in sorted(reports, key=lambda r: (r.replica_id, r.seq)):
        replica = family.replicas.get(UUID(report.replica_id))
        if replica is None or replica.node_id not in node_ids or replica.fence != report.fence:
            stale.add(report.replica_id)
        elif report.seq <= replica.report_seq:
            continue
        elif replica.state in ENDED_REPLICA_STATES:
            stale.add(report.replica_id)
        else:
            before = replica.state
            apply_report(uow, family, replica, report)
            if replica.state in FREEING:  # none else: its node is locked for that; who goes on was counted when placed
                freed.setdefault(replica.node_id, []).append(replica.id)
                if ReplicaState.SUSPENDED in (before, replica.state):
                    parked_on.add(replica.node_id)
    for node_id, replica_ids in freed.items():
        release(uow, replica_ids, node_id)
    if parked_on:
        count_parked(uow, parked_on)
    return stale


def apply_report(uow: UnitOfWork, family: Family, replica: Replica, report: Report) -> None:
    """One new report of a live replica."""
    replica.report_seq = report.seq
    before = replica.state
    advance(uow, replica, report.state)
    if report.state in ENDED_REPLICA_STATES:
        replica.exit_code, replica.signal, replica.cause = report.exit_code, report.signal, report.cause
        replica.message = report.message[:2000]
        replica.run_ms, replica.cpu_ms = round(report.run_s * 1000), round(report.cpu_s * 1000)
        replica.peak_memory_bytes = report.peak_memory_bytes
    job = family.jobs[replica.job_id]
    if report.ready is not None and replica.ready is None and report.state is ReplicaState.STARTING:
        note_ready(uow, replica, report.ready, family.members[replica.attempt_id])
        if before is ReplicaState.STARTING:  # its state follows from nothing new
            return
    if report.cause in _NODES_FAULT:
        _blame_node(uow, replica)
    if report.cause is Cause.HUNG and report.state is ReplicaState.RUNNING:
        uow.emit("replica.hung", replica, node=replica.node_name, reason=report.message[:2000])
    if report.state is ReplicaState.SUSPENDED:  # what it held is released with this, whoever wished it
        replica.suspend_asked_at = replica.suspend_asked_at or uow.clock.now()
    if report.state is ReplicaState.RUNNING and job.suspend_asked_at and replica.suspend_asked_at is None:
        ask_pause(uow, job, replica)  # the wish is older than the replica, or came while it was about to go on
    follow(uow, family, family.attempts[replica.attempt_id])


def _blame_node(uow: UnitOfWork, replica: Replica) -> None:
    """It failed for a reason that may be its (locked) node's own."""
    if replica.cause is Cause.START_FAILED:
        note_failed_start(uow, replica)
    else:
        (node,) = lock_nodes(uow, [replica.node_id]).values()
        distrust(uow, node, QuarantinedBy.HOOK, "it could not be made ready for a job", replica.message[:500])


def follow(uow: UnitOfWork, family: Family, attempt: Attempt) -> None:
    """Let attempt and job be as far as the attempt's replicas are."""
    job, members = family.jobs[attempt.job_id], family.members[attempt.id]
    states = {member.state for member in members}
    # Who gave up its room is no longer one of them: the others go on.
    staying = [member for member in members if member.stop_reason is not StopReason.SURPLUS]
    if states <= ENDED_REPLICA_STATES:
        conclude(uow, family.jobs[attempt.job_id], attempt, members, awaited=attempt.job_id in family.awaited)
        return
    failed = [m for m in staying if m.state in ENDED_REPLICA_STATES and m.state is not ReplicaState.SUCCEEDED]
    if failed:  # one of a gang is gone: the others can't go on without it
        for member in members:
            if member.state not in ENDED_REPLICA_STATES and member.stop_reason is None:
                ask_stop(uow, member, StopReason.CANCELLED, int(job.spec["grace_s"]))
    if ReplicaState.PLACED not in states and attempt.state is ReplicaState.PLACED:
        uow.move(attempt, ReplicaState.STARTING)
        uow.move(job, JobState.STARTING)
    if not states & {ReplicaState.PLACED, ReplicaState.STARTING} and attempt.state is ReplicaState.STARTING:
        uow.move(attempt, ReplicaState.RUNNING)
        uow.move(job, JobState.RUNNING)
    live = states - ENDED_REPLICA_STATES
    if live == {ReplicaState.SUSPENDED} and attempt.state is ReplicaState.RUNNING:
        rest(uow, job, attempt, members)
    elif job.state is JobState.SCHEDULED and _are_parked_again(members):
        go_on(uow, job, attempt)
        rest(uow, job, attempt, members)
    elif live == {ReplicaState.RUNNING} and attempt.state is ReplicaState.SUSPENDED:
        go_on(uow, job, attempt)


def _are_parked_again(members: Collection[Replica]) -> bool:
    """Whether all that live were told to go on and to stand still again, and do: they never all ran at once."""
    live = [member for member in members if member.state not in ENDED_REPLICA_STATES]
    return all(one.state is ReplicaState.SUSPENDED and one.suspend_asked_at is not None for one in live)
