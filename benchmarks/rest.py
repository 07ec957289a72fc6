"""Submissions a second through the API alone: the queue is paused, so that jobs are accepted and wait."""

from benchmarks.backlog import QUEUE, hold
from benchmarks.bench import Bench
from benchmarks.clients import run_clients, submit_work

BATCH = 100
CASES = (  # name, clients, calls of each, jobs a call
    ("rest.submit.1_client", 1, 300, 1),
    ("rest.submit.8_clients", 8, 60, 1),
    ("rest.submit_batch_100.1_client", 1, 12, BATCH),
    ("rest.submit_batch_100.8_clients", 8, 3, BATCH),
)


def measure(bench: Bench) -> None:
    """One client and eight, one job a request and a hundred."""
    hold(bench)
    for name, clients, calls, batch in CASES:
        done = run_clients(bench.stack, clients, calls, submit_work({"command": ["/bin/true"], "queue": QUEUE}, batch))
        bench.printer.line(
            name, done.per_second * batch, "jobs/s", clients=clients, batch=batch, calls=len(done.seconds)
        )
        bench.printer.times(f"{name}.answered", done.seconds)
