"""Every word that more than one process must spell the same way."""

from enum import StrEnum


class JobState(StrEnum):
    """Where a job is in its life; the legal moves are drawn in `docs/states.md`."""

    PENDING = "pending"
    QUEUED = "queued"
    SCHEDULED = "scheduled"
    STARTING = "starting"
    RUNNING = "running"
    CHECKPOINTING = "checkpointing"
    SUSPENDED = "suspended"
    PREEMPTED = "preempted"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    LOST = "lost"


class ReplicaState(StrEnum):
    """Where one member of an attempt is; also the states of the attempt itself."""

    PLACED = "placed"
    STARTING = "starting"
    RUNNING = "running"
    SUSPENDED = "suspended"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    PREEMPTED = "preempted"
    LOST = "lost"


class NodeState(StrEnum):
    """What the control plane believes of a node. Those of LIVING_NODE_STATES live; of them only `ready` takes work.

    `draining`: what runs there goes; `drained`: nothing runs there any more. `quarantined`: it is not to be trusted.
    """

    READY = "ready"
    CORDONED = "cordoned"
    DRAINING = "draining"
    DRAINED = "drained"
    QUARANTINED = "quarantined"
    UNREACHABLE = "unreachable"
    LOST = "lost"


class QuarantinedBy(StrEnum):
    """Who keeps a node or a device away from work: an operator, what its node says of its health, jobs that fail to
    start there one after the other, or a hook that failed. Only what an operator did lasts until an operator ends it.
    """

    OPERATOR = "operator"
    HEALTH = "health"
    STARTS = "starts"
    HOOK = "hook"


class Severity(StrEnum):
    """How much a finding of a node's health matters: `warning` is shown, `bad` keeps work away."""

    WARNING = "warning"
    BAD = "bad"


class TaintEffect(StrEnum):
    """What a taint on a node does to jobs that do not tolerate it: keep them away, or only rather not take them."""

    REFUSE = "refuse"
    AVOID = "avoid"


class TermOperator(StrEnum):
    """How a term compares a node's label; `above` and `below` compare as numbers and hold for no text."""

    IN = "in"
    NOT_IN = "not_in"
    EXISTS = "exists"
    ABSENT = "absent"
    ABOVE = "above"
    BELOW = "below"


class Strategy(StrEnum):
    """Which of equally liked places a replica gets: see `docs/guides/placement.md`."""

    FIT = "fit"
    PACK = "pack"
    SPREAD = "spread"
    CHEAP = "cheap"


class ReservationState(StrEnum):
    """Where a claim on a future window is in its life."""

    PLANNED = "planned"
    ACTIVE = "active"
    ENDED = "ended"
    CANCELLED = "cancelled"


class Cause(StrEnum):
    """Why an attempt ended the way it did; retry policies are written in these words."""

    EXIT_CODE = "exit_code"
    SIGNAL = "signal"
    OUT_OF_MEMORY = "out_of_memory"
    TIME_LIMIT = "time_limit"
    CANCELLED = "cancelled"
    PREEMPTED = "preempted"
    SUSPENDED = "suspended"
    MIGRATED = "migrated"
    NODE_LOST = "node_lost"
    NODE_STOPPED = "node_stopped"
    START_FAILED = "start_failed"
    ENVIRONMENT_FAILED = "environment_failed"
    RENDEZVOUS_FAILED = "rendezvous_failed"
    RESIZED = "resized"
    NODE_FAULT = "node_fault"
    HUNG = "hung"
    RESTORE_FAILED = "restore_failed"


class StopReason(StrEnum):
    """Why the control plane asks a node to end a replica; of a `surplus` one the job goes on without it.

    A `displaced` one stood still, suspended, where its room is needed for something else; `unmatched` ones were given
    different checkpoints to go on from; `resized` ones begin again together, more or fewer of them.
    """

    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    PREEMPTED = "preempted"
    SURPLUS = "surplus"
    DISPLACED = "displaced"
    MIGRATED = "migrated"
    RESIZED = "resized"
    UNMATCHED = "unmatched"
    STALE = "stale"


class HangAction(StrEnum):
    """What becomes of a job that does nothing for too long: its owner is told, it is tried again, or it fails."""

    WARN = "warn"
    RESTART = "restart"
    FAIL = "fail"


class OnNodeLost(StrEnum):
    """What becomes of a job whose node falls silent: tried elsewhere, kept until the node is back, or lost."""

    REQUEUE = "requeue"
    WAIT = "wait"
    FAIL = "fail"


class OnReplicaFailure(StrEnum):
    """What becomes of a job one of whose replicas fails: it ends, or goes on with one replica less, while it may."""

    FAIL = "fail"
    SHRINK = "shrink"


class OnResize(StrEnum):
    """How an elastic job gets more replicas or fewer: those that run stay, or all begin again from their checkpoint."""

    JOIN = "join"
    RESTART = "restart"


class CheckpointBy(StrEnum):
    """Whose checkpoints count where a job has several replicas: the first one's, which all go on from; one part of each
    replica, of the same step; or each replica's own, whatever the others have.
    """

    RANK0 = "rank0"
    ALL = "all"
    EACH = "each"


class WarnSignal(StrEnum):
    """Signals that may warn a job of its time limit, and ask it for a checkpoint."""

    USR1 = "USR1"
    USR2 = "USR2"
    INT = "INT"
    HUP = "HUP"
    TERM = "TERM"
    WINCH = "WINCH"
    CONT = "CONT"


class SaveReason(StrEnum):
    """Why a checkpoint was made: the program said it is complete, its folder came to rest, it was asked for, or the
    replica had ended.
    """

    MARKED = "marked"
    INTERVAL = "interval"
    ASKED = "asked"
    END = "end"


class MetricMode(StrEnum):
    """Which values of a metric are the better ones."""

    MIN = "min"
    MAX = "max"


class QueueState(StrEnum):
    """A paused queue accepts jobs and starts none."""

    OPEN = "open"
    PAUSED = "paused"


class DependencyKind(StrEnum):
    """What must have happened to a job before the one that waits for it may start."""

    AFTER_SUCCESS = "after_success"
    AFTER_FAILURE = "after_failure"
    AFTER_ANY = "after_any"


class GroupKind(StrEnum):
    """What many jobs may be together: elements of one submission, or steps that wait for one another."""

    ARRAY = "array"
    WORKFLOW = "workflow"


class PipelineRunState(StrEnum):
    """Where one run of a pipeline is in its life."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class StageState(StrEnum):
    """How far a stage of a run is. Its job says more while it is `running`.

    `reused`: what it made before still holds. `left_out`: this run was not to do it. `blocked`: one before it failed.
    `skipped`: the way taken did not lead by it.
    """

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    REUSED = "reused"
    LEFT_OUT = "left_out"
    FAILED = "failed"
    BLOCKED = "blocked"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"


class TriggerRule(StrEnum):
    """How the stages before one must have ended for it to begin."""

    ALL_SUCCESS = "all_success"
    ALL_DONE = "all_done"
    ONE_FAILED = "one_failed"
    ANY_SUCCESS = "any_success"
    NONE_FAILED = "none_failed"


class StageKind(StrEnum):
    """What a stage does."""

    SOURCE = "source"
    TRANSFORM = "transform"
    SINK = "sink"
    QUALITY = "quality"
    CUSTOM = "custom"
    SENSOR = "sensor"


class CatchUp(StrEnum):
    """What becomes of fire times that passed while nobody could fire: all of them, the latest alone, or none."""

    ALL = "all"
    LATEST = "latest"
    SKIP = "skip"


class BackfillState(StrEnum):
    """Whether a backfill still makes runs."""

    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"


class Role(StrEnum):
    """What a member may do in a project."""

    VIEWER = "viewer"
    MEMBER = "member"
    EXPERIMENT_OWNER = "experiment_owner"
    MODEL_DEPLOYER = "model_deployer"
    PIPELINE_OPERATOR = "pipeline_operator"
    PROJECT_ADMIN = "project_admin"


class ActorKind(StrEnum):
    """Who did it."""

    USER = "user"
    SERVICE_ACCOUNT = "service_account"
    NODE = "node"
    PEER = "peer"
    SYSTEM = "system"


class ExecutorKind(StrEnum):
    """How a node runs a replica. A node that simulates plays whatever it is given: no job asks for that."""

    PROCESS = "process"
    CONTAINER = "container"
    SIMULATED = "simulated"


class PullPolicy(StrEnum):
    """When a node fetches a container's image: when it has none of that name, each time anew, or never."""

    MISSING = "missing"
    ALWAYS = "always"
    NEVER = "never"


class NetworkPolicy(StrEnum):
    """What a job may reach: nothing beyond its own loopback, or what its host reaches."""

    NONE = "none"
    HOST = "host"


class Isolation(StrEnum):
    """How far a node keeps a job from the platform and from other jobs, strongest first.

    `namespaces`: bubblewrap; own view of files, processes and network.
    `landlock`: the kernel refuses files outside the job's own; processes and network are shared.
    `basic`: a clean environment and resource limits; files of the job's user are in reach.
    """

    NAMESPACES = "namespaces"
    LANDLOCK = "landlock"
    BASIC = "basic"


class Stream(StrEnum):
    """Where a log line came from."""

    STDOUT = "stdout"
    STDERR = "stderr"
    SYSTEM = "system"


ENDED_JOB_STATES = frozenset(
    {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.TIMED_OUT, JobState.LOST}
)
LIVING_NODE_STATES = frozenset(set(NodeState) - {NodeState.UNREACHABLE, NodeState.LOST})
ENDED_REPLICA_STATES = frozenset(
    set(ReplicaState) - {ReplicaState.PLACED, ReplicaState.STARTING, ReplicaState.RUNNING, ReplicaState.SUSPENDED}
)
