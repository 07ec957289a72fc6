"""Ticks: `celery -A tasks.beat beat`. Beat holds no schedule of its own, so any number of beats does no harm."""

import os

from tasks import queues
from tasks.app import make_app
from trellis.settings import BrokerSettings, load

app = make_app(load(BrokerSettings, os.environ).broker_url)
app.conf.update(
    beat_scheduler="celery.beat:Scheduler",  # in memory: nothing to keep, nothing to unpickle
    beat_max_loop_interval=5,
    beat_schedule={
        # A tick that nobody took in time is worth nothing: the next one says the same.
        name: {"task": task, "schedule": every, "options": {"queue": queue, "expires": every * 3}}
        for name, task, queue, every in (
            ("cycle", "tasks.scheduling.run_due_cycle", queues.SCHEDULING, 4.0),
            ("due", "tasks.jobs.wake_due", queues.CONTROL, 2.0),
            ("nodes", "tasks.resources.watch_nodes", queues.CONTROL, 4.0),
            ("leave", "tasks.resources.empty_nodes", queues.CONTROL, 4.0),
            ("idle", "tasks.resources.note_idle", queues.CONTROL, 60.0),
            ("sweep", "tasks.jobs.sweep", queues.CONTROL, 10.0),
            ("fire", "tasks.pipelines.fire_due", queues.CONTROL, 2.0),
            ("pipelines", "tasks.pipelines.sweep", queues.CONTROL, 10.0),
            ("code", "tasks.storage.drop_code", queues.CONTROL, 600.0),
            ("erase", "tasks.storage.erase_code", queues.CONTROL, 600.0),
            ("doom", "tasks.storage.doom_packs", queues.CONTROL, 60.0),
            ("delete", "tasks.storage.delete_packs", queues.CONTROL, 60.0),
            ("uploads", "tasks.storage.give_up_uploads", queues.CONTROL, 600.0),
            ("logs", "tasks.storage.drop_logs", queues.CONTROL, 600.0),
            ("discards", "tasks.storage.delete_discards", queues.CONTROL, 60.0),
            ("orphans", "tasks.storage.sweep_orphans", queues.CONTROL, 3600.0),
            ("metrics", "tasks.jobs.condense_metrics", queues.CONTROL, 60.0),
            ("use", "tasks.scheduling.measure_use", queues.CONTROL, 60.0),
        )
    },
)
