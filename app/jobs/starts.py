"""Nodes on which job after job fails to start: what is placed there is lost, and the emptier it is the more is placed."""

from datetime import timedelta

from sqlalchemy import select

from app.core.uow import UnitOfWork
from app.jobs.models import Replica
from app.resources.allocations import lock_nodes
from app.resources.health import distrust, living_nodes
from trellis.vocabulary import Cause, QuarantinedBy

# So many different jobs in a row, within this time, and none that began there meanwhile.
IN_A_ROW = 3
WITHIN = timedelta(hours=1)
# With fewer nodes it can't be told whether it is the node or the jobs.
FEWEST_NODES = 3


def note_failed_start(uow: UnitOfWork, replica: Replica) -> None:
    """A replica (of a locked node) failed to start: keep the node from work if it is the last of too many in a row.

    What failed with the same words on another node as well is the jobs' own fault.
    """
    uow.session.flush()
    failed = _latest_failures(uow, replica)
    if len(failed) < IN_A_ROW or living_nodes(uow) < FEWEST_NODES:
        return
    first = min(failed, key=lambda one: one.id)
    if _began_since(uow, first) or _failed_elsewhere(uow, failed):
        return
    (node,) = lock_nodes(uow, [replica.node_id]).values()
    reason = f"{len(failed)} jobs in a row failed to start"
    distrust(uow, node, QuarantinedBy.STARTS, reason, replica.message[:200])


def _latest_failures(uow: UnitOfWork, replica: Replica) -> list[Replica]:
    """The last IN_A_ROW of different jobs."""
    since = uow.clock.now() - WITHIN
    statement = (
        select(Replica)
        .where(Replica.node_id == replica.node_id, Replica.cause == Cause.START_FAILED, Replica.ended_at > since)
        .order_by(Replica.ended_at.desc())
        .limit(10 * IN_A_ROW)
    )
    by_job = {one.job_id: one for one in reversed(uow.session.execute(statement).scalars().all())}
    return sorted(by_job.values(), key=lambda one: one.id)[-IN_A_ROW:]


def _began_since(uow: UnitOfWork, first: Replica) -> bool:
    # Ids grow with time: only what was placed since is looked at.
    began = select(Replica.id).where(
        Replica.id >= first.id, Replica.node_id == first.node_id, Replica.started_at.is_not(None)
    )
    return uow.session.execute(began.limit(1)).first() is not None


def _failed_elsewhere(uow: UnitOfWork, failed: list[Replica]) -> bool:
    since = uow.clock.now() - WITHIN
    same = select(Replica.id).where(
        Replica.cause == Cause.START_FAILED, Replica.ended_at > since, Replica.node_id != failed[0].node_id,
        Replica.message.in_({one.message for one in failed}),
    )  # fmt: skip
    return uow.session.execute(same.limit(1)).first() is not None
