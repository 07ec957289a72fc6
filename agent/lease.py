"""The node's lease: until when its supervisors may go on without the control plane's word.

A file, so that a supervisor can read it whether or not a daemon lives, and boot time, so that setting the
wall clock or suspending the machine can't lengthen it.
"""

import os

from agent.clock import boottime
from agent.layout import Home
from agent.reading import read_small

_WIDTH = 32


def renew(home: Home, asked_at: float, lease_s: float) -> float:
    """Extend the lease to `asked_at + lease_s` and return that.

    `asked_at` is `clock.boottime()` before the question was sent: counted from the answer, the lease would
    outlast what the control plane granted.
    """
    deadline = asked_at + lease_s
    # In place, always as long: a full disk must not cost the node its lease, and a reader sees no half of it.
    fd = os.open(home.lease, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(fd, f"{deadline:0{_WIDTH - 1}.6f}\n".encode(), 0)
    finally:
        os.close(fd)
    return deadline


def deadline(home: Home) -> float:
    """The boot time at which jobs must begin to end; 0.0 where there never was a lease."""
    try:
        return float(read_small(home.lease) or 0.0)
    except FileNotFoundError:
        return 0.0


def holds(home: Home) -> bool:
    """Whether the node may run jobs now."""
    return deadline(home) > boottime()
