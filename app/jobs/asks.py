"""What a job asks of the scheduler beyond the columns of its row, said in one way: equal wishes are equal JSON."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Self
from uuid import UUID

from app.core.constraints import KNOWN_TO_SCHEDULER, Constraints
from app.jobs.spec import JobSpec, RoleSpec
from trellis.vocabulary import Isolation
from trellis.wire import pack, unpack


@dataclass(frozen=True, slots=True)
class RoleAsks:
    """So many replicas alike, each with this; see `scheduler.snapshot.Role`."""

    least: int
    most: int
    cpu_milli: int
    memory_bytes: int
    gpu_milli: int = 0
    gpu_types: tuple[str, ...] = ()
    mig_profile: str = ""


@dataclass(frozen=True, slots=True)
class Asks:
    """`roles` is empty where the columns say it all; `labels` are those of the job that affinities may speak of."""

    roles: tuple[RoleAsks, ...] = ()
    constraints: Constraints = field(default_factory=Constraints)
    labels: dict[str, str] = field(default_factory=dict)
    preemptible: bool = True
    checkpointable: bool = False

    def stored(self) -> dict[str, Any] | None:
        """As JSON, without what is as it is by default; None for a plain job, which costs its row nothing."""
        kept: dict[str, Any] = {"roles": pack(self.roles)} if self.roles else {}
        if constraints := self.constraints.stored():
            kept["constraints"] = constraints
        if self.labels:
            kept["labels"] = self.labels
        if not self.preemptible:
            kept["preemptible"] = False
        if self.checkpointable:
            kept["checkpointable"] = True
        return kept or None

    @classmethod
    def read(cls, stored: dict[str, Any] | None) -> Self:
        """What `stored` wrote."""
        return unpack(cls, stored or {})


def asks_of(spec: JobSpec, pool_id: UUID | None) -> Asks:
    """What a submission asks for; `pool_id` is that of the pool which its constraints name."""
    known = {name: value for name, value in spec.labels.items() if name.startswith(KNOWN_TO_SCHEDULER)}
    parts = spec.parts()
    constraints = spec.constraints.settled("" if pool_id is None else str(pool_id))
    if spec.in_containers:  # which keep a job in as far as the strongest level does, whatever the node's own is
        constraints = replace(constraints, container=True, min_isolation=Isolation.BASIC)
    return Asks(
        () if len(parts) == 1 and _in_columns(parts[0]) else tuple(map(_role, parts)),
        constraints,
        known,
        spec.preemptible,
        spec.checkpointable,
    )


def class_key(spec: JobSpec, place: Iterable[UUID | None], asks: dict[str, Any] | None) -> str:
    """Equal for jobs that are equal in everything the scheduler looks at but age and deadline, and for no others.

    `place` is the project, the queue and the actor; `asks` what is stored of its wishes.
    """
    each = spec.largest()
    parts = (
        *place, spec.priority, count(spec), each.cpu_milli, each.memory_bytes, each.gpu_milli, each.gpu_type,
        spec.time_limit_s,
    )  # fmt: skip
    return _digest(parts, asks)


def key_of(row: Any) -> str:
    """The same of a row of `jobs` whose asks have changed."""
    parts = (
        row.project_id, row.queue_id, row.actor_id, row.priority, row.replicas, row.cpu_milli, row.memory_bytes,
        row.gpu_milli, row.gpu_model, row.time_limit_s,
    )  # fmt: skip
    return _digest(parts, row.asks)


def _digest(parts: tuple[Any, ...], asks: dict[str, Any] | None) -> str:
    said = repr(parts) if asks is None else repr(parts) + json.dumps(asks, sort_keys=True)
    return hashlib.blake2b(said.encode(), digest_size=16).hexdigest()


def count(spec: JobSpec) -> int:
    """The fewest replicas that it starts with, of all its roles."""
    return sum(role.replicas for role in spec.parts())


def roles_in(row: Any) -> tuple[RoleAsks, ...]:
    """The roles of a row of `jobs`, whether its columns say them or its asks."""
    if row.asks is not None and "roles" in row.asks:
        return Asks.read({"roles": row.asks["roles"]}).roles
    models = (row.gpu_model,) if row.gpu_model else ()
    return (RoleAsks(row.replicas, row.replicas, row.cpu_milli, row.memory_bytes, row.gpu_milli, models),)


def is_exclusive(row: Any) -> bool:
    """Whether the job of a row of `jobs` suffers no other on its nodes."""
    return row.asks is not None and bool(row.asks.get("constraints", {}).get("exclusive"))


def _in_columns(role: RoleSpec) -> bool:
    return role.most == role.replicas and not role.resources.gpu_types and not role.resources.mig_profile


def _role(role: RoleSpec) -> RoleAsks:
    each = role.resources
    return RoleAsks(
        role.replicas, role.most, each.cpu_milli, each.memory_bytes, each.gpu_milli, each.models, each.mig_profile
    )
