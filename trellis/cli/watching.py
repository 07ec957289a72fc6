"""`trellis why` and `trellis top`: why a job waits, and how the cluster is."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from trellis.answers import Attempt, Job, Kind, Queue, plain
from trellis.cli.cluster import find_queue
from trellis.cli.context import AsJson, Here, JobWord, here
from trellis.cli.tables import gpu_milli_of, heads_table, queues_table, ranked_by, table
from trellis.cli.text import cell, cores, moment, safe, span, state_cell
from trellis.errors import NotFound
from trellis.holdings import IdleGpus, QueueOrder
from trellis.units import format_bytes
from trellis.vocabulary import JobState

HEADS = 5
LINES = 10


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(why)
    app.command()(top)


def why(context: typer.Context, job: JobWord, as_json: AsJson = False) -> None:
    """Say why a job waits, what waits before it and when it is expected to start; or why it runs where it does.

    For example: trellis why last
    """
    run = here(context)
    found = run.client.jobs.get(run.job_id(job), verbose=True)
    order = _order(run, found) if found.state == JobState.QUEUED else QueueOrder()
    body = {"job": plain(found), "position": order.position, "ahead": [plain(head) for head in order.heads]}
    run.answer(body, lambda: run.out.print(_reasons(found, order)))


def _order(run: Here, job: Job) -> QueueOrder:
    """What comes before the job in its queue; nothing where it has started meanwhile."""
    try:
        return run.client.queues.explain(find_queue(run, job.queue).id, job.id)
    except NotFound:
        return QueueOrder()


def _reasons(job: Job, order: QueueOrder) -> RenderableType:
    lines: list[RenderableType] = [Text(safe(f"Job {job.id} ({job.name}) is {job.state.replace('_', ' ')}."))]
    if job.why:
        lines.append(Text(safe(f"It waits: {job.why}.")))
    if job.expected_start_at:
        lines.append(Text(f"It is expected to start about {moment(job.expected_start_at)}."))
    if job.attempts:
        latest = job.attempts[0]
        said = f"Attempt {latest.number} was placed on {_nodes(latest)}: {latest.reason or 'no reason is kept'}."
        lines.append(Text(safe(said)))
    if job.message:
        lines.append(Text(safe(job.message)))
    if order.position:
        lines.append(Text(safe(f"It is number {order.position} in queue {job.queue}, ranked by {ranked_by(order)}.")))
    if order.heads:
        lines += [Text(f"Before it in queue {safe(job.queue)}:"), heads_table(order.heads[:HEADS])]
        if len(order.heads) > HEADS:
            lines.append(Text(f"and {len(order.heads) - HEADS} more kinds of jobs"))
    return Group(*lines)


def _nodes(attempt: Attempt) -> str:
    """Each node once, with how many replicas are there; of many the first."""
    counts = Counter(replica.node or "?" for replica in attempt.replicas)
    shown = [f"{node} ({count} replicas)" if count > 1 else node for node, count in counts.items()][:LINES]
    return ", ".join(shown) + (f" and {len(counts) - LINES} more nodes" if len(counts) > LINES else "")


@dataclass(frozen=True, slots=True)
class Sight:
    """The cluster at one moment."""

    kinds: Sequence[Kind]
    queues: list[Queue]
    running: list[Job]
    waiting: list[Job]
    idle: tuple[IdleGpus, ...]

    def as_json(self) -> dict[str, Any]:
        """For programs: figures, queues and the jobs that are shown."""
        there = {
            "cpu_milli": sum(kind.nodes * kind.cpu_milli for kind in self.kinds),
            "memory_bytes": sum(kind.nodes * kind.memory_bytes for kind in self.kinds),
            "gpu_milli": sum(kind.nodes * kind.gpus * 1000 for kind in self.kinds),
        }
        return {
            "nodes": {
                "total": sum(kind.nodes for kind in self.kinds),
                "ready": sum(kind.nodes_ready for kind in self.kinds),
            },
            **{
                name: {"total": total, "held": sum(kind.held[name] for kind in self.kinds)}
                for name, total in there.items()
            },
            "idle_gpus": [plain(one) for one in self.idle],
            "queues": [plain(queue) for queue in self.queues],
            "running": [plain(job) for job in self.running],
            "waiting": [plain(job) for job in self.waiting],
        }


def top(
    context: typer.Context,
    once: Annotated[bool, typer.Option("--once", help="Show it once, and end.")] = False,
    interval: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.5, max=3600)] = 2.0,
    as_json: AsJson = False,
) -> None:
    """Watch the cluster: nodes, devices, queues, what runs and what waits. Ctrl-C ends it.

    For example: trellis top --once
    """
    run = here(context)
    if once or run.as_json:
        sight = _look(run)
        run.answer(sight.as_json(), lambda: run.out.print(_drawn(sight)))
        return
    try:
        with Live(_drawn(_look(run)), console=run.out, screen=run.out.is_terminal, auto_refresh=False) as live:
            while True:
                time.sleep(interval)
                live.update(_drawn(_look(run)), refresh=True)
    except KeyboardInterrupt:
        return


def _look(run: Here) -> Sight:
    jobs = run.client.jobs
    running = jobs.list(state=["running", "starting", "checkpointing"], sort="submitted_at", limit=LINES)
    waiting = jobs.list(state=["queued"], sort="-priority", limit=LINES)
    return Sight(
        run.client.nodes.kinds(), list(run.client.queues.list()),
        list(islice(running, LINES)), list(islice(waiting, LINES)), run.client.resources.capacity().gpus,
    )  # fmt: skip


def _drawn(sight: Sight) -> RenderableType:
    said = sight.as_json()
    cpu, memory, gpu, nodes = (said[name] for name in ("cpu_milli", "memory_bytes", "gpu_milli", "nodes"))
    figures = (
        f"nodes {nodes['ready']}/{nodes['total']} ready   "
        f"CPUs {cores(cpu['held'])}/{cores(cpu['total'])}   "
        f"memory {format_bytes(memory['held'])} / {format_bytes(memory['total'])}   "
        f"GPUs {cores(gpu['held'])}/{cores(gpu['total'])} {_bar(gpu['held'], gpu['total'])}"
    )
    parts: list[RenderableType] = [
        Text(figures, style="bold"),
        *map(_idle, sight.idle),
        Text(),
        queues_table(sight.queues),
    ]
    for title, jobs in (("Running", sight.running), ("Waiting", sight.waiting)):
        if jobs:
            parts += [Text(), Text(title, style="bold"), _jobs(jobs)]
    return Group(*parts)


def _idle(gpus: IdleGpus) -> RenderableType:
    """How much is idle, and how broken up that is."""
    said = f"{gpus.gpu_type}: {cores(gpus.idle_milli)} of {gpus.devices} idle, {gpus.whole} of them whole"
    said += f" (at most {gpus.most_on_one_node} on one node)" if gpus.whole else ""
    if gpus.idle_milli and gpus.useless_milli is not None:
        said += f", {100 * gpus.useless_milli / gpus.idle_milli:.0f} % fragmented"
    return Text(safe(said))


def _bar(held: int, total: int, width: int = 20) -> str:
    filled = round(width * held / total) if total else 0
    return f"[{'#' * filled}{'.' * (width - filled)}]" if total else ""


def _jobs(jobs: list[Job]) -> RenderableType:
    rows = [
        (
            cell(job.id), cell(job.name), cell(job.user), state_cell(job.state), cell(cores(gpu_milli_of(job))),
            cell(span(job.run_s if job.run_s is not None else job.wait_s)), cell(job.why or ""),
        )
        for job in jobs
    ]  # fmt: skip
    return table(["ID", "NAME", "USER", "STATE", "GPUS", "FOR", "WHY"], rows, right=("GPUS", "FOR"), gives="WHY")
