"""A control worker: `celery -A tasks.control worker -Q control,scheduling,direct`."""

from tasks import direct, jobs, resources, scheduling
from tasks.base import control
from tasks.relay import RelayStep

TASKS = (direct, jobs, resources, scheduling)
app = control().celery
app.steps["worker"].add(RelayStep)
