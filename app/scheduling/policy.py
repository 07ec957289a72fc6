"""How the platform schedules: versioned rows, changed as a whole, in force from the next cycle on."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import select

from app.core.access import Permission
from app.core.locks import wait_lock
from app.core.paging import Page, PageRequest, page
from app.core.uow import UnitOfWork
from app.scheduling.models import PolicyVersion
from scheduler import config
from scheduler.config import BackfillOrder, Config
from scheduler.policies import POLICIES
from trellis.errors import Field, Invalid, NotFound, StaleVersion

_USUAL = Config()  # what the scheduler does by itself is what the platform does where nobody has said anything


@dataclass(frozen=True, slots=True)
class FairShare:
    """Past use counts `decay_factor_milli` thousandths of itself for every `window_hours` that it lies back."""

    window_hours: int = 168
    decay_factor_milli: int = 500


@dataclass(frozen=True, slots=True)
class Preemption:
    """A victim's priority is at least `priority_threshold` lower, it has run `min_run_time_s`, was evicted fewer than
    `max_preemptions` times, and gets `grace_period_s` to end.
    """

    grace_period_s: int = int(_USUAL.preemption.grace_s)
    priority_threshold: int = _USUAL.preemption.priority_threshold
    max_preemptions: int = _USUAL.preemption.max_preemptions
    min_run_time_s: int = int(_USUAL.preemption.min_run_s)


@dataclass(frozen=True, slots=True)
class Backfill:
    """`order`: in which order jobs are tried that may pass a blocked one, `queue` or `shortest`. They delay none of the
    first `reserved_heads` blocked ones of a queue; None: none at all.
    """

    order: str = str(_USUAL.backfill_order)
    reserved_heads: int | None = _USUAL.reserved_heads
    use_predictions: bool = _USUAL.predictions


@dataclass(frozen=True, slots=True)
class SchedulingPolicy:
    """Everything there is to decide. `scheduling_interval_ms` lies at least between two cycles; a job gains
    `ageing_per_hour_milli` thousandths of a priority each hour that it waits; moving a job costs it `restart_cost_s`;
    `patience_s` after it came is when a job without a deadline is to start, under the deadline policy; a job of twice
    the size ranks as if it had come `size_lead_s` earlier, under the gang policy; one that is expected to run twice as
    long as if it had come `stand_back_s` later, under the slowdown policy; `max_placements` bounds one cycle.
    """

    primary_policy: str = _USUAL.policy
    secondary_policy: str = _USUAL.second_policy
    enable_preemption: bool = _USUAL.preemption.enabled
    enable_backfill: bool = _USUAL.backfill
    enable_gang_scheduling: bool = _USUAL.gangs
    enable_reclaim: bool = _USUAL.reclaim
    enable_consolidation: bool = _USUAL.consolidate
    enable_elastic: bool = _USUAL.elastic
    scheduling_interval_ms: int = 40
    ageing_per_hour_milli: int = int(_USUAL.ageing_per_hour * 1000)
    restart_cost_s: int = int(_USUAL.restart_s)
    patience_s: int = int(_USUAL.patience_s)
    size_lead_s: int = int(_USUAL.size_lead_s)
    stand_back_s: int = int(_USUAL.stand_back_s)
    max_placements: int = _USUAL.max_placements
    fair_share: FairShare = field(default_factory=FairShare)
    preemption: Preemption = field(default_factory=Preemption)
    backfill: Backfill = field(default_factory=Backfill)

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> "SchedulingPolicy":
        """What was stored; what an older version did not know is as it is by default."""
        parts = {"fair_share": FairShare, "preemption": Preemption, "backfill": Backfill}
        said = {name: parts[name](**value) if name in parts else value for name, value in stored.items()}
        return cls(**said)


@dataclass(frozen=True, slots=True)
class InForce:
    """A policy and the number of its version; 0: what holds where nobody has said anything."""

    version: int
    policy: SchedulingPolicy


def load_policy(uow: UnitOfWork) -> Config:
    """The policy in force as the scheduler's configuration."""
    return config_of(policy_in_force(uow).policy)


def config_of(policy: SchedulingPolicy) -> Config:
    """What a policy tells the scheduler."""
    preemption, backfill = policy.preemption, policy.backfill
    return Config(
        policy=policy.primary_policy,
        second_policy=policy.secondary_policy,
        backfill=policy.enable_backfill,
        backfill_order=BackfillOrder(backfill.order),
        reserved_heads=backfill.reserved_heads,
        predictions=backfill.use_predictions,
        gangs=policy.enable_gang_scheduling,
        preemption=config.Preemption(
            enabled=policy.enable_preemption,
            grace_s=float(preemption.grace_period_s),
            priority_threshold=preemption.priority_threshold,
            max_preemptions=preemption.max_preemptions,
            min_run_s=float(preemption.min_run_time_s),
        ),
        reclaim=policy.enable_reclaim,
        consolidate=policy.enable_consolidation,
        elastic=policy.enable_elastic,
        restart_s=float(policy.restart_cost_s),
        ageing_per_hour=policy.ageing_per_hour_milli / 1000,
        patience_s=float(policy.patience_s),
        size_lead_s=float(policy.size_lead_s),
        stand_back_s=float(policy.stand_back_s),
        max_placements=policy.max_placements,
    )


def policy_in_force(uow: UnitOfWork) -> InForce:
    """The newest version."""
    newest = select(PolicyVersion).order_by(PolicyVersion.number.desc()).limit(1)
    row = uow.session.execute(newest).scalar_one_or_none()
    return InForce(0, SchedulingPolicy()) if row is None else InForce(row.number, SchedulingPolicy.read(row.body))


def get_policy(uow: UnitOfWork, version: int | None) -> InForce:
    """That version, or the one in force. Raises NotFound."""
    uow.require(Permission.POLICY_READ)
    if version is None:
        return policy_in_force(uow)
    if version == 0:
        return InForce(0, SchedulingPolicy())
    row = uow.session.execute(select(PolicyVersion).where(PolicyVersion.number == version)).scalar_one_or_none()
    if row is None:
        raise NotFound(f"there is no version {version} of the policy")
    return InForce(row.number, SchedulingPolicy.read(row.body))


def change_policy(uow: UnitOfWork, policy: SchedulingPolicy, expected: int | None) -> InForce:
    """Put a policy in force, whole; one that is in force already makes no version.

    Raises: Invalid for the name of no policy, StaleVersion where another version than `expected` is in force.
    """
    uow.require(Permission.POLICY_WRITE)
    for name in ("primary_policy", "secondary_policy"):
        if getattr(policy, name) not in POLICIES:
            raise Invalid(Field(f"/{name}", f"is no policy; there are {', '.join(sorted(POLICIES))}"))
    wait_lock(uow, "policy")
    known = policy_in_force(uow)
    if expected is not None and known.version != expected:
        raise StaleVersion(f"version {expected} was expected, {known.version} is in force")
    if policy == known.policy:
        return known
    before, after = asdict(known.policy), asdict(policy)
    row = PolicyVersion(number=known.version + 1, body=after, actor_name=uow.actor.name)
    uow.session.add(row)
    uow.session.flush()
    changed = [name for name in after if after[name] != before[name]]
    told = {"before": {name: before[name] for name in changed}, "after": {name: after[name] for name in changed}}
    uow.emit("policy.changed", row, version=row.number, **told)
    return InForce(row.number, policy)


def page_of_versions(uow: UnitOfWork, request: PageRequest) -> Page[PolicyVersion]:
    """One page of all versions there were."""
    return page(uow, uow.visible(PolicyVersion), PolicyVersion, request)
