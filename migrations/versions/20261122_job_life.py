"""Jobs that are suspended where they run, and workflows."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "20261122_job_life"
down_revision: str | None = "20261122_checkpoints"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Widen."""
    op.add_column("jobs", sa.Column("suspend_asked_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("jobs", sa.Column("parked_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("jobs", sa.Column("paused_ms", sa.BigInteger(), server_default="0", nullable=False))
    op.alter_column("jobs", "paused_ms", server_default=None)
    op.add_column("replicas", sa.Column("suspend_asked_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "ix_replicas_parked", "replicas", ["node_id"], unique=False, postgresql_where=sa.text("state = 'suspended'")
    )
    op.add_column("jobs", sa.Column("usual", postgresql.JSONB(astext_type=sa.Text()), nullable=True))
    op.add_column("jobs", sa.Column("workflow_id", sa.Uuid(), nullable=True))
    op.add_column("jobs", sa.Column("workflow", sa.String(200), server_default="", nullable=False))
    op.alter_column("jobs", "workflow", server_default=None)
    op.create_index(
        "ix_jobs_workflow", "jobs", ["workflow_id", "id"], unique=False,
        postgresql_where=sa.text("workflow_id IS NOT NULL"),
    )  # fmt: skip
    op.add_column("nodes", sa.Column("parked", sa.BigInteger(), server_default="0", nullable=False))
    op.alter_column("nodes", "parked", server_default=None)


def downgrade() -> None:
    """And back."""
    op.drop_column("nodes", "parked")
    op.drop_index("ix_jobs_workflow", table_name="jobs", postgresql_where=sa.text("workflow_id IS NOT NULL"))
    op.drop_column("jobs", "workflow")
    op.drop_column("jobs", "workflow_id")
    op.drop_column("jobs", "usual")
    op.drop_index("ix_replicas_parked", table_name="replicas", postgresql_where=sa.text("state = 'suspended'"))
    op.drop_column("replicas", "suspend_asked_at")
    op.drop_column("jobs", "paused_ms")
    op.drop_column("jobs", "parked_at")
    op.drop_column("jobs", "suspend_asked_at")
