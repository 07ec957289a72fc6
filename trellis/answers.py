"""What the platform answers, as frozen values.

A newer server may say more than this client knows: unknown keys are left in `raw`, missing ones take their default.
Times are aware datetimes; states are plain strings that compare equal to the words in `trellis.vocabulary`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import datetime
from functools import cache
from types import UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from trellis.vocabulary import ENDED_JOB_STATES


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Base of all; `raw` is the JSON object as it came."""

    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


A = TypeVar("A", bound=Answer)


@dataclass(frozen=True, kw_only=True)
class Amounts(Answer):
    """What one replica asks for: thousandths of a CPU and of a GPU, and bytes."""

    cpu_milli: int = 0
    memory_bytes: int = 0
    gpu_milli: int = 0
    gpu_type: str | None = None
    gpu_types: tuple[str, ...] = ()
    mig_profile: str = ""


@dataclass(frozen=True, kw_only=True)
class RoleOfJob(Answer):
    """Replicas of a job that are alike."""

    name: str = ""
    min_replicas: int = 1
    max_replicas: int = 1
    resources: Amounts = field(default_factory=Amounts)


@dataclass(frozen=True, kw_only=True)
class ReplicaOfJob(Answer):
    """One member of an attempt, on one node; `index` is its rank."""

    id: str = ""
    index: int = 0
    role: str = ""
    node: str | None = None
    address: str = ""
    state: str = ""
    exit_code: int | None = None
    gpus: tuple[Mapping[str, Any], ...] = ()
    slices: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Bundle(Answer):
    """A directory of code that jobs run in; `digest` names what is in it, `files` counts files and links."""

    id: str = ""
    project_id: str = ""
    digest: str = ""
    name: str = ""
    size_bytes: int = 0
    files: int = 0
    user: str = ""
    created_at: datetime | None = None
    used_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Attempt(Answer):
    """One try at a job."""

    number: int = 0
    fence: int = 0
    state: str = ""
    reason: str = ""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    cause: str | None = None
    message: str = ""
    replicas: tuple[ReplicaOfJob, ...] = ()


@dataclass(frozen=True, kw_only=True)
class JobGroup(Answer):
    """An array or a workflow as one: how many of its jobs are in which state; `changed` by what was just asked."""

    id: str = ""
    kind: str = ""
    name: str = ""
    project_id: str = ""
    user: str = ""
    submitted_at: datetime | None = None
    count: int = 0
    states: Mapping[str, int] = field(default_factory=dict)
    changed: int = 0


@dataclass(frozen=True, kw_only=True)
class Job(Answer):
    """A job. `why` says in words why it waits, or of a dry run why it never `could_start`; `spec`, `depends_on` and `attempts` come with `verbose`."""

    id: str = ""
    name: str = ""
    project_id: str = ""
    project: str = ""
    queue: str = ""
    user: str = ""
    state: str = ""
    priority: int = 0
    submitted_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    wait_s: float | None = None
    run_s: float | None = None
    attempt: int = 0
    exit_code: int | None = None
    cause: str | None = None
    message: str | None = None
    why: str | None = None
    could_start: bool | None = None
    expected_start_at: datetime | None = None
    resources: Amounts = field(default_factory=Amounts)
    replicas: int = 1
    max_replicas: int = 1
    roles: tuple[RoleOfJob, ...] = ()
    constraints: Mapping[str, Any] = field(default_factory=dict)
    preemptible: bool = True
    checkpointable: bool = False
    deadline: datetime | None = None
    bundle: Mapping[str, Any] | None = None
    features: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    retry_of: str | None = None
    array_id: str | None = None
    array_index: int | None = None
    workflow_id: str | None = None
    workflow: str = ""
    group: JobGroup | None = None
    notes: tuple[str, ...] = ()
    version: int = 0
    spec: Mapping[str, Any] = field(default_factory=dict)
    depends_on: tuple[Mapping[str, Any], ...] = ()
    attempts: tuple[Attempt, ...] = ()

    @property
    def ended(self) -> bool:
        """Whether the state is one that a job never leaves."""
        return self.state in ENDED_JOB_STATES


@dataclass(frozen=True, kw_only=True)
class JobArray(Answer):
    """What submitting an array answers: how many jobs it became, and the first of them."""

    array_id: str = ""
    items: tuple[Job, ...] = ()
    count: int = 0


@dataclass(frozen=True, kw_only=True)
class Workflow(JobGroup):
    """A workflow that was submitted, with its jobs."""

    items: tuple[Job, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LogLine(Answer):
    """One line that a job wrote; `cursor` is where to go on after it (empty when not followed)."""

    at: datetime | None = None
    stream: str = "stdout"
    replica: int = 0
    attempt: int = 1
    text: str = ""
    cursor: str = ""


@dataclass(frozen=True, kw_only=True)
class Actor(Answer):
    """Who did something."""

    kind: str = ""
    id: str | None = None
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class Event(Answer):
    """Something that happened; what changed is in `before` and `after`, or as one in `data`."""

    id: str = ""
    kind: str = ""
    at: datetime | None = None
    actor: Actor = field(default_factory=Actor)
    subject: Mapping[str, Any] = field(default_factory=dict)
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
    reason: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Metric(Answer):
    """One value that a job reported."""

    name: str = ""
    value: float = 0.0
    step: int | None = None
    at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Bucket(Answer):
    """What was measured from `at` on for the resolution of its series: so many values, in one."""

    at: datetime | None = None
    value: float = 0.0
    count: int = 0


@dataclass(frozen=True, kw_only=True)
class Feature(Answer):
    """A switch. `platform` and `project` are what was said there, `enabled` whether jobs have it that say nothing."""

    name: str = ""
    description: str = ""
    owner: str = ""
    default: bool = False
    platform: bool | None = None
    project: bool | None = None
    enabled: bool = False


@dataclass(frozen=True, kw_only=True)
class Series(Answer):
    """One metric over time; times at which nothing was measured have no point."""

    name: str = ""
    agg: str = ""
    resolution_s: int = 1
    points: tuple[Bucket, ...] = ()
    replica: int | None = None

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Its points as plain dictionaries: what csv.DictWriter, pandas.DataFrame and pyarrow.Table.from_pylist take."""
        mine = {"name": self.name, "replica": self.replica}
        return [{**mine, "at": point.at, "value": point.value, "count": point.count} for point in self.points]


@dataclass(frozen=True, kw_only=True)
class Artifact(Answer):
    """A file beside a job's results. `type` and `metadata` are its owner's words; `replica_id` is None where somebody put it."""

    id: str = ""
    name: str = ""
    type: str = ""
    media_type: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    size_bytes: int = 0
    digest: str = ""
    saved_by: str = ""
    replica_id: str | None = None
    created_at: datetime | None = None
    url: str = ""


@dataclass(frozen=True, kw_only=True)
class Checkpoint(Answer):
    """What a job can go on from. `new_bytes` is what those before it did not hold, `stored_bytes` what that took.

    One that was imported from `cluster` is of no job here, and may be read `until`; `exported_until` another cluster may.
    """

    id: str = ""
    job_id: str | None = ""
    project_id: str = ""
    replica: int = 0
    attempt: int = 0
    reason: str = ""
    step: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    files: int = 0
    size_bytes: int = 0
    new_bytes: int = 0
    stored_bytes: int = 0
    parts: int = 1
    damaged: bool = False
    created_at: datetime | None = None
    url: str = ""
    cluster: str = ""
    until: datetime | None = None
    exported_until: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Ticket(Answer):
    """By which another cluster may read a checkpoint `until` then: text that holds no secret."""

    ticket: str = ""
    until: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class CheckpointKey(Answer):
    """What another cluster's operator names to have checkpoints of this one imported there."""

    public_key: str = ""
    store_url: str = ""


@dataclass(frozen=True, kw_only=True)
class Gpu(Answer):
    """A device of a node: what it is, what is held of it, and what it last measured."""

    index: int = 0
    uuid: str = ""
    model: str = ""
    memory_bytes: int = 0
    milli_used: int = 0
    utilisation_percent: int | None = None
    memory_used_bytes: int | None = None
    temperature_c: int | None = None
    power_w: int | None = None
    healthy: bool = True
    quarantine: Mapping[str, Any] | None = None
    numa: int = 0
    links: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Node(Answer):
    """A machine that runs jobs."""

    id: str = ""
    name: str = ""
    hostname: str = ""
    state: str = ""
    isolation: str = ""
    isolation_detail: str = ""
    cpu_milli: int = 0
    cpu_milli_used: int = 0
    memory_bytes: int = 0
    memory_bytes_used: int = 0
    profile: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Mapping[str, str], ...] = ()
    domains: Mapping[str, str] = field(default_factory=dict)
    pool: str | None = None
    spot: bool = False
    usd_per_hour: float = 0.0
    caches: tuple[str, ...] = ()
    cordon_reason: str = ""
    drain: Mapping[str, Any] | None = None
    quarantine: Mapping[str, Any] | None = None
    findings: tuple[Mapping[str, Any], ...] = ()
    load_percent: int | None = None
    disk_free_bytes: int | None = None
    jobs_left: int = 0
    last_seen_at: datetime | None = None
    gpus: tuple[Gpu, ...] = ()
    jobs: tuple[Mapping[str, Any], ...] = ()
    version: int = 0


@dataclass(frozen=True, kw_only=True)
class Kind(Answer):
    """Nodes with equal hardware: what one of them has; `held` is what is held of all of them."""

    gpu_model: str = ""
    gpus: int = 0
    cpu_milli: int = 0
    memory_bytes: int = 0
    nodes: int = 0
    nodes_ready: int = 0
    held: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Queue(Answer):
    """A named queue; `pending` and `running` count jobs, `held` is what those hold."""

    id: str = ""
    name: str = ""
    project_id: str | None = None
    state: str = ""
    weight: int = 1
    policy: str = ""
    second_policy: str = ""
    pool: str | None = None
    most: Mapping[str, int] = field(default_factory=dict)
    most_running: int | None = None
    pending: int = 0
    running: int = 0
    held: Mapping[str, int] = field(default_factory=dict)
    waiting_since: datetime | None = None
    version: int = 0


@dataclass(frozen=True, kw_only=True)
class Organisation(Answer):
    """Holds projects."""

    id: str = ""
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class Project(Answer):
    """Owns jobs and has members; `role` is the caller's own, where the answer says it."""

    id: str = ""
    name: str = ""
    organisation_id: str = ""
    organisation: str = ""
    role: str = ""
    version: int = 0


@dataclass(frozen=True, kw_only=True)
class Member(Answer):
    """A user's role in a project."""

    user_id: str = ""
    username: str = ""
    role: str = ""


@dataclass(frozen=True, kw_only=True)
class User(Answer):
    """A person who may sign in."""

    id: str = ""
    username: str = ""
    platform_admin: bool = False
    version: int = 0


@dataclass(frozen=True, kw_only=True)
class ApiKey(Answer):
    """A key; `key` is the secret itself, present only in the answer that made it."""

    id: str = ""
    name: str = ""
    prefix: str = ""
    created_at: datetime | None = None
    expires_at: datetime | None = None
    key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class ServiceAccount(Answer):
    """A program's own account in a project."""

    id: str = ""
    name: str = ""
    project_id: str = ""
    role: str = ""


@dataclass(frozen=True, kw_only=True)
class JoinToken(Answer):
    """Lets machines join as nodes; `token` is shown once."""

    id: str = ""
    token: str = field(default="", repr=False)
    expires_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class WhoAmI(Answer):
    """Who the credential belongs to, and where it reaches."""

    kind: str = ""
    id: str = ""
    name: str = ""
    platform_admin: bool = False
    projects: tuple[Project, ...] = ()


def answer(kind: type[A], body: Any) -> A:
    """The value of `kind` that a JSON object stands for; what is missing or null where it may not be is the default."""
    if not isinstance(body, Mapping):
        return kind()
    hints = _hints(kind)  # type: ignore[arg-type]  # a class is hashable; mypy doubts it for a bound variable
    read = {name: _read(hints[name], body[name]) for name in hints if name in body and name != "raw"}
    return kind(raw=body, **{name: value for name, value in read.items() if value is not _ABSENT})


def plain(value: Any) -> Any:
    """An answer (or a tree of them) as the JSON that it came from, for programs that print it on."""
    if isinstance(value, Answer):
        return value.raw
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


_ABSENT = object()


@cache
def _hints(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {f.name: hints[f.name] for f in fields(kind)}


def _read(kind: Any, value: Any) -> Any:
    inner = get_args(kind)
    if get_origin(kind) in (Union, UnionType):
        return None if value is None else _read(next(k for k in inner if k is not type(None)), value)
    if value is None:
        return _ABSENT
    if get_origin(kind) is tuple:
        return tuple(_read(inner[0], item) for item in value) if isinstance(value, list) else _ABSENT
    if kind is datetime:
        return _time(value)
    if kind is str:
        return str(value)
    if is_dataclass(kind):
        return answer(cast("type[Answer]", kind), value)  # every dataclass named in a hint above is one
    return value


def _time(value: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(str(value))
    except ValueError:
        return None
