"""A node's worker: the hints it listens to, and the agent that does the work. Knows nothing of the server."""

from typing import Any

from celery import Celery, bootsteps

from agent import commands
from agent.daemon import Daemon
from tasks.app import make_app

Pair = tuple[str, int]


def make_worker_app(broker_url: str, daemon: Daemon) -> Celery:
    """The Celery application of a node that has joined; its worker carries `daemon` inside."""
    app = make_app(broker_url)
    app.conf.update(worker_pool="solo", worker_concurrency=1)
    app.task(name="tasks.node.launch_replicas")(launch_replicas)
    app.task(name="tasks.node.stop_replicas")(stop_replicas)

    class AgentStep(bootsteps.StartStopStep):
        """The agent lives as long as the worker; the supervisors it starts live longer."""

        requires = ("celery.worker.components:Pool",)

        def start(self, parent: Any) -> None:
            """Begin to beat before the first message is read."""
            commands.install(daemon)
            daemon.start()

        def stop(self, parent: Any) -> None:
            """End the agent; replicas go on."""
            daemon.stop()

    app.steps["worker"].add(AgentStep)
    return app


def launch_replicas(pairs: list[Pair]) -> None:
    """Hint: these replicas were placed here; the agent asks what they are."""
    commands.launch(pairs)


def stop_replicas(pairs: list[Pair]) -> None:
    """Hint: something here is to end; the agent asks what."""
    commands.stop(pairs)
