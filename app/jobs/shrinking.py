"""Jobs that go on with fewer replicas when one of them fails."""

from collections.abc import Sequence
from dataclasses import replace

from app.core.uow import UnitOfWork
from app.jobs.asks import Asks, key_of
from app.jobs.models import Job, Replica
from trellis.vocabulary import ReplicaState


def shrink(uow: UnitOfWork, job: Job, failed: Replica, members: Sequence[Replica]) -> bool:
    """Let the next attempt of a job have one replica less in the role of the one that failed; whether it may.

    From then on it has no more than that: each failure costs a place, so that what always fails comes to an end. One
    that was ended by others, or that is to move elsewhere, did not fail.
    """
    if failed.state is not ReplicaState.FAILED or failed.stop_reason is not None:
        return False
    if job.cancel_asked_at is not None or job.usual is not None:
        return False
    asks = Asks.read(job.asks)
    if not asks.roles:
        return False
    role, left = asks.roles[failed.role], sum(one.role == failed.role for one in members) - 1
    if left < role.least:
        return False
    roles = [replace(each, most=left) if each is role else each for each in asks.roles]
    job.asks = replace(asks, roles=tuple(roles)).stored()
    job.class_key = key_of(job)
    uow.emit(
        "job.shrunk", job, replica_index=failed.index, node=failed.node_name, most=sum(each.most for each in roles)
    )
    return True
