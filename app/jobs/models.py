"""Tables of jobs, their attempts and replicas, and what those printed and measured."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ColumnElement, ForeignKey, Identity, Index, String, UniqueConstraint, text, true
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.core.access import Actor, Permission
from app.core.tables import Base, ProjectOwned, Word
from trellis.units import LARGEST
from trellis.vocabulary import ActorKind, Cause, DependencyKind, JobState, ReplicaState, StopReason


class Job(ProjectOwned):
    """The wish: what shall run, with what, and how far it has come; `owner_id` is the thing that it runs for, of that kind.

    `fence` grows with each attempt and never shrinks; `waiting_for` counts dependencies that are still open;
    `class_key` is equal for jobs that are equal in everything the scheduler looks at but their age and deadline. `asks`
    is what they ask of it beyond the columns (`app.jobs.asks`), null where that is nothing; with roles `replicas` is the
    fewest of all of them, and the amounts are the most that any replica needs. `owed` are the holdings that the
    scheduler has promised it, while others make room for it there; those that it had, where it was suspended.
    `suspend_asked_at` is the wish that it stands still, `parked_at` since when its attempt does, on its nodes and with
    nothing held there; `usual` is what it asked for (`asks`, `class_key`) before it was told to move, until it has;
    `paused_ms` how long that attempt did before: its time limit does not count that.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint(f"cpu_milli BETWEEN 1 AND {LARGEST}", name="cpu"),
        CheckConstraint(f"memory_bytes BETWEEN 0 AND {LARGEST}", name="memory"),
        CheckConstraint("gpu_milli BETWEEN 0 AND 1024000", name="gpu"),
        CheckConstraint("gpu_milli < 1000 OR mod(gpu_milli, 1000) = 0", name="whole_gpus"),
        CheckConstraint("replicas BETWEEN 1 AND 4096", name="replicas"),
        CheckConstraint("waiting_for >= 0", name="waiting_for"),
        Index("ix_jobs_list", "project_id", "created_at", "id"),
        Index("ix_jobs_recent", "created_at", "id"),
        Index("ix_jobs_labels", "labels", postgresql_using="gin"),
        Index("ix_jobs_array", "array_id", "array_index", postgresql_where=text("array_id IS NOT NULL")),
        Index("ix_jobs_workflow", "workflow_id", "id", postgresql_where=text("workflow_id IS NOT NULL")),
        Index(
            "ix_jobs_queued",
            "class_key", "priority", "created_at", "id",
            postgresql_where=text("state = 'queued'"),
        ),
        Index("ix_jobs_waiting", "queue_id", "priority", "created_at", postgresql_where=text("state = 'queued'")),
        Index("ix_jobs_live", "state", "project_id", "actor_id", postgresql_where=text("ended_at IS NULL")),
        Index("ix_jobs_actor", "actor_id", "created_at"),
        Index("ix_jobs_bundle", "bundle_id", postgresql_where=text("ended_at IS NULL AND bundle_id IS NOT NULL")),
        Index("ix_jobs_deadline", "deadline_at", postgresql_where=text("ended_at IS NULL AND deadline_at IS NOT NULL")),
    )  # fmt: skip
    read = Permission.JOB_READ
    told = ("owner_kind", "owner_id")

    queue_id: Mapped[UUID]
    actor_kind: Mapped[ActorKind] = mapped_column(Word(ActorKind))
    actor_id: Mapped[UUID | None]
    actor_name: Mapped[str] = mapped_column(String(200))
    name: Mapped[str] = mapped_column(String(200))
    state: Mapped[JobState] = mapped_column(Word(JobState), default=JobState.PENDING)
    priority: Mapped[int]
    spec: Mapped[dict[str, Any]]
    labels: Mapped[dict[str, Any]]
    class_key: Mapped[str] = mapped_column(String(32))
    replicas: Mapped[int]
    cpu_milli: Mapped[int]
    memory_bytes: Mapped[int]
    gpu_milli: Mapped[int]
    gpu_model: Mapped[str] = mapped_column(String(63))
    asks: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    owed: Mapped[list[Any] | None] = mapped_column(JSONB(none_as_null=True))
    time_limit_s: Mapped[int | None]
    deadline_at: Mapped[datetime | None]
    run_after: Mapped[datetime | None]
    waiting_for: Mapped[int] = mapped_column(default=0)
    fence: Mapped[int] = mapped_column(default=0)
    attempt: Mapped[int] = mapped_column(default=0)
    retries: Mapped[int] = mapped_column(default=0)
    preemptions: Mapped[int] = mapped_column(default=0)
    cancel_asked_at: Mapped[datetime | None]
    suspend_asked_at: Mapped[datetime | None]
    parked_at: Mapped[datetime | None]
    paused_ms: Mapped[int] = mapped_column(default=0)
    queued_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    exit_code: Mapped[int | None]
    cause: Mapped[Cause | None] = mapped_column(Word(Cause))
    message: Mapped[str] = mapped_column(default="")
    retry_of: Mapped[UUID | None]
    array_id: Mapped[UUID | None]
    array_index: Mapped[int | None]
    bundle_id: Mapped[UUID | None]
    workflow_id: Mapped[UUID | None]
    usual: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    workflow: Mapped[str] = mapped_column(String(200), default="")
    owner_kind: Mapped[str | None] = mapped_column(String(40))
    owner_id: Mapped[UUID | None]


class Dependency(Base):
    """`job_id` waits for `on_job_id`; `met` once that ended as asked."""

    __tablename__ = "dependencies"
    __table_args__ = (
        Index("ix_dependencies_on_job_id", "on_job_id"),
        Index("ix_dependencies_open", "job_id", postgresql_where=text("NOT met")),
    )

    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    on_job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    kind: Mapped[DependencyKind] = mapped_column(Word(DependencyKind))
    met: Mapped[bool] = mapped_column(default=False)


class Attempt(ProjectOwned):
    """One try at a job."""

    __tablename__ = "attempts"
    __table_args__ = (UniqueConstraint("job_id", "fence"),)
    read = Permission.JOB_READ

    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id"))
    number: Mapped[int]
    fence: Mapped[int]
    state: Mapped[ReplicaState] = mapped_column(Word(ReplicaState), default=ReplicaState.PLACED)
    reason: Mapped[str] = mapped_column(default="")
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    exit_code: Mapped[int | None]
    cause: Mapped[Cause | None] = mapped_column(Word(Cause))
    message: Mapped[str] = mapped_column(default="")


class Replica(ProjectOwned):
    """One member of an attempt, on one node. `report_seq`, `metric_seq` and `log_bytes` say what is settled.

    `role` is the number of its role in the job, `count` how many members the attempt had when this one was placed.
    `ready` is what one of a gang said (`trellis.wire.Ready`) when it had all it needs to begin.
    One that is suspended with `suspend_asked_at` set is parked: its processes stand still, and it holds nothing.
    """

    __tablename__ = "replicas"
    __table_args__ = (
        UniqueConstraint("attempt_id", "index"),
        Index("ix_replicas_live", "node_id", postgresql_where=text("ended_at IS NULL")),
        Index("ix_replicas_job_id", "job_id"),
        Index("ix_replicas_start_failed", "node_id", "ended_at", postgresql_where=text("cause = 'start_failed'")),
        Index("ix_replicas_parked", "node_id", postgresql_where=text("state = 'suspended'")),
    )
    read = Permission.JOB_READ
    seen_by_nodes = True

    attempt_id: Mapped[UUID] = mapped_column(ForeignKey("attempts.id"))
    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id"))
    node_id: Mapped[UUID]
    node_name: Mapped[str] = mapped_column(String(63))
    number: Mapped[int]
    index: Mapped[int]
    fence: Mapped[int]
    state: Mapped[ReplicaState] = mapped_column(Word(ReplicaState), default=ReplicaState.PLACED)
    role: Mapped[int] = mapped_column(default=0)
    count: Mapped[int] = mapped_column(default=1)
    gpus: Mapped[list[Any]]
    slices: Mapped[list[Any] | None] = mapped_column(JSONB(none_as_null=True))
    stop_reason: Mapped[StopReason | None] = mapped_column(Word(StopReason))
    stop_grace_s: Mapped[int] = mapped_column(default=0)
    stop_asked_at: Mapped[datetime | None]
    suspend_asked_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    exit_code: Mapped[int | None]
    signal: Mapped[int | None]
    cause: Mapped[Cause | None] = mapped_column(Word(Cause))
    message: Mapped[str] = mapped_column(default="")
    run_ms: Mapped[int] = mapped_column(default=0)
    cpu_ms: Mapped[int] = mapped_column(default=0)
    peak_memory_bytes: Mapped[int] = mapped_column(default=0)
    report_seq: Mapped[int] = mapped_column(default=0)
    metric_seq: Mapped[int] = mapped_column(default=0)
    log_bytes: Mapped[int] = mapped_column(default=0)
    checkpoint_asked_at: Mapped[datetime | None]
    ready: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))

    @classmethod
    def visible_to(cls, actor: Actor) -> ColumnElement[bool]:
        """To its project's members, and to the node it was placed on."""
        if actor.sees_all:
            return true()
        if actor.kind is ActorKind.NODE:
            return cls.node_id == actor.id
        return cls.project_id.in_(actor.projects_with(cls.read))


class LogChunk(Base):
    """Whole lines of a replica's log, from byte `offset` of its file on the node (form: `trellis.wire.LogChunk`)."""

    __tablename__ = "log_chunks"
    # They come about in the order of time: this index costs next to nothing, and finds what is old.
    __table_args__ = (Index("ix_log_chunks_last_us", "last_us", postgresql_using="brin"),)

    replica_id: Mapped[UUID] = mapped_column(ForeignKey("replicas.id"), primary_key=True)
    offset: Mapped[int] = mapped_column(primary_key=True)
    size: Mapped[int]
    first_us: Mapped[int]
    last_us: Mapped[int]
    body: Mapped[bytes]


class MetricSeries(Base):
    """One metric of one replica. What was measured is kept three times over as it grows old: points, minutes, quarters of
    an hour (`app.jobs.condensing`); `..._from` say from when there may be any of each, null where there is none.
    """

    __tablename__ = "metric_series"
    __table_args__ = (
        UniqueConstraint("replica_id", "name"),
        Index("ix_metric_series_job", "job_id", "name"),
        Index("ix_metric_series_points", "points_from", postgresql_where=text("points_from IS NOT NULL")),
        Index("ix_metric_series_minutes", "minutes_from", postgresql_where=text("minutes_from IS NOT NULL")),
        Index("ix_metric_series_quarters", "quarters_from", postgresql_where=text("quarters_from IS NOT NULL")),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    job_id: Mapped[UUID]
    replica_id: Mapped[UUID] = mapped_column(ForeignKey("replicas.id"))
    name: Mapped[str] = mapped_column(String(200))
    points_from: Mapped[datetime | None]
    minutes_from: Mapped[datetime | None]
    quarters_from: Mapped[datetime | None]


class MetricPoint(Base):
    """One value of a series, as it was reported. No foreign key: that would be asked about for each of thousands a second."""

    __tablename__ = "metric_points"

    series_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[datetime] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    value: Mapped[float]
    step: Mapped[int | None]


class MetricBucket(Base):
    """What became of the points of `width_s` seconds from `at`: how many, their sum, least, most and last.

    `scaled` is the sum of them times `app.jobs.condensing.SCALE`: so no number of them is too large for it.
    """

    __tablename__ = "metric_buckets"

    series_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    width_s: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[datetime] = mapped_column(primary_key=True)
    many: Mapped[int]
    scaled: Mapped[float]
    least: Mapped[float]
    most: Mapped[float]
    last: Mapped[float]
    last_at: Mapped[datetime]
    last_step: Mapped[int | None]


class ClassVerdict(Base):
    """Why the jobs of one class wait. One row a class, not a job: 20,000 equal jobs wait for one reason."""

    __tablename__ = "class_verdicts"

    class_key: Mapped[str] = mapped_column(String(32), primary_key=True)
    reason: Mapped[str] = mapped_column(String(40))
    message: Mapped[str]
    head_job_id: Mapped[UUID]
    starts_at: Mapped[datetime | None]
    decided_at: Mapped[datetime]
