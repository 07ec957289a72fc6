"""Metrics by series, which grow coarser with age: points, minutes, quarters of an hour."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "20261123_metric_levels"
down_revision: str | None = "20261123_gangs"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Make the tables, and bring over what there is."""
    op.create_table(
        "metric_series",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("replica_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("points_from", sa.DateTime(timezone=True), nullable=True),
        sa.Column("minutes_from", sa.DateTime(timezone=True), nullable=True),
        sa.Column("quarters_from", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["replica_id"], ["replicas.id"], name=op.f("fk_metric_series_replica_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_metric_series")),
        sa.UniqueConstraint("replica_id", "name", name=op.f("uq_metric_series_replica_id_name")),
    )
    op.create_index("ix_metric_series_job", "metric_series", ["job_id", "name"], unique=False)
    for level in ("points", "minutes", "quarters"):
        op.create_index(
            f"ix_metric_series_{level}", "metric_series", [f"{level}_from"], unique=False,
            postgresql_where=sa.text(f"{level}_from IS NOT NULL"),
        )
    op.create_table(
        "metric_points",
        sa.Column("series_id", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("series_id", "at", "seq", name=op.f("pk_metric_points")),
    )
    op.create_table(
        "metric_buckets",
        sa.Column("series_id", sa.BigInteger(), nullable=False),
        sa.Column("width_s", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("many", sa.BigInteger(), nullable=False),
        sa.Column("scaled", sa.Double(), nullable=False),
        sa.Column("least", sa.Double(), nullable=False),
        sa.Column("most", sa.Double(), nullable=False),
        sa.Column("last", sa.Double(), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_step", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("series_id", "width_s", "at", name=op.f("pk_metric_buckets")),
    )
    op.execute(
        "INSERT INTO metric_series (job_id, replica_id, name, points_from) "
        "SELECT job_id, replica_id, name, min(at) FROM metrics GROUP BY job_id, replica_id, name"
    )
    op.execute(
        "INSERT INTO metric_points (series_id, at, seq, value, step) "
        "SELECT s.id, m.at, m.seq, m.value, m.step FROM metrics m "
        "JOIN metric_series s ON s.replica_id = m.replica_id AND s.name = m.name"
    )
    op.drop_index("ix_metrics_series", table_name="metrics")
    op.drop_table("metrics")


def downgrade() -> None:
    """And back: what was condensed already is left out, for it is no longer points."""
    op.create_table(
        "metrics",
        sa.Column("replica_id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["replica_id"], ["replicas.id"], name=op.f("fk_metrics_replica_id")),
        sa.PrimaryKeyConstraint("replica_id", "seq", name=op.f("pk_metrics")),
    )
    op.create_index("ix_metrics_series", "metrics", ["job_id", "name", "at"], unique=False)
    op.execute(
        "INSERT INTO metrics (replica_id, seq, job_id, name, value, step, at) "
        "SELECT s.replica_id, p.seq, s.job_id, s.name, p.value, p.step, p.at "
        "FROM metric_points p JOIN metric_series s ON s.id = p.series_id"
    )
    for table in ("metric_buckets", "metric_points", "metric_series"):
        op.drop_table(table)
