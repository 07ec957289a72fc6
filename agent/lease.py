"""The node's lease: until when its supervisors may go on without the control plane's word.

A file, so that a supervisor can read it whether or not a daemon lives, and boot time, so that setting the
wall clock or suspending the machine can't lengthen it.
"""

from agent.clock import boottime
from agent.layout import Home, read_json, write_json


def renew(home: Home, asked_at: float, lease_s: float) -> float:
    """Extend the lease to `asked_at + lease_s` and return that.

    `asked_at` is `clock.boottime()` before the question was sent: counted from the answer, the lease would
    outlast what the control plane granted.
    """
    deadline = asked_at + lease_s
    write_json(home.lease, {"deadline": deadline})
    return deadline


def deadline(home: Home) -> float:
    """The boot time at which jobs must begin to end; 0.0 where there never was a lease."""
    stored = read_json(home.lease)
    return float(stored["deadline"]) if stored else 0.0


def holds(home: Home) -> bool:
    """Whether the node may run jobs now."""
    return deadline(home) > boottime()
