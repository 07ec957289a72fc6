"""The body of a submission, the same through HTTP and through Celery."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypedDict

from trellis.answers import Job


class ResourcesBody(TypedDict, total=False):
    """What one replica needs; amounts as people write them (`"500m"`, `"2GiB"`)."""

    cpus: int | float | str
    memory: int | str
    gpus: int | float | str
    gpu_type: str | Sequence[str]
    mig_profile: str


class TermBody(TypedDict, total=False):
    """A condition on one label of a node; `operator` is a `TermOperator`, `in` when left out."""

    label: str
    operator: str
    values: Sequence[str]


class PreferenceBody(TermBody, total=False):
    """A condition that is worth `weight` (1 to 100) where it holds."""

    weight: int


class AffinityBody(TypedDict, total=False):
    """Replicas of the project's jobs with all of `labels` (whose names begin with `placement/`)."""

    labels: Mapping[str, str]
    level: str
    required: bool


class TopologyBody(TypedDict, total=False):
    """All replicas in one domain of `level`; if not `required`, in as few as there can be."""

    level: str
    required: bool


class ConstraintsBody(TypedDict, total=False):
    """Where replicas may run, and where they had better: see the guide on placement."""

    exclusive: bool
    pool: str
    labels: Mapping[str, str]
    tolerates: Sequence[str]
    selector: Sequence[TermBody]
    prefers: Sequence[PreferenceBody]
    affinity: Sequence[AffinityBody]
    anti_affinity: Sequence[AffinityBody]
    topology: TopologyBody
    strategy: str
    spot: bool
    min_isolation: str
    data: Sequence[str]


class RoleBody(TypedDict, total=False):
    """Replicas of a job that are alike; so many `replicas`, or from `min_replicas` to `max_replicas`."""

    name: str
    resources: ResourcesBody
    replicas: int
    min_replicas: int
    max_replicas: int
    command: Sequence[str]
    image: str


class SecurityBody(TypedDict, total=False):
    """What of a container's keeping in is not as always."""

    read_only_root: bool


class DependencyBody(TypedDict, total=False):
    """A job to wait for; `kind` is a `DependencyKind`, `after_success` when left out."""

    job: str
    kind: str


class ArrayBody(TypedDict, total=False):
    """One job an index: `indexes` such as `"0-9,12,20-40:2"`."""

    indexes: str
    max_parallel: int


class RetryRuleBody(TypedDict, total=False):
    """How often to try again, and after which pauses: each `backoff_factor` times the one before, give or take."""

    limit: int
    backoff_s: int | str
    max_backoff_s: int | str
    backoff_factor: int
    jitter_percent: int


class RetriesBody(RetryRuleBody, total=False):
    """When and how often a failed job is tried again.

    `on` lists `Cause` words; of exit codes `exit_codes` alone are tried again; rules `by_cause` count their own tries.
    """

    on: Sequence[str]
    exit_codes: Sequence[int]
    by_cause: Mapping[str, RetryRuleBody]


class KeepBody(TypedDict, total=False):
    """Which checkpoints are kept: the newest `last`, the first of each hour for `hours`, the `best` by `metric`."""

    last: int
    hours: int
    best: int
    metric: str
    mode: str


class CheckpointBody(TypedDict, total=False):
    """`every` how long one is asked for; a folder counts as complete after `settle` without a change.

    `by` is a `CheckpointBy`: whose count where there are several replicas.
    With `fresh_start` a job whose `from_checkpoint` can't be restored starts without it.
    """

    every: int | str | timedelta
    settle: int | str | timedelta
    keep: KeepBody
    by: str
    fresh_start: bool


class JobBody(TypedDict, total=False):
    """What `submit` takes; either `command` or `script` must be there.

    `time_limit` and `grace` are seconds, text such as `"2h"`, or a timedelta; a dependency may be a `Job` or its id,
    which waits for its success.
    """

    name: str
    project: str
    queue: str
    command: Sequence[str]
    script: str
    script_name: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    resources: ResourcesBody
    replicas: int
    min_replicas: int
    max_replicas: int
    roles: Sequence[RoleBody]
    constraints: ConstraintsBody
    preemptible: bool
    checkpointable: bool
    checkpoint: CheckpointBody
    from_checkpoint: str
    priority: int
    time_limit: int | str | timedelta
    grace: int | str | timedelta
    warn_signal: str
    warn_before: int | str | timedelta
    hang_after: int | str | timedelta
    hang_action: str
    on_node_lost: str
    on_replica_failure: str
    on_resize: str
    debug: bool
    features: Mapping[str, bool]
    deadline: str | datetime
    depends_on: Sequence[str | Job | DependencyBody]
    array: ArrayBody
    retries: RetriesBody
    labels: Mapping[str, str]
    network: str
    executor: str
    image: str
    pull: str
    security: SecurityBody
    bundle: str
    requirements: str
    dry_run: bool


class AfterBody(TypedDict, total=False):
    """Another job of a workflow, by its name there; `kind` as in `DependencyBody`."""

    job: str
    kind: str


class StepBody(JobBody, total=False):
    """A job of a workflow: `name` must be there; `after` are names of others that must succeed before, or how."""

    after: Sequence[str | AfterBody]


def as_json(body: JobBody | StepBody) -> dict[str, Any]:
    """The body as plain JSON data."""
    sent: dict[str, Any] = {key: _plain(value) for key, value in body.items()}
    if "after" in sent:
        sent["after"] = [{"job": item} if isinstance(item, str) else item for item in sent["after"]]
    if "depends_on" in sent:
        sent["depends_on"] = [_dependency(item) for item in body["depends_on"]]
    return sent


def _plain(value: Any) -> Any:
    if isinstance(value, timedelta):
        return int(value.total_seconds())
    if isinstance(value, datetime):
        # A naive time is meant in the zone of whoever wrote it.
        return value.astimezone().isoformat()
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return {key: _plain(item) for key, item in value.items()} if isinstance(value, Mapping) else value


def _dependency(item: str | Job | DependencyBody) -> dict[str, Any]:
    if isinstance(item, Job):
        return {"job": item.id, "kind": "after_success"}
    if isinstance(item, str):
        return {"job": item, "kind": "after_success"}
    return {"kind": "after_success", **item}
