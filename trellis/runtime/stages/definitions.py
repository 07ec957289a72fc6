"""What a stage is told in its `with`: one frozen class a kind, and the one way to read them. Standard library alone.

`parse` is what the control plane calls before it accepts a pipeline, and what the job calls before it begins.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from trellis.runtime.stages.connectors import NOWHERE, Connector, Database, Files, Stream, parse_connector
from trellis.runtime.stages.faults import Fault, StageErrors
from trellis.runtime.stages.fields import NAME, Fields
from trellis.runtime.stages.rules import Rule, SchemaPolicy, parse_policy, parse_rules

__all__ = ["Fault", "Quality", "Sensor", "Sink", "Source", "StageConfig", "StageErrors", "Transform", "parse"]

MODES = ("append", "replace", "upsert")
INCREMENTS = ("watermark", "files", "offset")
FRAMES = ("arrow", "polars")
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", re.ASCII)
_MASTER = re.compile(r"local(\[(\d{1,3}|\*)\])?|spark://[\w.-]+:\d{1,5}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Source:
    """Reads from a connector into the stage's output.

    `increment` says what is new since the last run that succeeded: "watermark" (rows whose `watermark` column is above
    the highest seen), "files" (new or changed ones), "offset" (a stream's later entries); "" reads all, always.
    `most_bytes` bounds what is fetched and what packed files unfold to.
    """

    connector: Connector
    increment: str
    watermark: str
    most_bytes: int
    expect: tuple[Rule, ...]
    schema: SchemaPolicy


@dataclass(frozen=True, slots=True)
class Transform:
    """Makes one data set of the inputs: by one SELECT, or by a function `module:function` of the job's bundle.

    `engine` is sql, python or spark. `memory_bytes` 0 leaves the limit to DuckDB: four fifths of what the job may use.
    """

    engine: str
    code: str
    frames: str
    master: str
    memory_bytes: int
    expect: tuple[Rule, ...]
    schema: SchemaPolicy


@dataclass(frozen=True, slots=True)
class Sink:
    """Writes an input to a connector: in one step, and once for a run however often its job is tried."""

    connector: Connector
    mode: str
    key: tuple[str, ...]
    input: str


@dataclass(frozen=True, slots=True)
class Quality:
    """Judges an input; what is good becomes the output, rows put aside go to its folder `quarantine`."""

    rules: tuple[Rule, ...]
    schema: SchemaPolicy
    input: str


@dataclass(frozen=True, slots=True)
class Sensor:
    """Waits for files to be there, at least `least` of them and none older than `max_age_s` (0: any age)."""

    files: Files
    least: int
    max_age_s: int
    every_s: int
    timeout_s: int


StageConfig = Source | Transform | Sink | Quality | Sensor


def parse(kind: str, config: Mapping[str, Any]) -> StageConfig:
    """The configuration of a stage of this kind.

    Raises: StageErrors with every fault there is, each with its path.
    """
    faults: list[Fault] = []
    parser = _KINDS.get(kind)
    if parser is None:
        raise StageErrors([Fault("kind", f"must be one of {', '.join(sorted(_KINDS))}")])
    fields = Fields(config, "", faults)
    found = parser(fields)
    fields.close()
    if faults:
        raise StageErrors(faults)
    return found


def _source(fields: Fields) -> Source:
    connector = parse_connector(fields.part("from"))
    increment, watermark = _increment(fields, connector)
    return Source(
        connector,
        increment,
        watermark,
        fields.amount("most_bytes", "100GB"),
        parse_rules(fields, "expect", required=False),
        parse_policy(fields, "schema"),
    )


def _increment(fields: Fields, connector: Connector) -> tuple[str, str]:
    if not fields.has("incremental"):
        return "", ""
    part = fields.part("incremental")
    by = part.one_of("by", INCREMENTS)
    watermark = part.text("column") if by == "watermark" else ""
    part.close()
    fits = {"watermark": (Files, Database), "files": (Files,), "offset": (Stream,)}[by]
    if not isinstance(connector, fits):
        kind = type(connector).__name__.lower()
        part.fault(
            "by", f"{by} does not fit {kind}: files know watermark and files, databases watermark, streams offset"
        )
    return by, watermark


def _transform(fields: Fields) -> Transform:
    engines = [name for name in ("sql", "python", "spark") if fields.has(name)]
    if len(engines) != 1:
        fields.fault("sql", "give one of `sql`, `python` and `spark`")
        engines = ["sql"]
    code = fields.text(engines[0], "")
    if engines[0] != "sql" and code and not _FUNCTION.fullmatch(code):
        fields.fault(engines[0], "must be module:function, of the job's bundle")
    master = fields.text("master", "local[*]")
    if not _MASTER.fullmatch(master):
        fields.fault("master", "must be local[N] or spark://HOST:PORT")
    memory = fields.amount("memory", "1GB") if fields.has("memory") else 0
    if fields.has("memory") and memory < 64_000_000:
        fields.fault("memory", "must be at least 64MB")
    return Transform(
        engines[0],
        code,
        fields.one_of("frames", FRAMES, "arrow"),
        master,
        memory,
        parse_rules(fields, "expect", required=False),
        parse_policy(fields, "schema"),
    )


def _sink(fields: Fields) -> Sink:
    connector = parse_connector(fields.part("to"), writes=True)
    mode = fields.one_of("mode", MODES, "replace")
    key = fields.texts("key", required=mode == "upsert")
    if key and mode != "upsert":
        fields.fault("key", "is for the mode upsert")
    if isinstance(connector, Stream) and mode != "append":
        fields.fault("mode", "a stream can only be appended to")
    if isinstance(connector, Files) and connector.names_a_file and mode != "replace":
        fields.fault("mode", f"one file can only be replaced: name a folder (with `format`) for {mode}")
    return Sink(connector, mode, key, fields.text("input", "", like=NAME))


def _quality(fields: Fields) -> Quality:
    return Quality(
        parse_rules(fields, "rules", required=True), parse_policy(fields, "schema"), fields.text("input", "", like=NAME)
    )


def _sensor(fields: Fields) -> Sensor:
    found = parse_connector(fields.part("for"))
    if not isinstance(found, Files):
        fields.fault("for.connector", "must be files")
        found = NOWHERE
    return Sensor(
        found,
        fields.integer("least", 1, 1, 1_000_000),
        fields.duration("max_age", "0s") if fields.has("max_age") else 0,
        max(1, fields.duration("every", "30s")),
        fields.duration("timeout", "1h"),
    )


_KINDS: dict[str, Callable[[Fields], StageConfig]] = {
    "source": _source, "transform": _transform, "sink": _sink, "quality": _quality, "sensor": _sensor,
}  # fmt: skip
