"""What a user asked for: frozen, checked for shape by the schema, kept with the job word for word."""

import hashlib
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any
from uuid import UUID

from trellis.vocabulary import Cause, DependencyKind, ExecutorKind, NetworkPolicy

# What is tried again without being asked: the fault was the platform's, not the program's.
PLATFORM_CAUSES = frozenset({Cause.NODE_LOST, Cause.NODE_STOPPED})


@dataclass(frozen=True, slots=True)
class Resources:
    """What each replica needs; 1000 milli are one whole."""

    cpu_milli: int = 1000
    memory_bytes: int = 1 << 30
    gpu_milli: int = 0
    gpu_type: str = ""


@dataclass(frozen=True, slots=True)
class Retries:
    """How often to try again after one of the causes `on`, waiting `backoff_s`, doubled each time, at most `max_backoff_s`."""

    limit: int = 0
    backoff_s: int = 5
    max_backoff_s: int = 600
    on: tuple[Cause, ...] = (Cause.EXIT_CODE, Cause.SIGNAL, Cause.OUT_OF_MEMORY, Cause.START_FAILED)


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
class JobSpec:
    """One submission. Exactly one of `command` and `script` is set."""

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

    def stored(self) -> dict[str, Any]:
        """What of it the job keeps beyond its own columns."""
        kept = {name: getattr(self, name) for name in _STORED}
        kept["resources"] = _plain(self.resources)
        kept["retries"] = _plain(self.retries)
        return kept

    def default_name(self) -> str:
        """A name for a job that was given none: its program's."""
        word = self.command[0].rsplit("/", 1)[-1] if self.command else self.script_name
        return word[:200] or "job"


# What has columns or rows of its own is not stored twice.
_STORED = [f.name for f in fields(JobSpec)
           if f.name not in ("project", "depends_on", "array", "dry_run", "deadline_at", "labels")]  # fmt: skip


def _plain(value: Resources | Retries) -> dict[str, Any]:
    return {f.name: getattr(value, f.name) for f in fields(value)}


def class_key(spec: JobSpec, project_id: UUID, queue_id: UUID, actor_id: UUID | None) -> str:
    """Equal for jobs that are equal in everything the scheduler looks at but their age."""
    parts = (
        project_id,
        queue_id,
        actor_id,
        spec.priority,
        spec.replicas,
        *_plain(spec.resources).values(),
        spec.time_limit_s,
    )
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()
