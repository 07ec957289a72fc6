"""`python -m benchmarks.scheduling [SECTION ...] [--traces DIR]`: the scheduler by itself, on one core.

One JSON object a line goes to standard output, prose to standard error. Sections that need traces are skipped without
them, and say so. Exit code 1 if a section failed.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

from benchmarks import fairness, logs, packing, placement, preemption, scale, scheduler
from benchmarks.lines import Printer, say
from benchmarks.traces import Traces
from scheduler.simulator.openb import OpenbError
from scheduler.simulator.traces import TraceError


def _packing(printer: Printer, traces: Traces) -> None:
    if folder := traces.part("packing", "openb"):
        packing.measure(printer, folder)


def _logs(_: Printer, traces: Traces) -> None:
    if folder := traces.part("logs", "swf"):
        logs.measure(folder, folder.parent / "reference" / "batch_reference.jsonl")


SECTIONS: dict[str, Callable[[Printer, Traces], None]] = {
    "scheduler": lambda printer, _: scheduler.measure(printer),
    "scale": lambda printer, _: scale.measure(printer),
    "placement": lambda printer, _: placement.measure(printer),
    "preemption": lambda printer, _: preemption.measure(printer),
    "fairness": lambda printer, _: fairness.measure(printer),
    "packing": _packing,
    "logs": _logs,
}


def main() -> int:
    """Run the sections that were asked for, all of them when none was."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scheduling", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--traces", type=Path, metavar="DIR", help="holds swf/, openb/ and reference/")
    given = parser.parse_args()
    if unknown := set(given.sections) - set(SECTIONS):
        parser.error(f"there is no section {', '.join(sorted(unknown))}: there are {', '.join(SECTIONS)}")
    if given.traces is not None and not given.traces.is_dir():
        parser.error(f"--traces: {given.traces} is no folder")
    wanted = given.sections or list(SECTIONS)
    failed = [name for name in SECTIONS if name in wanted and not _done(name, Traces(given.traces))]
    if failed:
        say(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


def _done(name: str, traces: Traces) -> bool:
    say(f"measuring {name}")
    try:
        SECTIONS[name](Printer(), traces)
    except (OSError, EOFError, UnicodeDecodeError, OpenbError, TraceError) as error:
        say(f"{name}: {error}")
        return False
    return True


if __name__ == "__main__":
    raise SystemExit(main())
