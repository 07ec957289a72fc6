"""How long jobs are thought to run, by their owners' last ones; known only where the policy asks for it."""

from collections.abc import Collection, Iterable
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, any_, bindparam, select

from app.core.uow import UnitOfWork
from app.jobs.models import Job
from app.scheduling.policy import SchedulingPolicy
from scheduler.predictions import Predictions

LOOKED_BACK_ON = 5000
"""How many of the jobs that were submitted last are looked at."""

_RAN = select(Job.actor_id, Job.started_at, Job.ended_at).where(Job.started_at.is_not(None), Job.ended_at.is_not(None))
_NEWEST = select(Job.id).order_by(Job.created_at.desc(), Job.id.desc()).limit(LOOKED_BACK_ON)
_LATELY = _RAN.where(Job.id.in_(_NEWEST)).order_by(Job.ended_at, Job.id)
_AMONG = _RAN.where(Job.id == any_(bindparam("ids", type_=ARRAY(Uuid)))).order_by(Job.ended_at, Job.id)


class Expected:
    """Run times to expect; of nobody, unless it is `used`."""

    def __init__(self, *, used: bool = False) -> None:
        self._predictions = Predictions() if used else None

    def learn_lately(self, uow: UnitOfWork) -> None:
        """Look back on the jobs that ended of late."""
        if self._predictions is not None:
            self._learn(uow.execute(_LATELY))

    def learn(self, uow: UnitOfWork, ids: Collection[UUID]) -> None:
        """Look at those of these jobs that have ended."""
        if self._predictions is not None and ids:
            self._learn(uow.execute(_AMONG, {"ids": list(ids)}))

    def of(self, actor_id: UUID | None, limit_s: int | None) -> float | None:
        """How long a job of that actor is thought to run; None where nothing is known, or nobody asks."""
        return None if self._predictions is None else self._predictions.expect(str(actor_id), limit_s)

    def _learn(self, rows: Iterable[Any]) -> None:
        if self._predictions is not None:
            for row in rows:
                self._predictions.learn(str(row.actor_id), (row.ended_at - row.started_at).total_seconds())


def expected_by(uow: UnitOfWork, policy: SchedulingPolicy) -> Expected:
    """What is to be expected under a policy, as of now."""
    expected = Expected(used=policy.backfill.use_predictions)
    expected.learn_lately(uow)
    return expected
