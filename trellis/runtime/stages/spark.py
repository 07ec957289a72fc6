"""Functions on Spark: `function(spark, **inputs)` gives a DataFrame. Needs the extra `spark`, and Java."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from trellis.runtime.stages.definitions import Transform
from trellis.runtime.stages.faults import StageFailed
from trellis.runtime.stages.folders import Dataset, Draft
from trellis.runtime.stages.functions import asked_for, load
from trellis.runtime.stages.spec import Spec

try:
    from pyspark.sql import DataFrame, SparkSession
except ModuleNotFoundError as missing:
    raise StageFailed("Spark needs packages that are not installed: pip install 'trellis[spark]'") from missing


def compute(spec: Spec, transform: Transform, inputs: Mapping[str, Dataset], draft: Draft) -> list[Path]:
    """Call the function with a session and the inputs by name; write its DataFrame, one part a partition.

    Raises: StageFailed, or what the function raises.
    """
    function = load(transform.code)
    if shutil.which("java") is None:
        raise StageFailed("Spark needs Java, and there is none on this node")
    builder = SparkSession.builder.master(transform.master).appName(spec.stage)
    for name, value in _SETTINGS.items():
        builder = builder.config(name, value)
    session = builder.config("spark.local.dir", str(draft.beside)).getOrCreate()
    try:
        given = {"spark": session, **{name: session.read.parquet(*one.paths) for name, one in inputs.items()}}
        result = function(**given, **asked_for(function, spec.parameters, given))
        if not isinstance(result, DataFrame):
            raise StageFailed(f"{transform.code} returned {type(result).__name__}: return a DataFrame of Spark")
        folder = draft.beside / "spark"
        result.write.parquet(str(folder), compression="zstd")
        return [path.rename(draft.new_path()) for path in sorted(folder.glob("part-*.parquet"))]
    finally:
        session.stop()


# No page of its own on a port, nothing that listens to others, times as the rest of the stages write them.
_SETTINGS = {
    "spark.ui.enabled": "false",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
}
