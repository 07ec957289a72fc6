"""What was said of features: for the platform and for projects."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "20261123_features"
down_revision: str | None = "20261123_metric_levels"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Widen."""
    op.create_table(
        "features",
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=True),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_features_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_features")),
        sa.UniqueConstraint(
            "name", "project_id", name=op.f("uq_features_name_project_id"), postgresql_nulls_not_distinct=True
        ),
    )


def downgrade() -> None:
    """And back."""
    op.drop_table("features")
