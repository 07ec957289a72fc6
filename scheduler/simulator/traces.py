"""Logs of real machines in the Standard Workload Format.

Source: Chapin et al., Benchmarks and Standards for the Evaluation of Parallel Job Schedulers, JSSPP 1999; eighteen
fields a line, -1 for what is not known, comments behind a semicolon.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from scheduler.simulator.workload import QUEUE_ID, Work, Workload
from scheduler.snapshot import WHOLE, JobClass, Request, Role

FIELDS = 18
PROJECT_ID = "log"


class TraceError(ValueError):
    """A log that cannot be read; the text names the line."""


@dataclass(frozen=True, slots=True)
class Trace:
    """What a log says: so many processors, and the jobs they were given."""

    processors: int
    workload: Workload


class _Line(NamedTuple):
    job: int
    submitted_at: int
    run_s: int
    processors: int
    limit_s: int
    user: int


def read_swf(lines: Iterable[str], processors: int | None = None, *, perfect: bool = False) -> Trace:
    """Read a log; `processors` overrides what its header says of the machine's size.

    Processors are those requested, else those used; the limit is the requested time, else the run time; a job that ran
    longer ends at its limit. Jobs without a run time, without processors, or with more than there are, are dropped.
    `perfect` makes every limit the run time. Raises TraceError.
    """
    found: list[_Line] = []
    dropped = 0
    stated: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if line.lstrip().startswith(";"):
            _note_header(line, stated)
        elif line.strip():
            found.append(_parse(line, number))
    size = processors or stated.get("MaxProcs") or stated.get("MaxNodes")
    if not size:
        raise TraceError("the header names no MaxProcs: say how many processors the machine has")
    fitting = [one for one in found if one.run_s > 0 and 0 < one.processors <= size]
    dropped = len(found) - len(fitting)
    fitting.sort(key=lambda one: (one.submitted_at, one.job))
    return Trace(size, Workload(tuple(_works(fitting, perfect=perfect)), dropped))


def _note_header(line: str, stated: dict[str, int]) -> None:
    name, _, value = line.strip().lstrip("; ").partition(":")
    words = value.split()
    if words and words[0].isdecimal():
        stated.setdefault(name.strip(), int(words[0]))


def _parse(line: str, number: int) -> _Line:
    words = line.split()
    if len(words) != FIELDS:
        raise TraceError(f"line {number} has {len(words)} fields, not {FIELDS}")
    try:
        values = [int(float(word)) for word in words]
    except (ValueError, OverflowError) as error:
        raise TraceError(f"line {number} holds what is no number") from error
    job, submitted_at, _, run_s, used = values[:5]
    asked, requested_s, user = values[7], values[8], values[11]
    limit_s = requested_s if requested_s > 0 else run_s
    return _Line(job, submitted_at, min(run_s, limit_s), asked if asked > 0 else used, limit_s, user)


def _works(lines: Iterable[_Line], *, perfect: bool) -> Iterator[Work]:
    # One object for all jobs that are alike: the rules compare by identity first.
    classes: dict[tuple[int, int, int], JobClass] = {}
    for line in lines:
        limit_s = line.run_s if perfect else line.limit_s
        key = (line.processors, limit_s, line.user)
        job_class = classes.get(key)
        if job_class is None:
            roles = (Role(Request(line.processors * WHOLE, 0)),)
            user = f"user{line.user}" if line.user >= 0 else ""
            job_class = classes[key] = JobClass(PROJECT_ID, QUEUE_ID, roles, time_limit_s=limit_s, user_id=user)
        # Ids are compared as text, and shall come in the order of the log's numbers.
        yield Work(f"{line.job:010}", line.submitted_at, job_class, line.run_s, job_class.user_id)
