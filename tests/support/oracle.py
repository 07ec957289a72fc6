"""Batch schedules by sums of processors, straight from the papers: independent of the code under test.

A job is (submitted_at, processors, limit_s, run_s), its place in the list its id; returned are the starts.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple


class Asked(NamedTuple):
    """A job of a batch machine."""

    submitted_at: int
    processors: int
    limit_s: int
    run_s: int


Later = Callable[[int], object]


def fifo(jobs: Sequence[Asked], size: int) -> list[int]:
    """Strictly in order."""
    return _replay(jobs, size, lambda state, now: state.start_in_order(now))


def easy(jobs: Sequence[Asked], size: int, *, shortest: bool = False) -> list[int]:
    """Lifka 1995: one reservation, for the first; others pass it by age, or the shortest first."""

    def decide(state: "_State", now: int) -> None:
        state.start_in_order(now)
        if not state.queue:
            return
        head, *rest = state.queue
        shadow, extra = state.shadow(jobs[head].processors)
        for job in sorted(rest, key=lambda job: jobs[job].limit_s if shortest else 0):
            if jobs[job].processors <= state.free:
                if now + jobs[job].limit_s <= shadow:
                    state.start(job, now)
                elif jobs[job].processors <= extra:
                    extra -= jobs[job].processors
                    state.start(job, now)

    return _replay(jobs, size, decide)


class _State:
    def __init__(self, jobs: Sequence[Asked], size: int) -> None:
        self.jobs = jobs
        self.free = size
        self.queue: list[int] = []
        self.running: dict[int, int] = {}
        self.starts = [-1] * len(jobs)

    def start(self, job: int, now: int) -> None:
        self.queue.remove(job)
        self.running[job] = now
        self.starts[job] = now
        self.free -= self.jobs[job].processors
        assert self.free >= 0

    def start_in_order(self, now: int) -> None:
        while self.queue and self.jobs[self.queue[0]].processors <= self.free:
            self.start(self.queue[0], now)

    def shadow(self, wanted: int) -> tuple[int, int]:
        """When so many processors are free at the latest, and how many more are then."""
        free = self.free
        ends = sorted(
            (start + self.jobs[job].limit_s, self.jobs[job].processors) for job, start in self.running.items()
        )
        for place, (end, processors) in enumerate(ends):
            free += processors
            together = place + 1 < len(ends) and ends[place + 1][0] == end
            if free >= wanted and not together:
                return end, free - wanted
        raise AssertionError("asks for more than the machine has")


def _replay(jobs: Sequence[Asked], size: int, decide: Callable[[_State, int], None]) -> list[int]:
    state = _State(jobs, size)
    waiting = sorted(range(len(jobs)), key=lambda job: (jobs[job].submitted_at, job))
    while waiting or state.running:
        ends = [start + min(jobs[job].run_s, jobs[job].limit_s) for job, start in state.running.items()]
        now = min([*ends, *(jobs[job].submitted_at for job in waiting[:1])])
        for job, start in list(state.running.items()):
            if start + min(jobs[job].run_s, jobs[job].limit_s) == now:
                del state.running[job]
                state.free += jobs[job].processors
        while waiting and jobs[waiting[0]].submitted_at == now:
            state.queue.append(waiting.pop(0))
        decide(state, now)
    return state.starts


def conservative(jobs: Sequence[Asked], size: int) -> list[int]:
    """Mu'alem and Feitelson 2001: everybody has a reservation; what ends early moves each forward, in order of age."""
    promised: dict[int, int] = {}
    running: dict[int, int] = {}
    starts = [-1] * len(jobs)
    waiting = sorted(range(len(jobs)), key=lambda job: (jobs[job].submitted_at, job))

    def free_over(begin: int, end: int) -> int:
        windows = [(start, start + jobs[job].limit_s, job) for job, start in [*promised.items(), *running.items()]]
        moments = [begin, *(start for start, _, _ in windows if begin < start < end)]
        return min(size - sum(jobs[job].processors for s, e, job in windows if s <= at < e) for at in moments)

    def first(job: int, now: int) -> int:
        ends = [start + jobs[one].limit_s for one, start in [*promised.items(), *running.items()]]
        for at in sorted({now, *(end for end in ends if end > now)}):
            if free_over(at, at + jobs[job].limit_s) >= jobs[job].processors:
                return at
        raise AssertionError("asks for more than the machine has")

    while waiting or promised or running:
        ends = [start + min(jobs[job].run_s, jobs[job].limit_s) for job, start in running.items()]
        now = min([*ends, *promised.values(), *(jobs[job].submitted_at for job in waiting[:1])])
        early = False
        for job, start in list(running.items()):
            if start + min(jobs[job].run_s, jobs[job].limit_s) == now:
                early = early or jobs[job].run_s < jobs[job].limit_s
                del running[job]
        for job in sorted(promised, key=lambda job: (jobs[job].submitted_at, job)) if early else ():
            del promised[job]
            promised[job] = first(job, now)
        while waiting and jobs[waiting[0]].submitted_at == now:
            job = waiting.pop(0)
            promised[job] = first(job, now)
        for job in [job for job, start in promised.items() if start == now]:
            running[job] = starts[job] = promised.pop(job)
    return starts
