"""Events: what became true, written in the transaction that made it true.

One row is the message to other parts (outbox), the history of its subject and the source of the audit.
Kinds are past tense. Those in ANNOUNCED are sent on by the relay after commit; who hears them is the table
in `tasks/reactions.py`.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Identity, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from app.core.states import MACHINES
from app.core.tables import Base, Word
from trellis.vocabulary import ActorKind

WAKE_CHANNEL = "trellis_events"
JOB_CHANNEL = "trellis_jobs"

KINDS = frozenset(
    {f"{noun}.{state}" for noun, machine in MACHINES.items() for state in machine.moves}
    | {
        "job.submitted", "job.cancel_asked", "job.eviction_asked", "job.resized", "job.shrunk", "job.promised",
        "job.suspend_asked", "job.resume_asked", "job.displaced", "job.migration_asked",
        "replica.stop_asked", "replica.suspend_asked", "replica.resume_asked", "replica.gang_ready",
        "node.joined", "node.changed", "node.health_changed", "node.hook_ran", "node.hook_failed", "replica.hung",
        "join_token.created",
        "topology.changed", "pool.created", "pool.changed", "pool.removed",
        "queue.created", "queue.changed", "artifact.saved", "artifact.removed", "bundle.created", "bundle.removed",
        "checkpoint.saved", "checkpoint.removed", "checkpoint.restored", "checkpoint.damaged", "checkpoint.failed",
        "checkpoint.shared", "checkpoint.unshared", "checkpoint.exported", "checkpoint.imported", "replica.checkpoint_asked",
        "allocation.granted", "allocation.released", "reservation.created", "policy.changed",
        "feature.changed", "quota.changed", "quota.soft_exceeded", "quota.burst_began", "quota.burst_rested",
        "organisation.created", "project.created", "project.changed",
        "user.created", "user.changed", "user.signed_in", "user.sign_in_refused", "user.refresh_token_reused",
        "member.set", "member.removed", "service_account.created", "service_account.removed",
        "api_key.created", "api_key.revoked",
        "pipeline.applied", "pipeline.removed", "pipeline_schedule.changed", "pipeline_run.cancel_asked", "pipeline_run.late",
    }
)  # fmt: skip
ANNOUNCED = frozenset(
    {
        "job.queued", "job.retrying", "job.succeeded", "job.failed", "job.cancelled", "job.timed_out", "job.lost",
        "job.suspended", "replica.placed", "replica.stop_asked", "replica.suspend_asked", "replica.resume_asked",
        "replica.checkpoint_asked", "replica.gang_ready",
        "node.joined", "node.ready", "node.lost", "node.changed", "node.draining", "node.quarantined", "queue.open", "queue.changed",
        "topology.changed", "pool.created", "pool.changed", "pool.removed",
        "allocation.released", "reservation.active", "reservation.ended", "reservation.cancelled", "policy.changed",
        "quota.changed", "quota.burst_rested", "pipeline_run.queued",
    }
)  # fmt: skip


class Event(Base):
    """One thing that happened. `data` holds before and after, a reason, and what a reaction needs for its route."""

    __tablename__ = "events"
    __table_args__ = (
        Index("ix_events_unsent", "id", postgresql_where=text("sent_at IS NULL")),
        Index("ix_events_subject", "subject_type", "subject_id", "id"),
        Index("ix_events_job", "job_id", "id", postgresql_where=text("job_id IS NOT NULL")),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    kind: Mapped[str] = mapped_column(String(60))
    at: Mapped[datetime]
    actor_kind: Mapped[ActorKind] = mapped_column(Word(ActorKind))
    actor_id: Mapped[UUID | None]
    actor_name: Mapped[str] = mapped_column(String(200))
    project_id: Mapped[UUID | None]
    subject_type: Mapped[str] = mapped_column(String(40))
    subject_id: Mapped[UUID]
    job_id: Mapped[UUID | None]
    data: Mapped[dict[str, Any]]
    sent_at: Mapped[datetime | None]
