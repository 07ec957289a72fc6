"""Logs of real machines replayed: are the schedules those of the reference, and what is the default policy worth?

The reference is a file of others' figures, `reference/batch_reference.jsonl` beside the logs, one JSON object a line.
"""

import gzip
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from app.cli.simulate import CONFIGS, Policy
from benchmarks.lines import Printer, say
from benchmarks.traces import LOGS
from scheduler.simulator.cluster import one_machine
from scheduler.simulator.report import BatchFigures, batch_figures
from scheduler.simulator.run import Scenario, simulate
from scheduler.simulator.traces import Trace, read_swf

KTH, NASA, SDSC = LOGS
SHORT = {KTH: "kth_sp2", SDSC: "sdsc_blue", NASA: "nasa_ipsc"}
# What the reference calls the policies.
NAMES = {Policy.FIFO: "fifo", Policy.EASY: "easy", Policy.EASY_SJBF: "easy-sjbf", Policy.CONSERVATIVE: "cons"}
SLOW = {(SDSC, Policy.CONSERVATIVE)}
Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class _Case:
    """What is replayed, and how; `perfect`: people know how long their jobs run."""

    log: str
    policy: Policy
    perfect: bool

    @property
    def name(self) -> str:
        return f"logs.{SHORT[self.log]}.{self.policy}{'.perfect' if self.perfect else ''}"

    @property
    def key(self) -> Key:
        return self.log, NAMES.get(self.policy, ""), "perfect" if self.perfect else "log"


def measure(folder: Path, reference: Path) -> None:
    """Replay every log that is there under each policy; the default last, to stand beside EASY."""
    rows = _read_reference(reference)
    for log in LOGS:
        if not (folder / log).is_file():
            say(f"{folder / log} is not there")
            Printer().line(f"logs.{SHORT[log]}.skipped", None, "", missing=log)
            continue
        for perfect in (False, True):
            _measure_log(folder / log, rows, perfect=perfect)


def _measure_log(path: Path, rows: Mapping[Key, Mapping[str, Any]], *, perfect: bool) -> None:
    trace = _read(path, perfect=perfect)
    done: dict[Policy, BatchFigures] = {}
    for case in _cases(path.name, perfect=perfect):
        say(f"replaying {case.name}")
        printer = Printer()  # each takes long enough for the machine to be another
        begun = time.process_time()
        figures = done[case.policy] = _replay(trace, case.policy)
        more = _compared(case, figures, trace, rows)
        if case.policy is Policy.DEFAULT:
            more |= _against(figures, done[Policy.EASY])
        seconds = time.process_time() - begun
        printer.line(case.name, seconds, "s", estimates=case.key[2], **asdict(figures), **more)


def _cases(log: str, *, perfect: bool) -> Iterator[_Case]:
    if perfect and log == NASA:
        return  # it knows no estimates: its limits are the run times anyhow
    for policy in (*NAMES, Policy.DEFAULT):
        if (log, policy) not in SLOW and not (perfect and policy is Policy.FIFO):
            yield _Case(log, policy, perfect)


def _replay(trace: Trace, policy: Policy) -> BatchFigures:
    history = simulate(Scenario(one_machine(trace.processors), trace.workload), CONFIGS[policy])
    return batch_figures(history, trace.processors)


def _compared(
    case: _Case, figures: BatchFigures, trace: Trace, rows: Mapping[Key, Mapping[str, Any]]
) -> dict[str, Any]:
    """Whether all that the reference says is what came out; None where it says nothing of the case."""
    row = rows.get(case.key)
    if row is None:
        return {"equals_reference": None}
    found = {**asdict(figures), "dropped": trace.workload.dropped}
    differs = {name: row[name] for name in found if name in row and row[name] != found[name]}
    return {"equals_reference": not differs} | ({"reference": differs} if differs else {})


def _against(figures: BatchFigures, easy: BatchFigures) -> dict[str, Any]:
    return {
        "easy_mean_bsld": easy.mean_bsld,
        "mean_bsld_lower_percent": round(100 * (1 - figures.mean_bsld / easy.mean_bsld), 1),
        "longest_wait_times_easy": round(figures.max_wait_s / easy.max_wait_s, 3),
    }


def _read(path: Path, *, perfect: bool) -> Trace:
    with gzip.open(path, "rt") as lines:
        return read_swf(lines, perfect=perfect)


def _read_reference(path: Path) -> dict[Key, Mapping[str, Any]]:
    if not path.is_file():
        say(f"{path} is not there: nothing to compare the schedules with")
        return {}
    rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    return {(row["log"], row["policy"], row["estimates"]): row for row in rows}
