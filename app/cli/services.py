"""What the supervisor keeps running: one command, and the condition under which it counts as up."""

import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from app.cli.accounts import Account, current

LOG_LIMIT_BYTES = 10 * 2**20


@dataclass(frozen=True, slots=True)
class Service:
    """One process that should always be there.

    ready: asked again until it is true; it must answer within a second and never raise.
    stop_s: how long it may take to stop before it is killed.
    sweep: whether what is left of its process group is killed when it dies or stops.
    after_stop: what to do once it is gone for good, such as ending what it left to others.
    """

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    log: Path
    ready: Callable[[], bool]
    cwd: Path = Path("/")
    account: Account = field(default_factory=current)
    ready_s: float = 60.0
    stop_signal: signal.Signals = signal.SIGTERM
    stop_s: float = 10.0
    sweep: bool = True
    url: str = ""
    after_stop: Callable[[], None] | None = None


def spawn(service: Service) -> subprocess.Popen[bytes]:
    """Start the service's process in a session of its own: a Ctrl-C in the terminal reaches only us.

    Raises: OSError.
    """
    rotate(service.log)
    with service.log.open("ab") as log:
        return subprocess.Popen(
            service.argv,
            cwd=service.cwd,
            env=dict(service.environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=0o077,
            **identity(service.account),
        )


class Identity(TypedDict, total=False):
    """The arguments of Popen that say as whom a child runs."""

    user: int
    group: int
    extra_groups: list[int]


def identity(account: Account) -> Identity:
    """The arguments of Popen that make a child run as `account`; none when that is who we are."""
    if account.uid == os.geteuid():
        return {}
    return {"user": account.uid, "group": account.gid, "extra_groups": []}


def rotate(log: Path) -> None:
    """Put a log that grew over its limit aside, once: there is the log and the one before it."""
    if log.exists() and log.stat().st_size > LOG_LIMIT_BYTES:
        log.rename(log.with_name(f"{log.name}.1"))


def last_lines(log: Path, count: int = 5) -> str:
    """The end of a log, for a message to a person."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-count:])
