"""A control worker: `celery -A tasks.control worker -Q control,scheduling,direct`."""

from tasks import direct, jobs, pipelines, resources, scheduling, storage
from tasks.base import control
from tasks.relay import RelayStep

TASKS = (direct, jobs, pipelines, resources, scheduling, storage)  # importing them is what registers them
app = control().celery
app.steps["worker"].add(RelayStep)
broker_url = control().settings.broker_url
app.conf.update(
    worker_pool="threads",
    worker_concurrency=4,
    # For `trellis.direct` alone; every other task ignores its result.
    result_backend="rpc://" if broker_url.startswith("amqp") else broker_url,
    result_expires=direct.KEPT_S,
)
