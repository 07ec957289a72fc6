"""How long a person waits for a command, and for the stack."""

import os
import subprocess
import sys
import time

from benchmarks.lines import Printer
from benchmarks.stack import ROOT, TRELLIS, Stack

RUNS = 8


def measure_commands(printer: Printer) -> None:
    """Whole processes, the bare interpreter among them."""
    printer.times("startup.python", _runs(sys.executable, "-c", "pass"))
    printer.times("startup.import_trellis", _runs(sys.executable, "-c", "import trellis"))
    printer.times("startup.trellis_version", _runs(*TRELLIS, "--version"))


def measure_stack(printer: Printer, stack: Stack) -> None:
    """Up on an empty home, down, and up again; leaves it up."""
    printer.line("startup.up_first", stack.up() * 1000, "ms")
    printer.line("startup.down", stack.down() * 1000, "ms")
    printer.line("startup.up_second", stack.up() * 1000, "ms")


def _runs(*argv: str) -> list[float]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    seconds = []
    for _ in range(RUNS + 1):
        began = time.monotonic()
        subprocess.run(argv, cwd="/", env=environment, stdout=subprocess.DEVNULL, check=True)
        seconds.append(time.monotonic() - began)
    return seconds[1:]  # the first one reads the disk
