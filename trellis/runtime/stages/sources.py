"""The kind `source`: what is new in a place becomes the stage's output."""

from importlib import import_module

from trellis.runtime.stages.connectors import Connector, Database, Files, Stream
from trellis.runtime.stages.definitions import Source
from trellis.runtime.stages.engine import engine
from trellis.runtime.stages.folders import Dataset, Draft
from trellis.runtime.stages.remembered import recall
from trellis.runtime.stages.results import Made, Promise, conclude
from trellis.runtime.stages.spec import Spec, Surroundings

# Loaded when they are used: each brings libraries that take longer to load than most sources to read.
_READERS = {
    Files: "trellis.runtime.stages.file_source",
    Database: "trellis.runtime.stages.database_source",
    Stream: "trellis.runtime.stages.stream_source",
}


def run(spec: Spec, source: Source, around: Surroundings) -> Dataset:
    """Read, and replace the output. Raises StageFailed; output and state are then what they were."""
    state = recall(spec.state, spec.run_id)
    reader = import_module(_READERS[type(source.connector)])
    with Draft(spec.output) as draft:
        with engine(draft.beside) as connection:
            part, position = reader.read(connection, source, around, state.before, draft)
        made = Made([part], position=position, notes={"source": told(source.connector)})
        return conclude(spec, state, draft, made, Promise(source.expect, source.schema))


def told(connector: Connector) -> dict[str, str]:
    """Which place it is, as OpenLineage names places; nothing secret."""
    if isinstance(connector, Files):
        namespace, _, name = connector.url.rpartition("://")
        bucket, _, key = name.partition("/") if namespace else ("", "", name)
        return {"namespace": f"{namespace}://{bucket}" if namespace else "file", "name": key or name}
    if isinstance(connector, Stream):
        return {"namespace": f"redis://{connector.host}:{connector.port}", "name": connector.stream}
    name = connector.table or "query"
    if connector.kind == "sqlite":
        return {"namespace": "file", "name": f"{connector.path}#{name}"}
    where = f"postgres://{connector.host}:{connector.port}"
    return {"namespace": where, "name": ".".join([connector.database, connector.schema or "public", name])}
