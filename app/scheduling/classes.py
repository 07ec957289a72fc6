"""What jobs ask, in the scheduler's words: one `JobClass` for all whose rows have one key."""

from dataclasses import dataclass, field
from typing import Any

from app.core.constraints import Affinity, Constraints, Preference, Term, toleration
from app.jobs.asks import Asks, RoleAsks, roles_in
from scheduler import snapshot as plain
from trellis.vocabulary import Isolation

# Stronger is higher: a job may ask for at least so much.
ISOLATION = {Isolation.BASIC: 0, Isolation.LANDLOCK: 1, Isolation.NAMESPACES: 2}


@dataclass(slots=True)
class Classes:
    """One `JobClass` object for all jobs that are equal to the scheduler, and the keys they have in their rows."""

    keys: dict[plain.JobClass, str] = field(default_factory=dict)
    _known: dict[str, plain.JobClass] = field(default_factory=dict)

    def of(self, row: Any) -> plain.JobClass:
        """The class of a row of `jobs`."""
        known = self._known.get(row.class_key)
        if known is None:
            known = self._known[row.class_key] = job_class_of(row)
            self.keys[known] = row.class_key
        return known


def job_class_of(row: Any) -> plain.JobClass:
    """The class of a row of `jobs`, made anew."""
    asks = _NOTHING if row.asks is None else Asks.read(row.asks)
    return plain.JobClass(
        project_id=str(row.project_id),
        queue_id=str(row.queue_id),
        roles=tuple(map(_role, asks.roles or roles_in(row))),
        priority=row.priority,
        time_limit_s=row.time_limit_s,
        user_id=str(row.actor_id or ""),
        constraints=plain.ANYWHERE if row.asks is None else constraints_of(asks.constraints),
        labels=_pairs(asks.labels),
        preemptible=asks.preemptible,
        checkpointable=asks.checkpointable,
    )


def constraints_of(said: Constraints) -> plain.Constraints:
    """Settled constraints in the scheduler's words."""
    return plain.Constraints(
        pool_id=said.pool,
        selector=tuple(map(_term, said.selector)),
        tolerations=tuple(plain.Toleration(*toleration(text)) for text in said.tolerates),
        prefers=tuple(plain.Preference(wish.weight, _term(wish)) for wish in said.prefers),
        affinities=(
            *(_affinity(one, apart=False) for one in said.affinity),
            *(_affinity(one, apart=True) for one in said.anti_affinity),
        ),
        exclusive=said.exclusive,
        within=said.topology.level,
        within_required=said.topology.required,
        strategy=plain.Strategy(said.strategy),
        spot=said.spot,
        min_isolation=ISOLATION[said.min_isolation],
        data=said.data,
        container=said.container,
    )


_NOTHING = Asks()


def request_of(role: RoleAsks) -> plain.Request:
    """What each replica of a role needs."""
    return plain.Request(role.cpu_milli, role.memory_bytes, role.gpu_milli, role.gpu_types, role.mig_profile)


def _role(role: RoleAsks) -> plain.Role:
    return plain.Role(request_of(role), role.least, role.most)


def _term(said: Term | Preference) -> plain.Term:
    return plain.Term(said.label, plain.Operator(said.operator), said.values)


def _affinity(said: Affinity, *, apart: bool) -> plain.Affinity:
    return plain.Affinity(_pairs(said.labels), said.level, apart, said.required)


def _pairs(labels: dict[str, str]) -> plain.Labels:
    return tuple(sorted(labels.items()))
