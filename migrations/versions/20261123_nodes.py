"""Nodes that are drained or quarantined, what their health checks found, and devices that were held and did nothing."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "20261123_nodes"
down_revision: str | None = "20261123_files"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Widen."""
    op.add_column("nodes", sa.Column("drain", _json(), nullable=True))
    op.add_column("nodes", sa.Column("quarantine", _json(), nullable=True))
    op.add_column("gpus", sa.Column("quarantine", _json(), nullable=True))
    op.add_column("nodes", sa.Column("findings", _json(), server_default="[]", nullable=False))
    op.alter_column("nodes", "findings", server_default=None)
    op.add_column("nodes", sa.Column("quarantines", sa.BigInteger(), server_default="0", nullable=False))
    op.alter_column("nodes", "quarantines", server_default=None)
    op.create_index(
        "ix_replicas_start_failed", "replicas", ["node_id", "ended_at"], unique=False,
        postgresql_where=sa.text("cause = 'start_failed'"),
    )  # fmt: skip
    op.add_column("projects", sa.Column("hang_after_s", sa.BigInteger(), nullable=True))
    op.add_column("reservations", sa.Column("drain_within_s", sa.BigInteger(), nullable=True))
    op.add_column("allocation_gpus", sa.Column("idle_s", sa.BigInteger(), server_default="0", nullable=False))
    op.alter_column("allocation_gpus", "idle_s", server_default=None)
    op.add_column("allocation_gpus", sa.Column("idle_seen_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "ix_allocations_released_at", "allocations", ["released_at"], unique=False, postgresql_using="brin"
    )


def downgrade() -> None:
    """And back."""
    op.drop_index("ix_allocations_released_at", table_name="allocations", postgresql_using="brin")
    op.drop_column("allocation_gpus", "idle_seen_at")
    op.drop_column("allocation_gpus", "idle_s")
    op.drop_column("reservations", "drain_within_s")
    op.drop_column("projects", "hang_after_s")
    op.drop_index("ix_replicas_start_failed", table_name="replicas", postgresql_where=sa.text("cause = 'start_failed'"))
    op.drop_column("nodes", "quarantines")
    op.drop_column("nodes", "findings")
    op.drop_column("gpus", "quarantine")
    op.drop_column("nodes", "quarantine")
    op.drop_column("nodes", "drain")


def _json() -> postgresql.JSONB:
    return postgresql.JSONB(astext_type=sa.Text())
