"""Tables of hardware, and of who holds which part of it. Constraints, not hope, keep a device from being given twice."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ColumnElement, ForeignKey, Index, String, UniqueConstraint, false, text, true
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.core.access import Actor, Permission
from app.core.tables import Base, Entity, ProjectOwned, Word
from trellis.vocabulary import Isolation, NodeState, ReservationState


class Node(Entity):
    """A machine that runs replicas. The `_used` amounts are the sums of its live allocations.

    `cpu_milli` and `memory_bytes` are what may be given away: the `real_` amounts times the overcommitment of its pool.
    `own_labels` is what the machine says of itself; labels, taints, domains (level of the topology to name), pool,
    price and `caches` (keys of data near at hand) are its operators'. `cordoned_at`: it shall take nothing new.
    `exclusive_for`: the job, or the allocation without one, that has it for itself alone. `parked`: how many suspended
    replicas stand still there without holding anything.
    `drain` and `quarantine` (`app.resources.standing`) are the wishes that it be emptied and kept from work; `findings`
    what its last health check found, `quarantines` how often it was kept from work for that, or the like, in a row.
    """

    __tablename__ = "nodes"
    __table_args__ = (
        CheckConstraint("cpu_milli_used BETWEEN 0 AND cpu_milli", name="cpu"),
        CheckConstraint("memory_bytes_used BETWEEN 0 AND memory_bytes", name="memory"),
    )
    read = Permission.NODE_READ
    seen_by_nodes = True

    name: Mapped[str] = mapped_column(String(63), unique=True)
    hostname: Mapped[str] = mapped_column(String(255))
    boot_id: Mapped[str] = mapped_column(String(64))
    state: Mapped[NodeState] = mapped_column(Word(NodeState), default=NodeState.READY, index=True)
    token_digest: Mapped[bytes] = mapped_column(unique=True)
    cpu_milli: Mapped[int]
    real_cpu_milli: Mapped[int]
    cpu_milli_used: Mapped[int] = mapped_column(default=0)
    memory_bytes: Mapped[int]
    real_memory_bytes: Mapped[int]
    memory_bytes_used: Mapped[int] = mapped_column(default=0)
    gpu_model: Mapped[str] = mapped_column(String(63), default="")
    isolation: Mapped[Isolation] = mapped_column(Word(Isolation))
    isolation_detail: Mapped[str]
    executors: Mapped[list[Any]]
    profile: Mapped[str] = mapped_column(String(63), default="")
    own_labels: Mapped[dict[str, Any]] = mapped_column(default=dict)
    labels: Mapped[dict[str, Any]] = mapped_column(default=dict)
    taints: Mapped[list[Any]] = mapped_column(default=list)
    domains: Mapped[dict[str, Any]] = mapped_column(default=dict)
    pool_id: Mapped[UUID | None] = mapped_column(ForeignKey("pools.id"), index=True)
    spot: Mapped[bool] = mapped_column(default=False)
    usd_micros_hour: Mapped[int] = mapped_column(default=0)
    caches: Mapped[list[Any]] = mapped_column(default=list)
    exclusive_for: Mapped[UUID | None]
    parked: Mapped[int] = mapped_column(default=0)
    cordoned_at: Mapped[datetime | None]
    cordon_reason: Mapped[str] = mapped_column(default="")
    drain: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    quarantine: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    quarantines: Mapped[int] = mapped_column(default=0)
    findings: Mapped[list[Any]] = mapped_column(default=list)
    telemetry: Mapped[dict[str, Any]] = mapped_column(default=dict)
    last_seen_at: Mapped[datetime]

    @property
    def all_labels(self) -> dict[str, str]:
        """What the machine says of itself, and over it what operators say."""
        return {**self.own_labels, **self.labels}

    @classmethod
    def visible_to(cls, actor: Actor) -> ColumnElement[bool]:
        """Everybody who is signed in sees the machines; what runs there is filtered apart."""
        return true() if actor.sees_all or actor.is_person else cls.id == actor.id


class Pool(Entity):
    """Nodes under one quota; pools below one parent form a cohort and lend to each other.

    `nominal` is its own, in amounts that are left out what its nodes have; of that it lends at most `lends`, and it
    borrows at most `borrows`. The overcommitment is in thousandths: at 1500 two real CPUs are given away as three.
    """

    __tablename__ = "pools"
    __table_args__ = (
        CheckConstraint("weight BETWEEN 1 AND 1000", name="weight"),
        CheckConstraint(
            "cpu_overcommit_milli BETWEEN 1000 AND 16000 AND memory_overcommit_milli BETWEEN 1000 AND 4000",
            name="overcommit",
        ),
        CheckConstraint("parent_id <> id", name="parent"),
    )
    read = Permission.POOL_READ

    name: Mapped[str] = mapped_column(String(63), unique=True)
    parent_id: Mapped[UUID | None] = mapped_column(ForeignKey("pools.id"), index=True)
    weight: Mapped[int] = mapped_column(default=1)
    nominal: Mapped[dict[str, Any]] = mapped_column(default=dict)
    lends: Mapped[dict[str, Any]] = mapped_column(default=dict)
    borrows: Mapped[dict[str, Any]] = mapped_column(default=dict)
    cpu_overcommit_milli: Mapped[int] = mapped_column(default=1000)
    memory_overcommit_milli: Mapped[int] = mapped_column(default=1000)

    @classmethod
    def visible_to(cls, actor: Actor) -> ColumnElement[bool]:
        """As the nodes are."""
        return true() if actor.sees_all or actor.is_person else false()


class Topology(Entity):
    """The one row that names the levels of the topology, widest first, such as zone, rack."""

    __tablename__ = "topologies"
    __table_args__ = (Index("uq_topologies_one", text("(true)"), unique=True),)
    read = Permission.NODE_READ

    levels: Mapped[list[Any]]

    @classmethod
    def visible_to(cls, actor: Actor) -> ColumnElement[bool]:
        """As the nodes are."""
        return true() if actor.sees_all or actor.is_person else false()


class Gpu(Entity):
    """A device of a node; `milli_used` of its 1000 are held. One that is `partitioned` is given in slices alone: in
    those of `cuts`, pairs of profile and first memory slot, or, where that is null, as its model allows. One that is in
    `quarantine` is given to nobody.
    """

    __tablename__ = "gpus"
    __table_args__ = (
        UniqueConstraint("node_id", "index"),
        CheckConstraint("milli_used BETWEEN 0 AND 1000", name="given_once"),
        CheckConstraint("milli_used = 0 OR NOT partitioned", name="whole_or_sliced"),
    )
    read = Permission.NODE_READ

    node_id: Mapped[UUID] = mapped_column(ForeignKey("nodes.id"))
    index: Mapped[int]
    uuid: Mapped[str] = mapped_column(String(80))
    model: Mapped[str] = mapped_column(String(63))
    memory_bytes: Mapped[int]
    numa: Mapped[int] = mapped_column(default=0)
    links: Mapped[list[Any]] = mapped_column(default=list)
    partitioned: Mapped[bool] = mapped_column(default=False)
    cuts: Mapped[list[Any] | None] = mapped_column(JSONB(none_as_null=True))
    milli_used: Mapped[int] = mapped_column(default=0)
    quarantine: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))

    @classmethod
    def visible_to(cls, actor: Actor) -> ColumnElement[bool]:
        """As the node is, to people."""
        return true() if actor.sees_all or actor.is_person else false()


class Allocation(ProjectOwned):
    """What one replica holds on one node; its id is the replica's. Without a job: what somebody holds for a project
    until `expires_at`. Beside an `exclusive` one nobody else holds anything of the node; without a job it holds it all.
    """

    __tablename__ = "allocations"
    __table_args__ = (
        CheckConstraint("cpu_milli >= 0 AND memory_bytes >= 0", name="amounts"),
        CheckConstraint("(job_id IS NULL) = (expires_at IS NOT NULL)", name="job_or_expiry"),
        # Rows lie about in the order in which they end: pages of another time are passed over.
        Index("ix_allocations_released_at", "released_at", postgresql_using="brin"),
        Index("ix_allocations_live", "node_id", postgresql_where=text("released_at IS NULL")),
        Index(
            "ix_allocations_expiring",
            "expires_at",
            postgresql_where=text("released_at IS NULL AND expires_at IS NOT NULL"),
        ),
    )
    read = Permission.JOB_READ

    node_id: Mapped[UUID] = mapped_column(ForeignKey("nodes.id"))
    job_id: Mapped[UUID | None] = mapped_column(index=True)
    holder_name: Mapped[str] = mapped_column(String(200))
    owner_id: Mapped[UUID | None]
    owner_name: Mapped[str] = mapped_column(String(200), default="")
    exclusive: Mapped[bool] = mapped_column(default=False)
    expires_at: Mapped[datetime | None]
    cpu_milli: Mapped[int]
    memory_bytes: Mapped[int]
    released_at: Mapped[datetime | None]


class AllocationGpu(Base):
    """Part or whole of one device in an allocation; `live` until it is released. `idle_s`: how long the device did
    nothing, up to `idle_seen_at`.
    """

    __tablename__ = "allocation_gpus"
    __table_args__ = (
        CheckConstraint("milli BETWEEN 1 AND 1000", name="milli"),
        # The schema itself refuses the second whole claim on a device.
        Index("uq_allocation_gpus_whole", "gpu_id", unique=True, postgresql_where=text("live AND milli = 1000")),
    )

    allocation_id: Mapped[UUID] = mapped_column(ForeignKey("allocations.id"), primary_key=True)
    gpu_id: Mapped[UUID] = mapped_column(ForeignKey("gpus.id"), primary_key=True)
    milli: Mapped[int]
    live: Mapped[bool] = mapped_column(default=True)
    idle_s: Mapped[int] = mapped_column(default=0)
    idle_seen_at: Mapped[datetime | None]


class AllocationSlot(Base):
    """One memory slot of a partitioned device in an allocation: a slice holds some side by side; `live` until released.

    A row a slot, not a slice: that no two slices overlap is then what a unique index says.
    """

    __tablename__ = "allocation_slots"
    __table_args__ = (
        CheckConstraint("slot BETWEEN 0 AND 8", name="slot"),
        Index("uq_allocation_slots_live", "gpu_id", "slot", unique=True, postgresql_where=text("live")),
    )

    allocation_id: Mapped[UUID] = mapped_column(ForeignKey("allocations.id"), primary_key=True)
    gpu_id: Mapped[UUID] = mapped_column(ForeignKey("gpus.id"), primary_key=True)
    slot: Mapped[int] = mapped_column(primary_key=True)
    live: Mapped[bool] = mapped_column(default=True)


class Reservation(Entity):
    """A claim of one project on parts of nodes over [starts_at, ends_at); without a project: maintenance.

    Its nodes are drained when it begins, with `drain_within_s` for what can't be moved (null: as long as that takes).
    """

    __tablename__ = "reservations"
    __table_args__ = (
        CheckConstraint("starts_at < ends_at", name="window"),
        Index("ix_reservations_open", "starts_at", postgresql_where=text("ended_at IS NULL")),
    )
    read = Permission.RESERVATION_READ

    project_id: Mapped[UUID | None] = mapped_column(index=True)
    name: Mapped[str] = mapped_column(String(200))
    state: Mapped[ReservationState] = mapped_column(Word(ReservationState), default=ReservationState.PLANNED)
    owner_id: Mapped[UUID | None]
    owner_name: Mapped[str] = mapped_column(String(200))
    starts_at: Mapped[datetime]
    ends_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    drain_within_s: Mapped[int | None]

    @classmethod
    def visible_to(cls, actor: Actor) -> ColumnElement[bool]:
        """Those of one's projects; maintenance to everybody who is signed in."""
        if actor.sees_all:
            return true()
        mine = cls.project_id.in_(actor.projects_with(cls.read))
        return mine | cls.project_id.is_(None) if actor.is_person else false()


class ReservationPart(Base):
    """What a reservation claims of one node; `gpus` are pairs of a device's index and milli."""

    __tablename__ = "reservation_parts"
    __table_args__ = (CheckConstraint("cpu_milli >= 0 AND memory_bytes >= 0", name="amounts"),)

    reservation_id: Mapped[UUID] = mapped_column(ForeignKey("reservations.id"), primary_key=True)
    index: Mapped[int] = mapped_column(primary_key=True)
    node_id: Mapped[UUID] = mapped_column(ForeignKey("nodes.id"), index=True)
    cpu_milli: Mapped[int]
    memory_bytes: Mapped[int]
    gpus: Mapped[list[Any]]


class JoinToken(Entity):
    """Lets machines join until it expires; only its digest is kept."""

    __tablename__ = "join_tokens"
    read = Permission.NODE_WRITE

    name: Mapped[str] = mapped_column(String(63), default="")
    digest: Mapped[bytes] = mapped_column(unique=True)
    expires_at: Mapped[datetime]

    @classmethod
    def visible_to(cls, actor: Actor) -> ColumnElement[bool]:
        """Platform administrators alone."""
        return true() if actor.sees_all else false()
