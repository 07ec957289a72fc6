"""What of a stack runs now, as a table or as JSON."""

from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from app.cli import state
from app.cli.home import holder
from app.cli.supervisor import ServiceState
from trellis.units import format_bytes, format_seconds


@dataclass(frozen=True, slots=True)
class Row:
    """One service. memory_bytes: its whole process tree, shared pages counted once."""

    name: str
    state: str
    account: str
    restarts: int
    reason: str
    url: str
    log: str
    pid: int | None = None
    memory_bytes: int | None = None
    running_s: float | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """A stack as it is now; `up` when everything of it runs and its supervisor watches."""

    up: bool
    home: str
    urls: dict[str, str]
    services: tuple[Row, ...]


def look(home: Path) -> Status:
    """Read the supervisor's notes and check them against the processes that really are there."""
    seen = state.read(home / "state.json")
    rows = tuple(_row(entry) for entry in seen.entries)
    well = seen.up and holder(home) is not None and all(row.state == ServiceState.RUNNING for row in rows)
    return Status(well, str(home), seen.urls, rows)


def show(status: Status, console: Console) -> None:
    """The table for people."""
    if not status.services:
        console.print(f"Nothing runs on {status.home}. `trellis up` starts it.", highlight=False, soft_wrap=True)
        return
    table = Table(box=None, padding=(0, 2))
    for title in ("service", "state", "pid", "as", "memory", "running", "restarts"):
        table.add_column(title, justify="right" if title in ("pid", "memory", "restarts") else "left")
    for row in status.services:
        memory = "-" if row.memory_bytes is None else format_bytes(row.memory_bytes)
        age = "-" if row.running_s is None else format_seconds(row.running_s)
        table.add_row(row.name, row.state, str(row.pid or "-"), row.account, memory, age, str(row.restarts))
    console.print(table)
    for name, url in status.urls.items():
        console.print(f"  {name}  {url}", highlight=False)


def _row(entry: state.Entry) -> Row:
    common = (entry.account, entry.restarts, entry.reason, entry.url, entry.log)
    process = state.process_of(entry)
    if process is None or entry.began is None:
        gone = entry.state if entry.state == ServiceState.RESTARTING else ServiceState.STOPPED
        return Row(entry.name, gone, *common)
    # Both starts as the kernel counts them: ours is a moment ago.
    age = psutil.Process().create_time() - entry.began
    return Row(entry.name, entry.state, *common, entry.pid, _memory(process), max(0.0, age))


def _memory(process: psutil.Process) -> int:
    total = 0
    for member in (process, *_children(process)):
        try:
            total += member.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue
        except psutil.AccessDenied:  # another user's: what is shared can't be told
            total += member.memory_info().rss
    return total


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:  # it ended while we were looking
        return []
