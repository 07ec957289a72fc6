"""The worker of a host of simulated nodes: it listens to the queues of all of them. Knows nothing of the server."""

from typing import Any

from celery import Celery, Task, bootsteps

from agent.simulation.host import Host
from tasks.app import make_app
from tasks.node import Pair


def make_worker_app(host: Host) -> Celery:
    """The Celery application of a host whose nodes have joined; its worker carries `host` inside.

    The tasks are those of any node: that its queue is one of many here tells for whom a message is.
    """
    app = make_app(host.broker_url)
    app.conf.update(worker_pool="solo", worker_concurrency=1)
    if not host.broker_url.startswith("amqp"):
        # One list a queue and not four: hints have no priority, and to wait on thousands of lists is dear.
        app.conf.broker_transport_options |= {"priority_steps": [0]}

    @app.task(name="tasks.node.launch_replicas", bind=True)
    def launch_replicas(task: Task[Any, Any], pairs: list[Pair]) -> None:
        host.request_launch(_queue_of(task), [(replica_id, fence) for replica_id, fence in pairs])

    @app.task(name="tasks.node.stop_replicas", bind=True)
    def stop_replicas(task: Task[Any, Any], _: list[Pair]) -> None:
        host.request_look(_queue_of(task))

    class HostStep(bootsteps.StartStopStep):
        """The host lives as long as the worker."""

        requires = ("celery.worker.components:Pool",)

        def start(self, parent: Any) -> None:
            """Begin to beat before the first message is read."""
            host.start()

        def stop(self, parent: Any) -> None:
            """End; another process goes on with what is played."""
            host.stop()

    app.steps["worker"].add(HostStep)
    return app


def _queue_of(task: "Task[Any, Any]") -> str:
    return str((task.request.delivery_info or {})["routing_key"])
