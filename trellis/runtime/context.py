"""Who this process is: the one place where a job's environment is read."""

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path


class NotInAJob(RuntimeError):
    """This process was not started by Trellis, so there is nobody to ask."""


@dataclass(frozen=True, slots=True)
class Context:
    """The replica that this process belongs to. `replica_index` runs from 0 to `replica_count` - 1.

    Of several that began together `rank` is this one's number among the `world_size`, `local_rank` that among the
    `local_world_size` on this node, and `node_rank` the node's among the `node_count`. `host_file` names the nodes as
    MPI wants it. `master` is the host and port kept for rank 0; None where they can't reach each other.
    """

    job_id: str
    job_name: str
    attempt: int
    fence: int
    replica_index: int
    replica_count: int
    artifacts_dir: Path
    metrics_socket: str
    checkpoint_dir: Path | None = None
    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    node_rank: int = 0
    node_count: int = 1
    host_file: Path | None = None
    master: tuple[str, int] | None = None


_PLACE = {"rank": 0, "world_size": 1, "local_rank": 0, "local_world_size": 1, "node_rank": 0, "node_count": 1}


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
        **{name: int(env.get(f"TRELLIS_{name.upper()}", usual)) for name, usual in _PLACE.items()},
        host_file=Path(env["TRELLIS_HOSTFILE"]) if "TRELLIS_HOSTFILE" in env else None,
        master=(env["TRELLIS_MASTER_ADDR"], int(env["TRELLIS_MASTER_PORT"])) if "TRELLIS_MASTER_PORT" in env else None,
    )


def context() -> Context:
    """Who this process is. Raises NotInAJob outside a job."""
    found = find_context()
    if found is None:
        raise NotInAJob("this process does not run inside a Trellis job")
    return found
