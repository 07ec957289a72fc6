"""Bundles of code: contents kept once a project, the directories made of them, and which job asks for which."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "20261122_bundles"
down_revision: str | None = "20261122_job_life"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Widen."""
    op.create_table(
        "blobs",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("dropped_at", sa.DateTime(timezone=True), nullable=True),
        *_owned(),
        sa.CheckConstraint("size_bytes >= 0", name=op.f("ck_blobs_size")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_blobs")),
    )
    op.create_index(op.f("ix_blobs_project_id"), "blobs", ["project_id"], unique=False)
    op.create_index(
        "uq_blobs_live", "blobs", ["project_id", "digest"], unique=True, postgresql_where=sa.text("dropped_at IS NULL")
    )
    op.create_index(
        "ix_blobs_dropped", "blobs", ["id"], unique=False, postgresql_where=sa.text("dropped_at IS NOT NULL")
    )
    op.create_table(
        "bundles",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("files", sa.BigInteger(), nullable=False),
        sa.Column("manifest", sa.LargeBinary(), nullable=False),
        sa.Column("actor_name", sa.String(length=200), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=False),
        *_owned(),
        sa.CheckConstraint("size_bytes >= 0", name=op.f("ck_bundles_size")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_bundles")),
        sa.UniqueConstraint("project_id", "digest", name=op.f("uq_bundles_project_id_digest")),
    )
    op.create_index(op.f("ix_bundles_project_id"), "bundles", ["project_id"], unique=False)
    op.create_index("ix_bundles_used", "bundles", ["used_at"], unique=False)
    op.create_table(
        "bundle_blobs",
        sa.Column("bundle_id", sa.Uuid(), nullable=False),
        sa.Column("blob_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(["blob_id"], ["blobs.id"], name=op.f("fk_bundle_blobs_blob_id")),
        sa.ForeignKeyConstraint(
            ["bundle_id"], ["bundles.id"], name=op.f("fk_bundle_blobs_bundle_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("bundle_id", "blob_id", name=op.f("pk_bundle_blobs")),
    )
    op.create_index("ix_bundle_blobs_blob_id", "bundle_blobs", ["blob_id"], unique=False)
    op.add_column("jobs", sa.Column("bundle_id", sa.Uuid(), nullable=True))
    op.create_index(
        "ix_jobs_bundle", "jobs", ["bundle_id"], unique=False,
        postgresql_where=sa.text("ended_at IS NULL AND bundle_id IS NOT NULL"),
    )


def downgrade() -> None:
    """And back."""
    op.drop_index("ix_jobs_bundle", table_name="jobs")
    op.drop_column("jobs", "bundle_id")
    op.drop_table("bundle_blobs")
    op.drop_table("bundles")
    op.drop_table("blobs")


def _owned() -> list[sa.Column[object]]:
    """The columns of every row of a project's."""
    return [
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
    ]
