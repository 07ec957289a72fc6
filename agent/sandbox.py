"""Keeping a job in where there is no bubblewrap: what its process does to itself before its program starts."""

import os
import signal
import sys

from agent import landlock, privileges, seccomp
from agent.ground import Ground
from agent.view import DEVICES, gpu_nodes, host_view
from agent.workspace import Places
from trellis.vocabulary import Isolation, NetworkPolicy
from trellis.wire import ReplicaSpec


def enter(ground: Ground, spec: ReplicaSpec, seen: Places, parent: int) -> None:
    """Give up what this node's level says a job must not have. Raises OSError if any of it can't be done."""
    confinement = ground.confinement
    # The rules name paths that the job's user may be unable to look up: gather them while we can.
    rules = _rules(ground, spec, seen) if confinement.level is Isolation.LANDLOCK else None
    if confinement.uid is not None:
        privileges.become(confinement.uid)
    if confinement.drop_capabilities:
        privileges.drop_capabilities()
    privileges.forbid_new_privileges()
    privileges.die_with_parent(signal.SIGKILL)
    if os.getppid() != parent:  # it died before we asked to hear of it
        sys.exit(1)
    if rules:
        rules.enforce()
    if confinement.filtered and (filter_ := seccomp.filter_of(own_processes=False)):
        seccomp.enforce(filter_)


def _rules(ground: Ground, spec: ReplicaSpec, seen: Places) -> landlock.Ruleset:
    view = host_view()
    granted = ground.device_nodes(spec)
    rules = landlock.Ruleset(ground.confinement.landlock_abi, deny_tcp=spec.network is NetworkPolicy.NONE)
    rules.allow_reading([*view.system, *(link for link, _ in view.links), *view.etc, *view.python, "/proc"])
    rules.allow_reading(["/etc/passwd", "/etc/group", *(["/sys"] if granted else [])])
    rules.allow_listing(view.checkout)  # or an import from there finds nothing
    rules.allow_everything(
        [seen.work, seen.artifacts, seen.tmp, seen.checkpoints, *(f"/dev/{name}" for name in DEVICES)]
    )
    rules.allow_everything(gpu_nodes(granted))
    return rules
