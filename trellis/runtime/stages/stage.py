"""One stage of one run, from its spec to its output."""

import time
from contextlib import nullcontext
from importlib import import_module
from typing import Any

from trellis.runtime.metrics import log_metric
from trellis.runtime.stages.definitions import Quality, Sensor, Sink, Source, Transform
from trellis.runtime.stages.egress import enforce
from trellis.runtime.stages.folders import Dataset
from trellis.runtime.stages.spec import Spec, Surroundings
from trellis.units import format_bytes, format_seconds

# Loaded when they are used, for a stage is a process of its own and each brings libraries that others do without.
_RUNNERS = {
    Source: "trellis.runtime.stages.sources",
    Transform: "trellis.runtime.stages.transforms",
    Quality: "trellis.runtime.stages.judging",
    Sensor: "trellis.runtime.stages.sensors",
    Sink: "trellis.runtime.stages.sinks",
}


def run_stage(spec: Spec, around: Surroundings) -> str:
    """Run it; what to say of it in one line. Raises StageFailed, or what a function of the user's raises."""
    began = time.monotonic()
    # What a user wrote may call whom the sandbox lets it; what we call because a configuration says so is guarded.
    guard: Any = nullcontext() if isinstance(spec.config, Transform) else enforce(around.egress)
    runner = import_module(_RUNNERS[type(spec.config)])
    with guard:
        dataset: Dataset = runner.run(spec, spec.config, around)
    log_metric("rows", dataset.rows)
    size, took = format_bytes(dataset.size_bytes), format_seconds(time.monotonic() - began)
    return f"{spec.stage}: {dataset.rows} rows, {size}, {took}"
