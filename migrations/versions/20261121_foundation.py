"""The foundation: tenancy, hardware, queues, jobs, events."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "20261121_foundation"
down_revision: str | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Widen."""
    op.create_table(
        "artifacts",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("replica_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("size_bytes >= 0", name=op.f("ck_artifacts_size")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_artifacts")),
        sa.UniqueConstraint("replica_id", "name", name=op.f("uq_artifacts_replica_id_name")),
    )
    op.create_index(op.f("ix_artifacts_job_id"), "artifacts", ["job_id"], unique=False)
    op.create_index(op.f("ix_artifacts_project_id"), "artifacts", ["project_id"], unique=False)
    op.create_table(
        "class_verdicts",
        sa.Column("class_key", sa.String(length=32), nullable=False),
        sa.Column("reason", sa.String(length=40), nullable=False),
        sa.Column("message", sa.String(), nullable=False),
        sa.Column("head_job_id", sa.Uuid(), nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("class_key", name=op.f("pk_class_verdicts")),
    )
    op.create_table(
        "cycles",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("event_id", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cycles")),
    )
    op.create_table(
        "events",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("kind", sa.String(length=60), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor_kind", sa.String(40), nullable=False),
        sa.Column("actor_id", sa.Uuid(), nullable=True),
        sa.Column("actor_name", sa.String(length=200), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=True),
        sa.Column("subject_type", sa.String(length=40), nullable=False),
        sa.Column("subject_id", sa.Uuid(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("data", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
    )
    op.create_index(
        "ix_events_job", "events", ["job_id", "id"], unique=False, postgresql_where=sa.text("job_id IS NOT NULL")
    )
    op.create_index("ix_events_subject", "events", ["subject_type", "subject_id", "id"], unique=False)
    op.create_index("ix_events_unsent", "events", ["id"], unique=False, postgresql_where=sa.text("sent_at IS NULL"))
    op.create_table(
        "idempotency_keys",
        sa.Column("actor_id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("request", sa.String(), nullable=False),
        sa.Column("status", sa.BigInteger(), nullable=True),
        sa.Column("body", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("actor_id", "key", name=op.f("pk_idempotency_keys")),
    )
    op.create_index(op.f("ix_idempotency_keys_created_at"), "idempotency_keys", ["created_at"], unique=False)
    op.create_table(
        "jobs",
        sa.Column("queue_id", sa.Uuid(), nullable=False),
        sa.Column("actor_kind", sa.String(40), nullable=False),
        sa.Column("actor_id", sa.Uuid(), nullable=True),
        sa.Column("actor_name", sa.String(length=200), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("state", sa.String(40), nullable=False),
        sa.Column("priority", sa.BigInteger(), nullable=False),
        sa.Column("spec", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("labels", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("class_key", sa.String(length=32), nullable=False),
        sa.Column("replicas", sa.BigInteger(), nullable=False),
        sa.Column("cpu_milli", sa.BigInteger(), nullable=False),
        sa.Column("memory_bytes", sa.BigInteger(), nullable=False),
        sa.Column("gpu_milli", sa.BigInteger(), nullable=False),
        sa.Column("gpu_model", sa.String(length=63), nullable=False),
        sa.Column("time_limit_s", sa.BigInteger(), nullable=True),
        sa.Column("deadline_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("run_after", sa.DateTime(timezone=True), nullable=True),
        sa.Column("waiting_for", sa.BigInteger(), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("retries", sa.BigInteger(), nullable=False),
        sa.Column("cancel_asked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("queued_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("exit_code", sa.BigInteger(), nullable=True),
        sa.Column("cause", sa.String(40), nullable=True),
        sa.Column("message", sa.String(), nullable=False),
        sa.Column("retry_of", sa.Uuid(), nullable=True),
        sa.Column("array_id", sa.Uuid(), nullable=True),
        sa.Column("array_index", sa.BigInteger(), nullable=True),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("cpu_milli BETWEEN 1 AND 9007199254740991", name=op.f("ck_jobs_cpu")),
        sa.CheckConstraint("gpu_milli < 1000 OR mod(gpu_milli, 1000) = 0", name=op.f("ck_jobs_whole_gpus")),
        sa.CheckConstraint("gpu_milli BETWEEN 0 AND 1024000", name=op.f("ck_jobs_gpu")),
        sa.CheckConstraint("memory_bytes BETWEEN 0 AND 9007199254740991", name=op.f("ck_jobs_memory")),
        sa.CheckConstraint("replicas BETWEEN 1 AND 4096", name=op.f("ck_jobs_replicas")),
        sa.CheckConstraint("waiting_for >= 0", name=op.f("ck_jobs_waiting_for")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
    )
    op.create_index("ix_jobs_actor", "jobs", ["actor_id", "created_at"], unique=False)
    op.create_index(
        "ix_jobs_array",
        "jobs",
        ["array_id", "array_index"],
        unique=False,
        postgresql_where=sa.text("array_id IS NOT NULL"),
    )
    op.create_index(
        "ix_jobs_deadline",
        "jobs",
        ["deadline_at"],
        unique=False,
        postgresql_where=sa.text("ended_at IS NULL AND deadline_at IS NOT NULL"),
    )
    op.create_index("ix_jobs_labels", "jobs", ["labels"], unique=False, postgresql_using="gin")
    op.create_index("ix_jobs_list", "jobs", ["project_id", "created_at", "id"], unique=False)
    op.create_index("ix_jobs_live", "jobs", ["state"], unique=False, postgresql_where=sa.text("ended_at IS NULL"))
    op.create_index(op.f("ix_jobs_project_id"), "jobs", ["project_id"], unique=False)
    op.create_index(
        "ix_jobs_queued",
        "jobs",
        ["class_key", "priority", "created_at", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.create_index("ix_jobs_recent", "jobs", ["created_at", "id"], unique=False)
    op.create_index(
        "ix_jobs_waiting",
        "jobs",
        ["queue_id", "priority", "created_at"],
        unique=False,
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.create_table(
        "join_tokens",
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_join_tokens")),
        sa.UniqueConstraint("digest", name=op.f("uq_join_tokens_digest")),
    )
    op.create_table(
        "nodes",
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("hostname", sa.String(length=255), nullable=False),
        sa.Column("boot_id", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(40), nullable=False),
        sa.Column("token_digest", sa.LargeBinary(), nullable=False),
        sa.Column("cpu_milli", sa.BigInteger(), nullable=False),
        sa.Column("cpu_milli_used", sa.BigInteger(), nullable=False),
        sa.Column("memory_bytes", sa.BigInteger(), nullable=False),
        sa.Column("memory_bytes_used", sa.BigInteger(), nullable=False),
        sa.Column("gpu_model", sa.String(length=63), nullable=False),
        sa.Column("isolation", sa.String(40), nullable=False),
        sa.Column("isolation_detail", sa.String(), nullable=False),
        sa.Column("executors", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("profile", sa.String(length=63), nullable=False),
        sa.Column("labels", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("telemetry", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("cpu_milli_used BETWEEN 0 AND cpu_milli", name=op.f("ck_nodes_cpu")),
        sa.CheckConstraint("memory_bytes_used BETWEEN 0 AND memory_bytes", name=op.f("ck_nodes_memory")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_nodes")),
        sa.UniqueConstraint("name", name=op.f("uq_nodes_name")),
        sa.UniqueConstraint("token_digest", name=op.f("uq_nodes_token_digest")),
    )
    op.create_index(op.f("ix_nodes_state"), "nodes", ["state"], unique=False)
    op.create_table(
        "organisations",
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_organisations")),
        sa.UniqueConstraint("name", name=op.f("uq_organisations_name")),
    )
    op.create_table(
        "queues",
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=True),
        sa.Column("state", sa.String(40), nullable=False),
        sa.Column("weight", sa.BigInteger(), nullable=False),
        sa.Column("policy", sa.String(length=40), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("weight BETWEEN 1 AND 1000", name=op.f("ck_queues_weight")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_queues")),
    )
    op.create_index(
        "uq_queues_project",
        "queues",
        ["project_id", "name"],
        unique=True,
        postgresql_where=sa.text("project_id IS NOT NULL"),
    )
    op.create_index("uq_queues_shared", "queues", ["name"], unique=True, postgresql_where=sa.text("project_id IS NULL"))
    op.create_table(
        "service_accounts",
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("role", sa.String(40), nullable=False),
        sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_service_accounts")),
    )
    op.create_index(op.f("ix_service_accounts_project_id"), "service_accounts", ["project_id"], unique=False)
    op.create_index(
        "uq_service_accounts_name",
        "service_accounts",
        ["project_id", "name"],
        unique=True,
        postgresql_where=sa.text("removed_at IS NULL"),
    )
    op.create_table(
        "users",
        sa.Column("username", sa.String(length=63), nullable=False),
        sa.Column("password_hash", sa.String(), nullable=False),
        sa.Column("platform_admin", sa.Boolean(), nullable=False),
        sa.Column("token_version", sa.BigInteger(), nullable=False),
        sa.Column("disabled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
        sa.UniqueConstraint("username", name=op.f("uq_users_username")),
    )
    op.create_table(
        "allocations",
        sa.Column("node_id", sa.Uuid(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("holder_name", sa.String(length=200), nullable=False),
        sa.Column("cpu_milli", sa.BigInteger(), nullable=False),
        sa.Column("memory_bytes", sa.BigInteger(), nullable=False),
        sa.Column("released_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("cpu_milli >= 0 AND memory_bytes >= 0", name=op.f("ck_allocations_amounts")),
        sa.ForeignKeyConstraint(["node_id"], ["nodes.id"], name=op.f("fk_allocations_node_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_allocations")),
    )
    op.create_index(op.f("ix_allocations_job_id"), "allocations", ["job_id"], unique=False)
    op.create_index(
        "ix_allocations_live", "allocations", ["node_id"], unique=False, postgresql_where=sa.text("released_at IS NULL")
    )
    op.create_index(op.f("ix_allocations_project_id"), "allocations", ["project_id"], unique=False)
    op.create_table(
        "api_keys",
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("prefix", sa.String(length=16), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("service_account_id", sa.Uuid(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("(user_id IS NULL) <> (service_account_id IS NULL)", name=op.f("ck_api_keys_one_owner")),
        sa.ForeignKeyConstraint(
            ["service_account_id"], ["service_accounts.id"], name=op.f("fk_api_keys_service_account_id")
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_api_keys_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("digest", name=op.f("uq_api_keys_digest")),
    )
    op.create_index(op.f("ix_api_keys_service_account_id"), "api_keys", ["service_account_id"], unique=False)
    op.create_index(op.f("ix_api_keys_user_id"), "api_keys", ["user_id"], unique=False)
    op.create_table(
        "attempts",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(40), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("exit_code", sa.BigInteger(), nullable=True),
        sa.Column("cause", sa.String(40), nullable=True),
        sa.Column("message", sa.String(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_attempts_job_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_attempts")),
        sa.UniqueConstraint("job_id", "fence", name=op.f("uq_attempts_job_id_fence")),
    )
    op.create_index(op.f("ix_attempts_project_id"), "attempts", ["project_id"], unique=False)
    op.create_table(
        "dependencies",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("on_job_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(40), nullable=False),
        sa.Column("met", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_dependencies_job_id")),
        sa.ForeignKeyConstraint(["on_job_id"], ["jobs.id"], name=op.f("fk_dependencies_on_job_id")),
        sa.PrimaryKeyConstraint("job_id", "on_job_id", name=op.f("pk_dependencies")),
    )
    op.create_index("ix_dependencies_on_job_id", "dependencies", ["on_job_id"], unique=False)
    op.create_table(
        "gpus",
        sa.Column("node_id", sa.Uuid(), nullable=False),
        sa.Column("index", sa.BigInteger(), nullable=False),
        sa.Column("uuid", sa.String(length=80), nullable=False),
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("memory_bytes", sa.BigInteger(), nullable=False),
        sa.Column("numa", sa.BigInteger(), nullable=False),
        sa.Column("links", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("milli_used", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("milli_used BETWEEN 0 AND 1000", name=op.f("ck_gpus_given_once")),
        sa.ForeignKeyConstraint(["node_id"], ["nodes.id"], name=op.f("fk_gpus_node_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_gpus")),
        sa.UniqueConstraint("node_id", "index", name=op.f("uq_gpus_node_id_index")),
    )
    op.create_table(
        "projects",
        sa.Column("organisation_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["organisation_id"], ["organisations.id"], name=op.f("fk_projects_organisation_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_projects")),
        sa.UniqueConstraint("organisation_id", "name", name=op.f("uq_projects_organisation_id_name")),
    )
    op.create_table(
        "refresh_tokens",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("chain_id", sa.Uuid(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_refresh_tokens_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_refresh_tokens")),
        sa.UniqueConstraint("digest", name=op.f("uq_refresh_tokens_digest")),
    )
    op.create_index(op.f("ix_refresh_tokens_chain_id"), "refresh_tokens", ["chain_id"], unique=False)
    op.create_index(op.f("ix_refresh_tokens_user_id"), "refresh_tokens", ["user_id"], unique=False)
    op.create_table(
        "allocation_gpus",
        sa.Column("allocation_id", sa.Uuid(), nullable=False),
        sa.Column("gpu_id", sa.Uuid(), nullable=False),
        sa.Column("milli", sa.BigInteger(), nullable=False),
        sa.Column("live", sa.Boolean(), nullable=False),
        sa.CheckConstraint("milli BETWEEN 1 AND 1000", name=op.f("ck_allocation_gpus_milli")),
        sa.ForeignKeyConstraint(["allocation_id"], ["allocations.id"], name=op.f("fk_allocation_gpus_allocation_id")),
        sa.ForeignKeyConstraint(["gpu_id"], ["gpus.id"], name=op.f("fk_allocation_gpus_gpu_id")),
        sa.PrimaryKeyConstraint("allocation_id", "gpu_id", name=op.f("pk_allocation_gpus")),
    )
    op.create_index(
        "uq_allocation_gpus_whole",
        "allocation_gpus",
        ["gpu_id"],
        unique=True,
        postgresql_where=sa.text("live AND milli = 1000"),
    )
    op.create_table(
        "memberships",
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("role", sa.String(40), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_memberships_project_id")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_memberships_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_memberships")),
        sa.UniqueConstraint("project_id", "user_id", name=op.f("uq_memberships_project_id_user_id")),
    )
    op.create_index("ix_memberships_user_id", "memberships", ["user_id"], unique=False)
    op.create_table(
        "replicas",
        sa.Column("attempt_id", sa.Uuid(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("node_id", sa.Uuid(), nullable=False),
        sa.Column("node_name", sa.String(length=63), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("index", sa.BigInteger(), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(40), nullable=False),
        sa.Column("gpus", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("stop_reason", sa.String(40), nullable=True),
        sa.Column("stop_grace_s", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("exit_code", sa.BigInteger(), nullable=True),
        sa.Column("signal", sa.BigInteger(), nullable=True),
        sa.Column("cause", sa.String(40), nullable=True),
        sa.Column("message", sa.String(), nullable=False),
        sa.Column("run_ms", sa.BigInteger(), nullable=False),
        sa.Column("cpu_ms", sa.BigInteger(), nullable=False),
        sa.Column("peak_memory_bytes", sa.BigInteger(), nullable=False),
        sa.Column("report_seq", sa.BigInteger(), nullable=False),
        sa.Column("metric_seq", sa.BigInteger(), nullable=False),
        sa.Column("log_bytes", sa.BigInteger(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.id"], name=op.f("fk_replicas_attempt_id")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_replicas_job_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_replicas")),
        sa.UniqueConstraint("attempt_id", "index", name=op.f("uq_replicas_attempt_id_index")),
    )
    op.create_index("ix_replicas_job_id", "replicas", ["job_id"], unique=False)
    op.create_index(
        "ix_replicas_live", "replicas", ["node_id"], unique=False, postgresql_where=sa.text("ended_at IS NULL")
    )
    op.create_index(op.f("ix_replicas_project_id"), "replicas", ["project_id"], unique=False)
    op.create_table(
        "log_chunks",
        sa.Column("replica_id", sa.Uuid(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("first_us", sa.BigInteger(), nullable=False),
        sa.Column("last_us", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["replica_id"], ["replicas.id"], name=op.f("fk_log_chunks_replica_id")),
        sa.PrimaryKeyConstraint("replica_id", "offset", name=op.f("pk_log_chunks")),
    )
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


def downgrade() -> None:
    """And back."""
    op.drop_index("ix_metrics_series", table_name="metrics")
    op.drop_table("metrics")
    op.drop_table("log_chunks")
    op.drop_index(op.f("ix_replicas_project_id"), table_name="replicas")
    op.drop_index("ix_replicas_live", table_name="replicas", postgresql_where=sa.text("ended_at IS NULL"))
    op.drop_index("ix_replicas_job_id", table_name="replicas")
    op.drop_table("replicas")
    op.drop_index("ix_memberships_user_id", table_name="memberships")
    op.drop_table("memberships")
    op.drop_index(
        "uq_allocation_gpus_whole", table_name="allocation_gpus", postgresql_where=sa.text("live AND milli = 1000")
    )
    op.drop_table("allocation_gpus")
    op.drop_index(op.f("ix_refresh_tokens_user_id"), table_name="refresh_tokens")
    op.drop_index(op.f("ix_refresh_tokens_chain_id"), table_name="refresh_tokens")
    op.drop_table("refresh_tokens")
    op.drop_table("projects")
    op.drop_table("gpus")
    op.drop_index("ix_dependencies_on_job_id", table_name="dependencies")
    op.drop_table("dependencies")
    op.drop_index(op.f("ix_attempts_project_id"), table_name="attempts")
    op.drop_table("attempts")
    op.drop_index(op.f("ix_api_keys_user_id"), table_name="api_keys")
    op.drop_index(op.f("ix_api_keys_service_account_id"), table_name="api_keys")
    op.drop_table("api_keys")
    op.drop_index(op.f("ix_allocations_project_id"), table_name="allocations")
    op.drop_index("ix_allocations_live", table_name="allocations", postgresql_where=sa.text("released_at IS NULL"))
    op.drop_index(op.f("ix_allocations_job_id"), table_name="allocations")
    op.drop_table("allocations")
    op.drop_table("users")
    op.drop_index(
        "uq_service_accounts_name", table_name="service_accounts", postgresql_where=sa.text("removed_at IS NULL")
    )
    op.drop_index(op.f("ix_service_accounts_project_id"), table_name="service_accounts")
    op.drop_table("service_accounts")
    op.drop_index("uq_queues_shared", table_name="queues", postgresql_where=sa.text("project_id IS NULL"))
    op.drop_index("uq_queues_project", table_name="queues", postgresql_where=sa.text("project_id IS NOT NULL"))
    op.drop_table("queues")
    op.drop_table("organisations")
    op.drop_index(op.f("ix_nodes_state"), table_name="nodes")
    op.drop_table("nodes")
    op.drop_table("join_tokens")
    op.drop_index("ix_jobs_waiting", table_name="jobs", postgresql_where=sa.text("state = 'queued'"))
    op.drop_index("ix_jobs_recent", table_name="jobs")
    op.drop_index("ix_jobs_queued", table_name="jobs", postgresql_where=sa.text("state = 'queued'"))
    op.drop_index(op.f("ix_jobs_project_id"), table_name="jobs")
    op.drop_index("ix_jobs_live", table_name="jobs", postgresql_where=sa.text("ended_at IS NULL"))
    op.drop_index("ix_jobs_list", table_name="jobs")
    op.drop_index("ix_jobs_labels", table_name="jobs", postgresql_using="gin")
    op.drop_index(
        "ix_jobs_deadline", table_name="jobs", postgresql_where=sa.text("ended_at IS NULL AND deadline_at IS NOT NULL")
    )
    op.drop_index("ix_jobs_array", table_name="jobs", postgresql_where=sa.text("array_id IS NOT NULL"))
    op.drop_index("ix_jobs_actor", table_name="jobs")
    op.drop_table("jobs")
    op.drop_index(op.f("ix_idempotency_keys_created_at"), table_name="idempotency_keys")
    op.drop_table("idempotency_keys")
    op.drop_index("ix_events_unsent", table_name="events", postgresql_where=sa.text("sent_at IS NULL"))
    op.drop_index("ix_events_subject", table_name="events")
    op.drop_index("ix_events_job", table_name="events", postgresql_where=sa.text("job_id IS NOT NULL"))
    op.drop_table("events")
    op.drop_table("cycles")
    op.drop_table("class_verdicts")
    op.drop_index(op.f("ix_artifacts_project_id"), table_name="artifacts")
    op.drop_index(op.f("ix_artifacts_job_id"), table_name="artifacts")
    op.drop_table("artifacts")
