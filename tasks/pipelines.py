"""How pipelines go on: from events, and from time."""

import logging
from functools import partial
from uuid import UUID

from app.core.access import SYSTEM
from app.core.uow import UnitOfWork, run
from app.pipelines import advance, outputs, schedules
from app.pipelines.outputs import Told
from tasks import queues
from tasks.base import control, task
from trellis.errors import TrellisError, Unavailable
from trellis.stores.urls import open_store

log = logging.getLogger(__name__)


@control().celery.task(name="tasks.pipelines.advance_runs", queue=queues.CONTROL)
def advance_runs(run_ids: list[str]) -> None:
    """Let these runs be as far as their jobs are; one that is there already stays."""
    for run_id in dict.fromkeys(run_ids):
        try:
            _advance(UUID(run_id))
        except TrellisError as error:  # of one run: the others go on
            log.warning("run %s is left to the next tick: %s", run_id, error.detail)


def _advance(run_id: UUID) -> None:
    """One run. What its stages told is read from the store between two units: it may be far away."""
    place = control()
    results: dict[UUID, Told] = {}
    while wanted := run(place.sessions, SYSTEM, partial(advance.advance, run_id=run_id, results=results)):
        store = open_store(place.settings.store)
        keys = run(place.sessions, SYSTEM, partial(outputs.result_keys, job_ids=wanted))
        results |= {job_id: outputs.read_result(store, keys.get(job_id)) for job_id in wanted}


@task(queue=queues.CONTROL)
def fire_due(uow: UnitOfWork) -> bool:
    """Make the runs whose time has come; True while there are more."""
    return schedules.fire_due(uow)


@control().celery.task(name="tasks.pipelines.sweep", queue=queues.CONTROL)
def sweep() -> None:
    """The net below lost messages, runs that wait for room, and runs that are late."""
    place = control()
    try:
        advance_runs([str(run_id) for run_id in run(place.sessions, SYSTEM, advance.due_runs)])
        for backfill_id in run(place.sessions, SYSTEM, advance.due_backfills):
            run(place.sessions, SYSTEM, partial(schedules.go_on_with, backfill_id=backfill_id))
        run(place.sessions, SYSTEM, schedules.tell_late)
    except Unavailable as error:
        log.warning("the sweep of pipelines is left to the next tick: %s", error.detail)
