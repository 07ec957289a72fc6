"""Who this process is: the one place where a job's environment is read."""

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path


class NotInAJob(RuntimeError):
    """This process was not started by Trellis, so there is nobody to ask."""


@dataclass(frozen=True, slots=True)
class Context:
    """The replica that this process belongs to. `replica_index` runs from 0 to `replica_count` - 1."""

    job_id: str
    job_name: str
    attempt: int
    fence: int
    replica_index: int
    replica_count: int
    artifacts_dir: Path
    metrics_socket: str
    checkpoint_dir: Path | None = None


@cache
def find_context() -> Context | None:
    """The context; None outside a job."""
    env = os.environ
    if "TRELLIS_JOB_ID" not in env or "TRELLIS_RUNTIME_SOCKET" not in env:
        return None
    return Context(
        job_id=env["TRELLIS_JOB_ID"],
        job_name=env["TRELLIS_JOB_NAME"],
        attempt=int(env["TRELLIS_ATTEMPT"]),
        fence=int(env["TRELLIS_FENCE"]),
        replica_index=int(env["TRELLIS_REPLICA_INDEX"]),
        replica_count=int(env["TRELLIS_REPLICA_COUNT"]),
        artifacts_dir=Path(env["TRELLIS_ARTIFACTS_DIR"]),
        metrics_socket=env["TRELLIS_RUNTIME_SOCKET"],
        checkpoint_dir=Path(env["TRELLIS_CHECKPOINT_DIR"]) if "TRELLIS_CHECKPOINT_DIR" in env else None,
    )


def context() -> Context:
    """Who this process is. Raises NotInAJob outside a job."""
    found = find_context()
    if found is None:
        raise NotInAJob("this process does not run inside a Trellis job")
    return found
