"""What a user asked for: frozen, checked for shape by the schema, kept with the job word for word."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any
from uuid import UUID

from app.core.amounts import NAMES, NOTHING, Amounts
from app.core.constraints import Constraints
from app.storage.retention import Keep
from scheduler.amounts import slice_milli
from trellis.vocabulary import (
    Cause,
    CheckpointBy,
    DependencyKind,
    ExecutorKind,
    HangAction,
    MetricMode,
    NetworkPolicy,
    OnNodeLost,
    OnReplicaFailure,
    OnResize,
    PullPolicy,
)

# What is tried again without being asked: the fault was the platform's, not the program's.
PLATFORM_CAUSES = frozenset({Cause.NODE_LOST, Cause.NODE_STOPPED, Cause.RENDEZVOUS_FAILED, Cause.NODE_FAULT})


@dataclass(frozen=True, slots=True)
class Resources:
    """What each replica needs; 1000 milli are one whole.

    `gpu_type` is the one model that will do, `gpu_types` are they where several will; `mig_profile` asks for one slice
    of a partitioned device in place of `gpu_milli`.
    """

    cpu_milli: int = 1000
    memory_bytes: int = 1 << 30
    gpu_milli: int = 0
    gpu_type: str = ""
    gpu_types: tuple[str, ...] = ()
    mig_profile: str = ""

    def __mul__(self, count: int) -> Amounts:
        """What so many replicas hold, as quotas count it."""
        gpu_milli = slice_milli(self.mig_profile) if self.mig_profile else self.gpu_milli
        return Amounts(self.cpu_milli, self.memory_bytes, gpu_milli) * count

    @property
    def models(self) -> tuple[str, ...]:
        """The models of GPU that will do; none: any."""
        return self.gpu_types or ((self.gpu_type,) if self.gpu_type else ())


@dataclass(frozen=True, slots=True)
class RoleSpec:
    """Replicas of a job that are alike: `replicas` of them at the least, up to `max_replicas` where there is room."""

    name: str
    resources: Resources = field(default_factory=Resources)
    replicas: int = 1
    max_replicas: int | None = None
    command: tuple[str, ...] | None = None
    image: str = ""

    @property
    def most(self) -> int:
        """How many there may be."""
        return self.max_replicas or self.replicas


@dataclass(frozen=True, slots=True)
class RetryRule:
    """How often to try again, and how long to wait before: `backoff_s`, times `backoff_factor` after each try, at most
    `max_backoff_s`; up to `jitter_percent` of that more or less, so that many jobs do not come back at once.
    """

    limit: int = 0
    backoff_s: int = 5
    max_backoff_s: int = 600
    backoff_factor: int = 2
    jitter_percent: int = 0

    def delay_s(self, tried: int, chance: float) -> int:
        """How long to wait after `tried` tries before this one; `chance` is drawn from 0 to 1."""
        # The exponent is bounded: a large one would make a number of thousands of digits to be cut off again.
        pause: int = min(self.backoff_s * self.backoff_factor ** min(tried, 40), self.max_backoff_s)
        return round(pause * (1 + self.jitter_percent / 100 * (2 * chance - 1)))


@dataclass(frozen=True, slots=True)
class Retries(RetryRule):
    """The rule for the causes `on`, and rules `by_cause` that go before it and count their own tries alone.

    `exit_codes`, where there are any, are those of `exit_code` that are tried again at all.
    """

    on: tuple[Cause, ...] = (Cause.EXIT_CODE, Cause.SIGNAL, Cause.OUT_OF_MEMORY, Cause.START_FAILED)
    exit_codes: tuple[int, ...] = ()
    by_cause: tuple[tuple[Cause, RetryRule], ...] = ()

    def own_rule(self, cause: Cause | None) -> RetryRule | None:
        """The rule for that cause alone."""
        return next((rule for named, rule in self.by_cause if named is cause), None)

    def stored(self) -> dict[str, Any]:
        """As JSON, without what most jobs leave as it is."""
        kept = _plain_but(self, "by_cause", "on", "exit_codes", "backoff_factor", "jitter_percent") | {"on": self.on}
        if self.exit_codes:
            kept["exit_codes"] = self.exit_codes
        if (self.backoff_factor, self.jitter_percent) != (2, 0):
            kept |= {"backoff_factor": self.backoff_factor, "jitter_percent": self.jitter_percent}
        if self.by_cause:
            kept["by_cause"] = {str(cause): _plain_but(rule) for cause, rule in self.by_cause}
        return kept

    @classmethod
    def read(cls, kept: dict[str, Any]) -> "Retries":
        """What `stored` wrote."""
        rules = tuple((Cause(word), RetryRule(**rule)) for word, rule in kept.get("by_cause", {}).items())
        lists = {"on": tuple(map(Cause, kept["on"])), "exit_codes": tuple(kept.get("exit_codes", ()))}
        return cls(**kept | lists | {"by_cause": rules})


@dataclass(frozen=True, slots=True)
class DependencySpec:
    """Which job must have ended, and how."""

    job: UUID
    kind: DependencyKind = DependencyKind.AFTER_SUCCESS


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """Which elements, and how many of them may run at once (0: as many as fit)."""

    indexes: tuple[int, ...]
    max_parallel: int = 0


@dataclass(frozen=True, slots=True)
class CodeSpec:
    """The bundle that a job runs in, and the file of it that names the packages to run with; the rest is looked up."""

    id: UUID
    requirements: str = ""
    digest: str = ""
    size_bytes: int = 0
    files: int = 0

    def stored(self) -> dict[str, Any]:
        """As JSON."""
        kept = {"id": str(self.id), "digest": self.digest, "size_bytes": self.size_bytes, "files": self.files}
        return kept | ({"requirements": self.requirements} if self.requirements else {})


@dataclass(frozen=True, slots=True)
class CheckpointSpec:
    """When a job saves what it can go on from, and what of it is kept (see `trellis.wire.CheckpointPlan`).

    `fresh_start`: where the checkpoint that the job names can't be restored, it starts without.
    """

    every_s: int = 600
    settle_s: int = 5
    keep: Keep = field(default_factory=Keep)
    by: CheckpointBy = CheckpointBy.RANK0
    fresh_start: bool = False

    def stored(self) -> dict[str, Any]:
        """As JSON."""
        keep = {f.name: getattr(self.keep, f.name) for f in fields(Keep)}
        kept: dict[str, Any] = {"every_s": self.every_s, "settle_s": self.settle_s, "keep": keep}
        kept |= {} if self.by is CheckpointBy.RANK0 else {"by": self.by}
        return kept | ({"fresh_start": True} if self.fresh_start else {})

    @classmethod
    def read(cls, kept: dict[str, Any]) -> "CheckpointSpec":
        """What `stored` wrote."""
        keep = dict(kept["keep"])
        keep["mode"] = MetricMode(keep["mode"])
        by = CheckpointBy(kept.get("by", CheckpointBy.RANK0))
        return cls(kept["every_s"], kept["settle_s"], Keep(**keep), by, kept.get("fresh_start", False))


@dataclass(frozen=True, slots=True)
class JobSpec:
    """One submission. Exactly one of `command` and `script` is set, or every role has a command of its own.

    `replicas` is the fewest that it starts with. With `roles` these say what replicas there are and what each needs.
    One that does nothing for `hang_after_s` is dealt with by `hang_action`; 0: never, None: as its project says.
    """

    name: str = ""
    project: str = ""
    queue: str = "default"
    command: tuple[str, ...] | None = None
    script: str | None = None
    script_name: str = "script"
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    resources: Resources = field(default_factory=Resources)
    replicas: int = 1
    priority: int = 0
    time_limit_s: int | None = None
    grace_s: int = 10
    deadline_at: datetime | None = None
    depends_on: tuple[DependencySpec, ...] = ()
    array: ArraySpec | None = None
    retries: Retries = field(default_factory=Retries)
    labels: dict[str, str] = field(default_factory=dict)
    network: NetworkPolicy = NetworkPolicy.NONE
    executor: ExecutorKind = ExecutorKind.PROCESS
    dry_run: bool = False
    max_replicas: int | None = None
    roles: tuple[RoleSpec, ...] = ()
    constraints: Constraints = field(default_factory=Constraints)
    preemptible: bool = True
    checkpointable: bool = False
    on_node_lost: OnNodeLost = OnNodeLost.REQUEUE
    on_replica_failure: OnReplicaFailure = OnReplicaFailure.FAIL
    on_resize: OnResize = OnResize.JOIN
    warn_signal: str = ""
    warn_before_s: int = 60
    debug: bool = False
    hang_after_s: int | None = None
    hang_action: HangAction = HangAction.WARN
    code: CodeSpec | None = None
    checkpoint: CheckpointSpec | None = None
    from_checkpoint: UUID | None = None
    image: str = ""
    pull: PullPolicy = PullPolicy.MISSING
    read_only_root: bool = True
    features: Mapping[str, bool] = field(default_factory=dict)

    @property
    def in_containers(self) -> bool:
        """Whether all or some of its replicas run in containers."""
        return bool(self.image or any(role.image for role in self.roles))

    def stored(self) -> dict[str, Any]:
        """What of it the job keeps beyond its own columns."""
        kept = {name: getattr(self, name) for name in _STORED}
        kept["resources"] = _plain(self.resources)
        kept["retries"] = self.retries.stored()
        kept |= {name: value for name, usual in _SELDOM.items() if (value := getattr(self, name)) != usual}
        if self.roles:
            kept["roles"] = [_plain(role) | {"resources": _plain(role.resources)} for role in self.roles]
        if constraints := self.constraints.stored():
            kept["constraints"] = constraints
        if self.code:
            kept["code"] = self.code.stored()
        if self.checkpoint:
            kept["checkpoint"] = self.checkpoint.stored()
        if self.from_checkpoint:
            kept["from_checkpoint"] = str(self.from_checkpoint)
        return kept

    def default_name(self) -> str:
        """A name for a job that was given none: its program's."""
        command = self.command or next((role.command for role in self.roles if role.command), None)
        word = command[0].rsplit("/", 1)[-1] if command and self.script is None else self.script_name
        return word[:200] or "job"

    def parts(self) -> tuple[RoleSpec, ...]:
        """Its roles; those replicas that are of no role are one without a name."""
        return self.roles or (RoleSpec("", self.resources, self.replicas, self.max_replicas),)

    def least(self) -> Amounts:
        """What it holds at the least once it runs."""
        return sum((role.resources * role.replicas for role in self.parts()), NOTHING)

    def largest(self) -> Resources:
        """What no replica needs more of."""
        if not self.roles:
            return self.resources
        most = {name: max(getattr(role.resources, name) for role in self.roles) for name in NAMES}
        models = {model for role in self.roles for model in role.resources.models}
        return Resources(**most, gpu_type=models.pop() if len(models) == 1 else "")


# Of every job; the rest is kept only where it is not as usual, for most jobs have none of it.
_STORED = (
    "name", "queue", "command", "script", "script_name", "arguments", "environment", "replicas", "priority",
    "time_limit_s", "grace_s", "network", "executor",
)  # fmt: skip
_SELDOM = {
    "max_replicas": None, "preemptible": True, "checkpointable": False, "on_node_lost": OnNodeLost.REQUEUE,
    "warn_signal": "", "warn_before_s": 60, "debug": False, "image": "", "pull": PullPolicy.MISSING,
    "read_only_root": True,
    "on_replica_failure": OnReplicaFailure.FAIL, "on_resize": OnResize.JOIN,
    "hang_after_s": None, "hang_action": HangAction.WARN,
}  # fmt: skip
_SELDOM_OF_PARTS = ("gpu_types", "mig_profile", "image")


def _plain_but(value: RetryRule, *left_out: str) -> dict[str, Any]:
    return {f.name: getattr(value, f.name) for f in fields(value) if f.name not in left_out}


def _plain(value: Resources | RoleSpec) -> dict[str, Any]:
    kept = {f.name: getattr(value, f.name) for f in fields(value)}
    return {name: each for name, each in kept.items() if each or name not in _SELDOM_OF_PARTS}
