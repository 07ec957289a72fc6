"""What code inside a job may call; needs nothing but the standard library.

from trellis import runtime

runtime.log_metric("loss", 0.25, step=10)
runtime.save_artifact("model.bin")
runtime.checkpoint.save({"epoch": 3}, step=3)
runtime.context().job_id
"""

from trellis.runtime import checkpoint
from trellis.runtime.artifacts import save_artifact
from trellis.runtime.context import Context, NotInAJob, context
from trellis.runtime.metrics import log_metric

__all__ = ["Context", "NotInAJob", "checkpoint", "context", "log_metric", "save_artifact"]
