"""Which of a job's replicas this process is. Outside a job, and in one of one replica, it is the only one."""

from trellis.runtime.context import Context, find_context


def rank() -> int:
    """Its number among all replicas, from 0."""
    here = find_context()
    return here.rank if here else 0


def world_size() -> int:
    """How many replicas there are."""
    here = find_context()
    return here.world_size if here else 1


def local_rank() -> int:
    """Its number among those on the same node, from 0."""
    here = find_context()
    return here.local_rank if here else 0


def node_rank() -> int:
    """The number of its node among those that the replicas are on, from 0."""
    here = find_context()
    return here.node_rank if here else 0


def master() -> tuple[str, int]:
    """Host and port at which rank 0 may listen: nobody else is given them. Raises LookupError where there is none."""
    here: Context | None = find_context()
    if here is None or here.master is None:
        raise LookupError("no port is kept for rank 0: submit with several replicas and `--network host`")
    return here.master
