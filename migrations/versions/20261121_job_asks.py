"""What jobs ask of the scheduler beyond amounts, slices of partitioned devices, nodes for one job alone."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "20261121_job_asks"
down_revision: str | None = "20261121_scheduling"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_JSONB = postgresql.JSONB(astext_type=sa.Text())


def upgrade() -> None:
    """Widen."""
    op.add_column("jobs", sa.Column("asks", _JSONB, nullable=True))
    op.add_column("jobs", sa.Column("owed", _JSONB, nullable=True))
    _add("replicas", sa.Column("role", sa.BigInteger(), nullable=True), "0")
    _add("replicas", sa.Column("count", sa.BigInteger(), nullable=True), "1")
    op.execute("UPDATE replicas SET count = jobs.replicas FROM jobs WHERE jobs.id = replicas.job_id")
    op.add_column("replicas", sa.Column("slices", _JSONB, nullable=True))
    op.create_index(
        "ix_dependencies_open", "dependencies", ["job_id"], unique=False, postgresql_where=sa.text("NOT met")
    )
    op.add_column("nodes", sa.Column("exclusive_for", sa.Uuid(), nullable=True))
    op.execute(
        "UPDATE nodes SET exclusive_for = allocations.id FROM allocations WHERE allocations.node_id = nodes.id "
        "AND allocations.exclusive AND allocations.released_at IS NULL"
    )
    _add("gpus", sa.Column("partitioned", sa.Boolean(), nullable=True), "false")
    op.add_column("gpus", sa.Column("cuts", _JSONB, nullable=True))
    op.create_check_constraint(op.f("ck_gpus_whole_or_sliced"), "gpus", "milli_used = 0 OR NOT partitioned")
    op.create_table(
        "allocation_slots",
        sa.Column("allocation_id", sa.Uuid(), nullable=False),
        sa.Column("gpu_id", sa.Uuid(), nullable=False),
        sa.Column("slot", sa.BigInteger(), nullable=False),
        sa.Column("live", sa.Boolean(), nullable=False),
        sa.CheckConstraint("slot BETWEEN 0 AND 8", name=op.f("ck_allocation_slots_slot")),
        sa.ForeignKeyConstraint(
            ["allocation_id"], ["allocations.id"], name=op.f("fk_allocation_slots_allocation_id")
        ),
        sa.ForeignKeyConstraint(["gpu_id"], ["gpus.id"], name=op.f("fk_allocation_slots_gpu_id")),
        sa.PrimaryKeyConstraint("allocation_id", "gpu_id", "slot", name=op.f("pk_allocation_slots")),
    )
    op.create_index(
        "uq_allocation_slots_live", "allocation_slots", ["gpu_id", "slot"], unique=True, postgresql_where=sa.text("live")
    )


def downgrade() -> None:
    """And back."""
    op.drop_index("uq_allocation_slots_live", table_name="allocation_slots", postgresql_where=sa.text("live"))
    op.drop_table("allocation_slots")
    op.drop_constraint(op.f("ck_gpus_whole_or_sliced"), "gpus", type_="check")
    op.drop_column("gpus", "cuts")
    op.drop_column("gpus", "partitioned")
    op.drop_column("nodes", "exclusive_for")
    op.drop_index("ix_dependencies_open", table_name="dependencies", postgresql_where=sa.text("NOT met"))
    op.drop_column("replicas", "slices")
    op.drop_column("replicas", "count")
    op.drop_column("replicas", "role")
    op.drop_column("jobs", "owed")
    op.drop_column("jobs", "asks")


def _add(table: str, column: sa.Column[object], value: str) -> None:
    """A column that may not be null, filled for the rows there are."""
    op.add_column(table, column)
    op.execute(f"UPDATE {table} SET {column.name} = {value}")
    op.alter_column(table, column.name, nullable=False)
