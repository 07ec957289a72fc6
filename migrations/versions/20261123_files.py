"""Artifacts with kinds and details, uploads that can be taken up again, and what is to leave the store."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "20261123_files"
down_revision: str | None = "20261123_features"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Widen."""
    op.alter_column("artifacts", "replica_id", existing_type=sa.Uuid(), nullable=True)
    op.add_column("artifacts", sa.Column("kind", sa.String(length=40), server_default="file", nullable=False))
    op.add_column(
        "artifacts",
        sa.Column("media_type", sa.String(length=100), server_default="application/octet-stream", nullable=False),
    )
    op.add_column(
        "artifacts",
        sa.Column("details", postgresql.JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
    )
    op.add_column("artifacts", sa.Column("saved_by", sa.String(length=200), server_default="", nullable=False))
    op.create_index(
        "uq_artifacts_put", "artifacts", ["job_id", "name"], unique=True, postgresql_where=sa.text("replica_id IS NULL")
    )
    op.create_index("ix_artifacts_key", "artifacts", ["key"], unique=False)
    op.create_table(
        "uploads",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("actor_id", sa.Uuid(), nullable=True),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("media_type", sa.String(length=100), nullable=False),
        sa.Column("details", postgresql.JSONB(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("received_bytes", sa.BigInteger(), nullable=False),
        sa.Column("touched_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("received_bytes BETWEEN 0 AND size_bytes", name=op.f("ck_uploads_received")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_uploads")),
    )
    op.create_index(op.f("ix_uploads_project_id"), "uploads", ["project_id"], unique=False)
    op.create_index(op.f("ix_uploads_job_id"), "uploads", ["job_id"], unique=False)
    op.create_index("ix_uploads_touched_at", "uploads", ["touched_at"], unique=False)
    op.create_table(
        "artifact_parts",
        sa.Column("file_id", sa.Uuid(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.PrimaryKeyConstraint("file_id", "offset", name=op.f("pk_artifact_parts")),
        sa.UniqueConstraint("key", name=op.f("uq_artifact_parts_key")),
    )
    op.create_table(
        "discards",
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_discards")),
    )
    op.create_index("ix_discards_at", "discards", ["at"], unique=False)
    op.create_index("ix_log_chunks_last_us", "log_chunks", ["last_us"], unique=False, postgresql_using="brin")


def downgrade() -> None:
    """And back; files that people put there, which the older release knows nothing of, are no longer listed."""
    op.drop_index("ix_log_chunks_last_us", table_name="log_chunks")
    for table in ("discards", "artifact_parts", "uploads"):
        op.drop_table(table)
    op.execute("DELETE FROM artifacts WHERE replica_id IS NULL")
    op.drop_index("ix_artifacts_key", table_name="artifacts")
    op.drop_index("uq_artifacts_put", table_name="artifacts")
    for column in ("saved_by", "details", "media_type", "kind"):
        op.drop_column("artifacts", column)
    op.alter_column("artifacts", "replica_id", existing_type=sa.Uuid(), nullable=False)
