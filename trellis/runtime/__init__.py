"""What code inside a job may call; needs nothing but the standard library.

from trellis import runtime

runtime.log_metric("loss", 0.25, step=10)
runtime.save_artifact("model.bin")
runtime.checkpoint.save({"epoch": 3}, step=3)
runtime.context().job_id
runtime.rank(), runtime.world_size(), runtime.local_rank(), runtime.node_rank(), runtime.master()
"""

from trellis.runtime import checkpoint
from trellis.runtime.artifacts import save_artifact
from trellis.runtime.context import Context, NotInAJob, context
from trellis.runtime.metrics import log_metric
from trellis.runtime.world import local_rank, master, node_rank, rank, world_size

__all__ = [
    "Context", "NotInAJob", "checkpoint", "context", "local_rank", "log_metric", "master", "node_rank", "rank",
    "save_artifact", "world_size",
]  # fmt: skip
