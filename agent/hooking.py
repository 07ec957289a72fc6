"""The operator's programs around a replica: before it starts, and after it has ended."""

import logging

from agent import verdicts
from agent.executors.base import Exit
from agent.ground import Ground
from agent.hooks import about, note, run_hook
from agent.verdicts import Verdict
from trellis.wire import HookRun, ReplicaSpec

_log = logging.getLogger(__name__)


def run_prolog(ground: Ground, spec: ReplicaSpec) -> Verdict | None:
    """Make the node ready for a replica; the verdict on that where it is not."""
    if not ground.hooks.prolog:
        return None
    ran = run_hook(ground.hooks.prolog, "prolog", ground.hooks, about(spec))
    if not ran.code:
        return None
    _note_failed(ground, HookRun("prolog", ok=False, output=ran.output or ran.why, replica_id=spec.replica_id))
    return verdicts.node_fault(f"the program that makes the node ready for a job {ran.why}")


def run_epilog(ground: Ground, spec: ReplicaSpec, ended: Exit, verdict: Verdict) -> None:
    """Clean up after a replica, before its devices are anybody else's. That it failed is the node's fault, not the job's."""
    if not ground.hooks.epilog:
        return
    told = {"TRELLIS_OUTCOME": str(verdict.state), "TRELLIS_EXIT_CODE": "" if ended.code is None else str(ended.code)}
    ran = run_hook(ground.hooks.epilog, "epilog", ground.hooks, about(spec) | told)
    if ran.code:
        _note_failed(ground, HookRun("epilog", ok=False, output=ran.output or ran.why, replica_id=spec.replica_id))


def _note_failed(ground: Ground, run: HookRun) -> None:
    try:
        note(ground.home, run)
    except OSError as error:  # a full disk: the health check tells of that
        _log.error("could not note that a hook failed: %s", error)
