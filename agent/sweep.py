"""Ending every job of a node that is being shut down.

python -m agent.sweep --home DIR [--timeout SECONDS]
"""

import argparse
import signal
import sys
import time
from pathlib import Path

from agent.executors import EXECUTORS
from agent.layout import Home, ReplicaDir
from trellis.vocabulary import ExecutorKind

_HARD_S = 5.0
_LOOK_EVERY_S = 0.02


def stop_all(home: Path, timeout_s: float) -> int:
    """End all jobs of `home` and return once their supervisors are gone; how many there were.

    Each gets TERM, and the grace that its owner asked for, but `timeout_s` at most. What became of them stays on
    disk, for the next daemon to tell. The caller stops the daemon first, or it launches more.
    """
    alive = [replica for replica in Home(home.resolve()).find_replicas() if replica.alive()]
    found = len(alive)
    for signum, wait_s in ((signal.SIGTERM, timeout_s), (signal.SIGTERM, _HARD_S), (signal.SIGKILL, _HARD_S)):
        alive = _end(alive, signum, wait_s)
    for replica in Home(home.resolve()).find_replicas():
        _end_container(replica)
    return found


def _end_container(replica: ReplicaDir) -> None:
    """End what outlives its supervisor. Replicas without a container cost a look at a file that is not there."""
    executor = EXECUTORS[ExecutorKind.CONTAINER]
    if not replica.alive() and (running := executor.adopt(replica)):
        executor.signal(running, signal.SIGKILL)


def _end(replicas: list[ReplicaDir], signum: int, wait_s: float) -> list[ReplicaDir]:
    """Signal them; those that live on after `wait_s`."""
    for replica in replicas:
        replica.signal_supervisor(signum)
    deadline = time.monotonic() + wait_s
    while (replicas := [replica for replica in replicas if replica.alive()]) and time.monotonic() < deadline:
        time.sleep(_LOOK_EVERY_S)
    return replicas


def main() -> None:
    """The process's entry point."""
    parser = argparse.ArgumentParser(description="End every job of a node.")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds of grace")
    arguments = parser.parse_args()
    sys.stdout.write(f"{stop_all(arguments.home, arguments.timeout)} ended\n")


if __name__ == "__main__":
    main()
