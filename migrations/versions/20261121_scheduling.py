"""Pools, topology, allocations of their own, reservations, policy, quotas."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "20261121_scheduling"
down_revision: str | None = "20261121_foundation"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Widen."""
    _add("jobs", sa.Column("preemptions", sa.BigInteger(), nullable=True), "0")
    op.add_column("replicas", sa.Column("stop_asked_at", sa.DateTime(timezone=True), nullable=True))
    op.create_table(
        "past_uses",
        sa.Column("account_id", sa.String(length=80), nullable=False),
        sa.Column("used", sa.Float(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_past_uses")),
    )
    op.create_table(
        "policies",
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("body", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("actor_name", sa.String(length=200), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("number > 0", name=op.f("ck_policies_number")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_policies")),
        sa.UniqueConstraint("number", name=op.f("uq_policies_number")),
    )
    op.create_table(
        "pools",
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("parent_id", sa.Uuid(), nullable=True),
        sa.Column("weight", sa.BigInteger(), nullable=False),
        sa.Column("nominal", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("lends", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("borrows", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("cpu_overcommit_milli", sa.BigInteger(), nullable=False),
        sa.Column("memory_overcommit_milli", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "cpu_overcommit_milli BETWEEN 1000 AND 16000 AND memory_overcommit_milli BETWEEN 1000 AND 4000",
            name=op.f("ck_pools_overcommit"),
        ),
        sa.CheckConstraint("parent_id <> id", name=op.f("ck_pools_parent")),
        sa.CheckConstraint("weight BETWEEN 1 AND 1000", name=op.f("ck_pools_weight")),
        sa.ForeignKeyConstraint(["parent_id"], ["pools.id"], name=op.f("fk_pools_parent_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pools")),
        sa.UniqueConstraint("name", name=op.f("uq_pools_name")),
    )
    op.create_index(op.f("ix_pools_parent_id"), "pools", ["parent_id"], unique=False)
    op.create_table(
        "reservations",
        sa.Column("project_id", sa.Uuid(), nullable=True),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("state", sa.String(40), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=True),
        sa.Column("owner_name", sa.String(length=200), nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("starts_at < ends_at", name=op.f("ck_reservations_window")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reservations")),
    )
    op.create_index(
        "ix_reservations_open",
        "reservations",
        ["starts_at"],
        unique=False,
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.create_index(op.f("ix_reservations_project_id"), "reservations", ["project_id"], unique=False)
    op.create_table(
        "topologies",
        sa.Column("levels", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_topologies")),
    )
    op.create_index("uq_topologies_one", "topologies", [sa.literal_column("(true)")], unique=True)
    op.create_table(
        "quotas",
        sa.Column("organisation_id", sa.Uuid(), nullable=True),
        sa.Column("project_id", sa.Uuid(), nullable=True),
        sa.Column("actor_id", sa.Uuid(), nullable=True),
        sa.Column("hard", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("hard_jobs", sa.BigInteger(), nullable=True),
        sa.Column("soft", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("soft_jobs", sa.BigInteger(), nullable=True),
        sa.Column("burst", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("burst_s", sa.BigInteger(), nullable=False),
        sa.Column("burst_every_s", sa.BigInteger(), nullable=False),
        sa.Column("burst_began_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("soft_exceeded_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("(organisation_id IS NULL) <> (project_id IS NULL)", name=op.f("ck_quotas_one_subject")),
        sa.CheckConstraint("actor_id IS NULL OR project_id IS NOT NULL", name=op.f("ck_quotas_actor_in_project")),
        sa.CheckConstraint("burst_s BETWEEN 0 AND burst_every_s", name=op.f("ck_quotas_burst")),
        sa.CheckConstraint("hard_jobs >= 0 AND soft_jobs >= 0", name=op.f("ck_quotas_jobs")),
        sa.ForeignKeyConstraint(["organisation_id"], ["organisations.id"], name=op.f("fk_quotas_organisation_id")),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_quotas_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_quotas")),
    )
    op.create_index("uq_quotas_actor", "quotas", ["project_id", "actor_id"], unique=True)
    op.create_index(
        "uq_quotas_organisation",
        "quotas",
        ["organisation_id"],
        unique=True,
        postgresql_where=sa.text("project_id IS NULL"),
    )
    op.create_index(
        "uq_quotas_project", "quotas", ["project_id"], unique=True, postgresql_where=sa.text("actor_id IS NULL")
    )
    op.create_table(
        "reservation_parts",
        sa.Column("reservation_id", sa.Uuid(), nullable=False),
        sa.Column("index", sa.BigInteger(), nullable=False),
        sa.Column("node_id", sa.Uuid(), nullable=False),
        sa.Column("cpu_milli", sa.BigInteger(), nullable=False),
        sa.Column("memory_bytes", sa.BigInteger(), nullable=False),
        sa.Column("gpus", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.CheckConstraint("cpu_milli >= 0 AND memory_bytes >= 0", name=op.f("ck_reservation_parts_amounts")),
        sa.ForeignKeyConstraint(["node_id"], ["nodes.id"], name=op.f("fk_reservation_parts_node_id")),
        sa.ForeignKeyConstraint(
            ["reservation_id"], ["reservations.id"], name=op.f("fk_reservation_parts_reservation_id")
        ),
        sa.PrimaryKeyConstraint("reservation_id", "index", name=op.f("pk_reservation_parts")),
    )
    op.create_index(op.f("ix_reservation_parts_node_id"), "reservation_parts", ["node_id"], unique=False)
    op.add_column("allocations", sa.Column("owner_id", sa.Uuid(), nullable=True))
    _add("allocations", sa.Column("owner_name", sa.String(length=200), nullable=True), "''")
    _add("allocations", sa.Column("exclusive", sa.Boolean(), nullable=True), "false")
    op.add_column("allocations", sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True))
    op.alter_column("allocations", "job_id", existing_type=sa.UUID(), nullable=True)
    op.create_index(
        "ix_allocations_expiring",
        "allocations",
        ["expires_at"],
        unique=False,
        postgresql_where=sa.text("released_at IS NULL AND expires_at IS NOT NULL"),
    )
    op.drop_index(op.f("ix_jobs_live"), table_name="jobs", postgresql_where="(ended_at IS NULL)")
    op.create_index(
        "ix_jobs_live",
        "jobs",
        ["state", "project_id", "actor_id"],
        unique=False,
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    _add("nodes", sa.Column("real_cpu_milli", sa.BigInteger(), nullable=True), "cpu_milli")
    _add("nodes", sa.Column("real_memory_bytes", sa.BigInteger(), nullable=True), "memory_bytes")
    _add("nodes", sa.Column("own_labels", postgresql.JSONB(astext_type=sa.Text()), nullable=True), "labels")
    _add("nodes", sa.Column("taints", postgresql.JSONB(astext_type=sa.Text()), nullable=True), "'[]'")
    _add("nodes", sa.Column("domains", postgresql.JSONB(astext_type=sa.Text()), nullable=True), "'{}'")
    op.add_column("nodes", sa.Column("pool_id", sa.Uuid(), nullable=True))
    _add("nodes", sa.Column("spot", sa.Boolean(), nullable=True), "false")
    _add("nodes", sa.Column("usd_micros_hour", sa.BigInteger(), nullable=True), "0")
    _add("nodes", sa.Column("caches", postgresql.JSONB(astext_type=sa.Text()), nullable=True), "'[]'")
    op.add_column("nodes", sa.Column("cordoned_at", sa.DateTime(timezone=True), nullable=True))
    _add("nodes", sa.Column("cordon_reason", sa.String(), nullable=True), "''")
    op.create_index(op.f("ix_nodes_pool_id"), "nodes", ["pool_id"], unique=False)
    op.create_foreign_key(op.f("fk_nodes_pool_id"), "nodes", "pools", ["pool_id"], ["id"])
    _add("queues", sa.Column("second_policy", sa.String(length=40), nullable=True), "''")
    op.add_column("queues", sa.Column("pool_id", sa.Uuid(), nullable=True))
    _add("queues", sa.Column("most", postgresql.JSONB(astext_type=sa.Text()), nullable=True), "'{}'")
    op.add_column("queues", sa.Column("most_running", sa.BigInteger(), nullable=True))
    op.create_index(op.f("ix_queues_pool_id"), "queues", ["pool_id"], unique=False)
    op.create_foreign_key(op.f("fk_queues_pool_id"), "queues", "pools", ["pool_id"], ["id"])
    op.create_check_constraint(
        op.f("ck_allocations_job_or_expiry"), "allocations", "(job_id IS NULL) = (expires_at IS NOT NULL)"
    )
    op.create_check_constraint(op.f("ck_queues_most_running"), "queues", "most_running >= 0")


def downgrade() -> None:
    """And back."""
    op.drop_constraint(op.f("ck_allocations_job_or_expiry"), "allocations", type_="check")
    op.drop_constraint(op.f("ck_queues_most_running"), "queues", type_="check")
    op.drop_constraint(op.f("fk_queues_pool_id"), "queues", type_="foreignkey")
    op.drop_index(op.f("ix_queues_pool_id"), table_name="queues")
    op.drop_column("queues", "most_running")
    op.drop_column("queues", "most")
    op.drop_column("queues", "pool_id")
    op.drop_column("queues", "second_policy")
    op.drop_constraint(op.f("fk_nodes_pool_id"), "nodes", type_="foreignkey")
    op.drop_index(op.f("ix_nodes_pool_id"), table_name="nodes")
    op.drop_column("nodes", "cordon_reason")
    op.drop_column("nodes", "cordoned_at")
    op.drop_column("nodes", "caches")
    op.drop_column("nodes", "usd_micros_hour")
    op.drop_column("nodes", "spot")
    op.drop_column("nodes", "pool_id")
    op.drop_column("nodes", "domains")
    op.drop_column("nodes", "taints")
    op.drop_column("nodes", "own_labels")
    op.drop_column("nodes", "real_memory_bytes")
    op.drop_column("nodes", "real_cpu_milli")
    op.drop_index("ix_jobs_live", table_name="jobs", postgresql_where=sa.text("ended_at IS NULL"))
    op.create_index(op.f("ix_jobs_live"), "jobs", ["state"], unique=False, postgresql_where="(ended_at IS NULL)")
    op.drop_index(
        "ix_allocations_expiring",
        table_name="allocations",
        postgresql_where=sa.text("released_at IS NULL AND expires_at IS NOT NULL"),
    )
    op.alter_column("allocations", "job_id", existing_type=sa.UUID(), nullable=False)
    op.drop_column("allocations", "expires_at")
    op.drop_column("allocations", "exclusive")
    op.drop_column("allocations", "owner_name")
    op.drop_column("allocations", "owner_id")
    op.drop_index(op.f("ix_reservation_parts_node_id"), table_name="reservation_parts")
    op.drop_table("reservation_parts")
    op.drop_index("uq_quotas_project", table_name="quotas", postgresql_where=sa.text("actor_id IS NULL"))
    op.drop_index("uq_quotas_organisation", table_name="quotas", postgresql_where=sa.text("project_id IS NULL"))
    op.drop_index("uq_quotas_actor", table_name="quotas")
    op.drop_table("quotas")
    op.drop_index("uq_topologies_one", table_name="topologies")
    op.drop_table("topologies")
    op.drop_index(op.f("ix_reservations_project_id"), table_name="reservations")
    op.drop_index("ix_reservations_open", table_name="reservations", postgresql_where=sa.text("ended_at IS NULL"))
    op.drop_table("reservations")
    op.drop_index(op.f("ix_pools_parent_id"), table_name="pools")
    op.drop_table("pools")
    op.drop_table("policies")
    op.drop_table("past_uses")
    op.drop_column("replicas", "stop_asked_at")
    op.drop_column("jobs", "preemptions")


def _add(table: str, column: sa.Column[object], value: str) -> None:
    """A column that may not be null, filled for the rows there are."""
    op.add_column(table, column)
    op.execute(f"UPDATE {table} SET {column.name} = {value}")
    op.alter_column(table, column.name, nullable=False)
