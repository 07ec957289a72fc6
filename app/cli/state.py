"""What runs on a home, written by its supervisor and read by everybody else."""

import json
import os
import select
import signal
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from app.cli.files import write_private
from app.cli.supervisor import Keeper, ServiceState


@dataclass(frozen=True, slots=True)
class Entry:
    """One service; `began` with `pid` names a process for good, a pid alone is used again."""

    name: str
    state: str
    account: str
    url: str
    restarts: int
    reason: str
    stop_signal: int
    log: str
    pid: int | None = None
    began: float | None = None  # seconds since the epoch, as the kernel counts a process's start


@dataclass(frozen=True, slots=True)
class StackState:
    """Everything of one stack; `up` once all of it is ready."""

    up: bool = False
    entries: tuple[Entry, ...] = ()
    urls: dict[str, str] = field(default_factory=dict)


def entry_of(keeper: Keeper) -> Entry:
    """What a keeper knows of its service."""
    service, process = keeper.service, keeper.process
    known = Entry(
        service.name, keeper.state, service.account.name, service.url, keeper.restarts, keeper.reason,
        int(service.stop_signal), str(service.log),
    )  # fmt: skip
    if process is None or keeper.state is ServiceState.STOPPED:
        return known
    with suppress(psutil.NoSuchProcess):
        return Entry(**{**asdict(known), "pid": process.pid, "began": psutil.Process(process.pid).create_time()})
    return known


def write(file: Path, state: StackState) -> None:
    """Replace what the file says."""
    write_private(file, json.dumps(asdict(state), indent=1))


def read(file: Path) -> StackState:
    """What the file says; an empty stack when there is none."""
    if not file.exists():
        return StackState()
    stored = json.loads(file.read_text())
    return StackState(stored["up"], tuple(Entry(**entry) for entry in stored["entries"]), stored["urls"])


def process_of(entry: Entry) -> psutil.Process | None:
    """The very process that the entry names, if it still lives."""
    if entry.pid is None:
        return None
    try:
        process = psutil.Process(entry.pid)
        same = process.create_time() == entry.began and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return None
    return process if same else None


def stop_leftovers(file: Path, timeout_s: float) -> tuple[str, ...]:
    """End what a killed supervisor left running, in the order it would have; the names of what was there."""
    ended = []
    for entry in reversed(read(file).entries):
        if process := process_of(entry):
            ended.append(entry.name)
            end(process, signal.Signals(entry.stop_signal), timeout_s)
    return tuple(ended)


def end(process: psutil.Process, number: signal.Signals, timeout_s: float) -> None:
    """Ask the process to end; make it, when it has not after `timeout_s`.

    Raises: psutil.AccessDenied for somebody else's process.
    """
    try:
        # A handle on the process: it tells of the end at once, also where a slow init leaves a zombie for a while.
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)
        if not select.select([handle], [], [], timeout_s)[0]:
            process.kill()
            select.select([handle], [], [], timeout_s)
    finally:
        os.close(handle)
