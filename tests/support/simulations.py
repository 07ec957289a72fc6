"""Small batch machines to simulate."""

from collections.abc import Sequence
from dataclasses import replace

from scheduler.config import BackfillOrder, Config
from scheduler.simulator.cluster import one_machine
from scheduler.simulator.run import History, Scenario, Watch, simulate
from scheduler.simulator.workload import QUEUE_ID, Work, Workload
from scheduler.snapshot import JobClass, Node, Request, Role
from tests.support.oracle import Asked

EASY = Config(policy="fifo", second_policy="fifo")
FIFO = replace(EASY, backfill=False)
SJBF = replace(EASY, backfill_order=BackfillOrder.SHORTEST)
CONSERVATIVE = replace(EASY, reserved_heads=None)
DEFAULT = Config()


def works(jobs: Sequence[Asked], *, apart: bool = False) -> Workload:
    """The jobs as work; `apart`: each processor is a replica of its own."""
    made = []
    for number, job in enumerate(jobs):
        replicas = job.processors if apart else 1
        role = Role(Request(job.processors // replicas * 1000, 0), replicas, replicas)
        job_class = JobClass("p", QUEUE_ID, (role,), time_limit_s=job.limit_s, user_id=f"u{number % 3}")
        made.append(Work(f"{number:04}", job.submitted_at, job_class, job.run_s, job_class.user_id))
    return Workload(tuple(sorted(made, key=lambda work: (work.submitted_at, work.id))))


def run(
    jobs: Sequence[Asked], size: int, config: Config, *, nodes: tuple[Node, ...] = (), watch: Watch | None = None
) -> History:
    """Simulate jobs on one machine of so many processors, or on other nodes."""
    scenario = Scenario(nodes or one_machine(size), works(jobs, apart=bool(nodes)))
    return simulate(scenario, config, watch=watch)


def starts(history: History) -> list[int]:
    """When each job started first, in the order of ids."""
    firsts: dict[str, int] = {}
    for span in sorted(history.spans, key=lambda span: span.started_at):
        firsts.setdefault(span.work.id, int(span.started_at))
    return [firsts[job_id] for job_id in sorted(firsts)]
