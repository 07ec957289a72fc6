"""Client processes: each has a connection of its own, all begin at the same moment."""

import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier

from benchmarks.stack import BenchError, Stack
from trellis import Client
from trellis.submission import JobBody

WITHIN_S = 120.0
Work = Callable[[Client, int], None]  # a client, and the number of the call


@dataclass(frozen=True, slots=True)
class Calls:
    """What the clients did: the moment (monotonic seconds) the first began and the last was answered, and each call's seconds."""

    began: float
    ended: float
    seconds: list[float]

    @property
    def per_second(self) -> float:
        """Calls answered a second, all clients together."""
        return len(self.seconds) / (self.ended - self.began)


def submit_work(job: JobBody, batch: int) -> Work:
    """One call submits the job once, or as a batch of so many."""

    def submit(client: Client, _: int) -> None:
        client.jobs.submit(**job)

    def submit_batch(client: Client, _: int) -> None:
        client.jobs.submit_batch([job] * batch)

    return submit if batch == 1 else submit_batch


def run_clients(stack: Stack, clients: int, calls: int, work: Work) -> Calls:
    """Let `clients` processes do `work` `calls` times each. Raises BenchError when one fails."""
    # Forked: what they share with us is loaded already, and none of it holds a thread or a connection.
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(clients)
    ours: list[Connection] = []
    processes = []
    for _ in range(clients):
        reading, writing = context.Pipe(duplex=False)
        process = context.Process(target=_act, args=(stack, calls, work, barrier, writing), daemon=True)
        process.start()
        writing.close()
        ours.append(reading)
        processes.append(process)

    parts = [_take(reading) for reading in ours]
    for process in processes:
        process.join()
    seconds = [one for _, times in parts for one in times]
    return Calls(min(began for began, _ in parts), max(began + sum(times) for began, times in parts), seconds)


def _act(stack: Stack, calls: int, work: Work, barrier: Barrier, told: Connection) -> None:
    with stack.client() as client:
        client.whoami()
        barrier.wait(WITHIN_S)
        began = time.monotonic()
        times = []
        before = began
        for number in range(calls):
            work(client, number)
            now = time.monotonic()
            times.append(now - before)
            before = now
        told.send((began, times))


def _take(reading: Connection) -> tuple[float, list[float]]:
    if not reading.poll(WITHIN_S):
        raise BenchError(f"a client was not done within {WITHIN_S:.0f} s")
    try:
        part: tuple[float, list[float]] = reading.recv()
    except EOFError as error:
        raise BenchError("a client failed; what it said is above") from error
    return part
