"""Gangs: what replicas say when they are ready, and of how many parts a checkpoint is."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "20261123_gangs"
down_revision: str | None = "20261122_bundles"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Widen."""
    op.add_column("replicas", sa.Column("ready", postgresql.JSONB(none_as_null=True), nullable=True))
    op.add_column("checkpoints", sa.Column("parts", sa.BigInteger(), server_default="1", nullable=False))


def downgrade() -> None:
    """And back."""
    op.drop_column("checkpoints", "parts")
    op.drop_column("replicas", "ready")
