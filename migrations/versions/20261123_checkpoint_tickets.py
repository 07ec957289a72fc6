"""Checkpoints of other clusters: where an imported one is from, and how long an exported one is promised."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "20261123_checkpoint_tickets"
down_revision: str | None = "20261123_nodes"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_AT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Widen."""
    op.add_column("checkpoints", sa.Column("exported_until", _AT, nullable=True))
    op.alter_column("checkpoints", "job_id", existing_type=sa.Uuid(), nullable=True)
    op.create_table(
        "checkpoint_origins",
        sa.Column("checkpoint_id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("public_key", sa.String(length=64), nullable=False),
        sa.Column("key", sa.String(length=512), nullable=False),
        sa.Column("until", _AT, nullable=False),
        sa.ForeignKeyConstraint(
            ["checkpoint_id"],
            ["checkpoints.id"],
            name=op.f("fk_checkpoint_origins_checkpoint_id_checkpoints"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("checkpoint_id", name=op.f("pk_checkpoint_origins")),
        sa.UniqueConstraint(
            "project_id", "public_key", "key", name=op.f("uq_checkpoint_origins_project_id_public_key_key")
        ),
    )


def downgrade() -> None:
    """Back: what was imported is of no use without its origin."""
    op.drop_table("checkpoint_origins")
    op.execute("DELETE FROM checkpoints WHERE job_id IS NULL")
    op.alter_column("checkpoints", "job_id", existing_type=sa.Uuid(), nullable=False)
    op.drop_column("checkpoints", "exported_until")
