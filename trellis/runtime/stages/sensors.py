"""The kind `sensor`: waits for files; what it found becomes the output, a row a file."""

import time
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq

from trellis.runtime.stages.definitions import Sensor
from trellis.runtime.stages.faults import StageFailed
from trellis.runtime.stages.folders import Dataset, Draft
from trellis.runtime.stages.places import Found, Place
from trellis.runtime.stages.remembered import recall
from trellis.runtime.stages.results import Made, Promise, conclude
from trellis.runtime.stages.rules import SchemaPolicy
from trellis.runtime.stages.spec import Spec, Surroundings

_SCHEMA = pa.schema([("name", pa.string()), ("bytes", pa.int64()), ("modified_at", pa.timestamp("us", "UTC"))])


def run(spec: Spec, sensor: Sensor, around: Surroundings) -> Dataset:
    """Look until the files are there. Raises StageFailed when the time is over."""
    place, until = Place(sensor.files, around), time.monotonic() + sensor.timeout_s
    while len(found := _fitting(place, sensor)) < sensor.least:
        left = until - time.monotonic()
        if left <= 0:
            raise StageFailed(
                f"{sensor.files.url}: {len(found)} of {sensor.least} files were there after {sensor.timeout_s} s"
            )
        time.sleep(min(sensor.every_s, left))
    with Draft(spec.output) as draft:
        path = draft.new_path()
        rows = [{"name": one.name, "bytes": one.size_bytes, "modified_at": _moment(one)} for one in found]
        pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), path)
        return conclude(spec, recall(spec.state, spec.run_id), draft, Made([path]), Promise((), SchemaPolicy()))


def _fitting(place: Place, sensor: Sensor) -> list[Found]:
    found = place.list()
    if not sensor.max_age_s:
        return found
    # The file system's own clock against this machine's: a place that keeps no times has no fresh files.
    oldest = datetime.now(UTC).timestamp() - sensor.max_age_s  # noqa: TID251  # a job has no unit of work to ask
    return [one for one in found if one.modified_at >= oldest]


def _moment(found: Found) -> datetime | None:
    return datetime.fromtimestamp(found.modified_at, UTC) if found.modified_at else None
