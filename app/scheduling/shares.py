"""Who used how much of the cluster lately: what fair share ranks by, kept by actor in a project, and fading."""

from collections.abc import Mapping
from datetime import timedelta
from math import log
from uuid import UUID

from sqlalchemy import bindparam, delete, select
from sqlalchemy.dialects.postgresql import insert

from app.core.amounts import NAMES, NOTHING, Amounts
from app.core.uow import UnitOfWork
from app.resources.capacity import capacity_of
from app.scheduling.models import PastUse
from app.scheduling.policy import FairShare, policy_in_force
from app.tenancy.usage import usage_by_actor
from scheduler.usage import blend, decay

FORGOTTEN = 1e-7
"""Past use below this fraction of the cluster is none."""


def account_id(project_id: UUID, actor_id: UUID | None) -> str:
    """What the scheduler calls the account of an actor in a project."""
    return f"{project_id}/{actor_id or ''}"


def half_life_s(fair_share: FairShare) -> float:
    """After how long past use counts half."""
    return fair_share.window_hours * 3600 * log(0.5) / log(fair_share.decay_factor_milli / 1000)


def measure_use(uow: UnitOfWork) -> None:
    """Let past use fade since the last time, and what is held now add to it."""
    now = uow.clock.now()
    fade_s = half_life_s(policy_in_force(uow).policy.fair_share)
    total = sum(capacity_of(uow).values(), start=NOTHING)
    held = {account_id(*who): dominant_share(usage.held, total) for who, usage in usage_by_actor(uow).items()}
    known = {row.account_id: row for row in uow.session.execute(select(PastUse).with_for_update()).scalars()}
    kept, faded = [], []
    for account in sorted(held.keys() | known.keys()):
        row, share = known.get(account), held.get(account, 0.0)
        used = blend(row.used, share, _seconds(now - row.at), fade_s) if row else 0.0
        if share or used > FORGOTTEN:
            kept.append({"account_id": account, "used": used, "at": now})
        elif row:
            faded.append({"account": account})
    if kept:
        statement = insert(PastUse)
        fresh = {"used": statement.excluded.used, "at": statement.excluded.at}
        uow.execute(statement.on_conflict_do_update(index_elements=["account_id"], set_=fresh), kept)
    if faded:
        uow.execute(delete(PastUse).where(PastUse.account_id == bindparam("account")), faded)


def past_use(uow: UnitOfWork, fair_share: FairShare) -> Mapping[str, float]:
    """Past use by account as it counts now, as a fraction of the cluster over the window."""
    now, fade_s = uow.clock.now(), half_life_s(fair_share)
    rows = uow.session.execute(select(PastUse)).scalars()
    return {row.account_id: decay(row.used, _seconds(now - row.at), fade_s) for row in rows}


def dominant_share(held: Amounts, total: Amounts) -> float:
    """The largest fraction that `held` is of any one resource; what there is none of counts for nothing."""
    parts = ((getattr(held, name), getattr(total, name)) for name in NAMES)
    return max((part / whole for part, whole in parts if whole), default=0.0)


def _seconds(elapsed: timedelta) -> float:
    return max(0.0, elapsed.total_seconds())
