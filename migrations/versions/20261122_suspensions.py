"""Jobs that are suspended where they run."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "20261122_suspensions"
down_revision: str | None = "20261121_job_asks"
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
    op.add_column("nodes", sa.Column("parked", sa.BigInteger(), server_default="0", nullable=False))
    op.alter_column("nodes", "parked", server_default=None)


def downgrade() -> None:
    """And back."""
    op.drop_column("nodes", "parked")
    op.drop_index("ix_replicas_parked", table_name="replicas", postgresql_where=sa.text("state = 'suspended'"))
    op.drop_column("replicas", "suspend_asked_at")
    op.drop_column("jobs", "paused_ms")
    op.drop_column("jobs", "parked_at")
    op.drop_column("jobs", "suspend_asked_at")
