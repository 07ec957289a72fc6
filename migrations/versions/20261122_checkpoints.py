"""Checkpoints, the packs that hold them, and who else may read them."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "20261122_checkpoints"
down_revision: str | None = "20261121_job_asks"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_JSONB = postgresql.JSONB(astext_type=sa.Text())
_AT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Widen."""
    op.add_column("replicas", sa.Column("checkpoint_asked_at", _AT, nullable=True))
    op.create_table(
        "checkpoints",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("replica_index", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.String(40), nullable=False),
        sa.Column("at_step", sa.BigInteger(), nullable=True),
        sa.Column("metrics", _JSONB, nullable=False),
        sa.Column("files", sa.BigInteger(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("new_bytes", sa.BigInteger(), nullable=False),
        sa.Column("stored_bytes", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("damaged_at", _AT, nullable=True),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_at", _AT, server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "size_bytes >= 0 AND new_bytes >= 0 AND stored_bytes >= 0", name=op.f("ck_checkpoints_size")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_checkpoints")),
        sa.UniqueConstraint("key", name=op.f("uq_checkpoints_key")),
    )
    op.create_index("ix_checkpoints_job", "checkpoints", ["job_id", "replica_index", "created_at"], unique=False)
    op.create_index(op.f("ix_checkpoints_project_id"), "checkpoints", ["project_id"], unique=False)
    op.create_table(
        "packs",
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", _AT, nullable=False),
        sa.Column("doomed_at", _AT, nullable=True),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_packs")),
    )
    op.create_index(op.f("ix_packs_project_id"), "packs", ["project_id"], unique=False)
    op.create_index(
        "ix_packs_doomed_at", "packs", ["doomed_at"], unique=False, postgresql_where=sa.text("doomed_at IS NOT NULL")
    )
    op.create_table(
        "checkpoint_packs",
        sa.Column("checkpoint_id", sa.Uuid(), nullable=False),
        sa.Column("pack_key", sa.String(length=255), nullable=False),
        sa.ForeignKeyConstraint(
            ["checkpoint_id"], ["checkpoints.id"], name=op.f("fk_checkpoint_packs_checkpoint_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["pack_key"], ["packs.key"], name=op.f("fk_checkpoint_packs_pack_key")),
        sa.PrimaryKeyConstraint("checkpoint_id", "pack_key", name=op.f("pk_checkpoint_packs")),
    )
    op.create_index("ix_checkpoint_packs_pack_key", "checkpoint_packs", ["pack_key"], unique=False)
    op.create_table(
        "checkpoint_grants",
        sa.Column("checkpoint_id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", _AT, nullable=False),
        sa.ForeignKeyConstraint(
            ["checkpoint_id"], ["checkpoints.id"], name=op.f("fk_checkpoint_grants_checkpoint_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("checkpoint_id", "project_id", name=op.f("pk_checkpoint_grants")),
    )
    op.create_index(op.f("ix_checkpoint_grants_project_id"), "checkpoint_grants", ["project_id"], unique=False)


def downgrade() -> None:
    """And back."""
    op.drop_table("checkpoint_grants")
    op.drop_table("checkpoint_packs")
    op.drop_table("packs")
    op.drop_table("checkpoints")
    op.drop_column("replicas", "checkpoint_asked_at")
