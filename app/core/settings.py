"""How a process of the control plane is wired; how it behaves is policy, in the database."""

from dataclasses import dataclass
from pathlib import Path

from trellis.settings import SettingsError
from trellis.wire import CUT_OFF_GRACE_S


@dataclass(frozen=True, slots=True)
class Settings:
    """Read once at a process's entry and handed down; see `trellis.settings.load` for where values come from.

    database_url: PostgreSQL 15 or newer, such as `postgresql://trellis:secret@db.example.org/trellis`.
    broker_url: Redis 7, Valkey or RabbitMQ, such as `redis://:secret@10.0.0.5:6379/0` or `amqp://...`.
    secret_key: signs tokens and cursors and keys the digests of API keys: at least 32 characters.
    home: where artifacts, code and checkpoints are kept (folder `store`), unless `store_url` says otherwise.
    store_url: where they are kept: `file:///folder`, `s3://bucket/prefix` or `gs://bucket/prefix`, reached by nodes under the same URL.
    public_url: how people reach the API.
    node_broker_url: what joining nodes are told, where they reach the broker under another address; empty for the same.
    heartbeat_s: how often a node reports.
    lease_s: how long a node may run jobs after it was last heard; its supervisors end them by themselves then.
    node_lost_s: how long a node may be silent before its jobs are tried elsewhere.
    database_pool: connections a process holds at most.
    streams: followed logs that one API process serves at once; each takes one of its threads.
    max_body_bytes: the largest request body, but for artifacts and code.
    bundle_bytes: the largest bundle of code.
    project_code_bytes: what all bundles of a project may take together; equal files count once.
    bundle_days: for how long a bundle is kept that no job asks for.
    metric_points_hours: for how long metrics are kept point by point; then as minutes.
    metric_minutes_days: for how long they are kept as minutes; then as quarters of an hour.
    metric_days: for how long they are kept at all.
    artifact_bytes: the largest artifact.
    project_artifact_bytes: what all artifacts of a project may take together.
    log_days: for how long what jobs printed is kept; 0 for ever.
    trusted_clusters: clusters whose checkpoints may be imported: words such as `north=<key>@s3://north/store`, as
        `trellis checkpoints key` prints them there; the URL is where control plane and nodes reach that store from here.
    """

    database_url: str
    broker_url: str
    secret_key: str
    home: Path = Path(".trellis")
    store_url: str = ""
    public_url: str = "http://127.0.0.1:8420"
    node_broker_url: str = ""
    heartbeat_s: float = 5.0
    lease_s: float = 28.0
    node_lost_s: float = 35.0
    database_pool: int = 20
    streams: int = 300
    max_body_bytes: int = 4 * 2**20
    bundle_bytes: int = 2**30
    project_code_bytes: int = 20 * 2**30
    bundle_days: int = 30
    metric_points_hours: int = 24
    metric_minutes_days: int = 14
    metric_days: int = 365
    artifact_bytes: int = 64 * 2**30
    project_artifact_bytes: int = 200 * 2**30
    log_days: int = 90
    trusted_clusters: str = ""

    @property
    def store(self) -> str:
        """The URL of the store."""
        return self.store_url or (self.home / "store").absolute().as_uri()

    def __post_init__(self) -> None:
        """Refuse what would only fail later, or never be noticed."""
        if len(self.secret_key) < 32:
            raise SettingsError("TRELLIS_SECRET_KEY must have at least 32 characters")
        if not self.database_url.startswith("postgresql"):
            raise SettingsError("TRELLIS_DATABASE_URL must begin with postgresql://")
        if not 0 < self.metric_points_hours <= self.metric_minutes_days * 24 <= self.metric_days * 24:
            raise SettingsError(
                "metrics grow coarser with age: 0 < TRELLIS_METRIC_POINTS_HOURS <= 24 x TRELLIS_METRIC_MINUTES_DAYS "
                "<= 24 x TRELLIS_METRIC_DAYS"
            )
        if not self.heartbeat_s * 2 < self.lease_s < self.node_lost_s - CUT_OFF_GRACE_S:
            raise SettingsError(
                "a lease must outlast two heartbeats, and what it allowed be dead before its node counts as lost: "
                f"2 x TRELLIS_HEARTBEAT_S < TRELLIS_LEASE_S < TRELLIS_NODE_LOST_S - {CUT_OFF_GRACE_S:g}"
            )
