"""What a stage's `with` may say, and what is said about everything else."""

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trellis.runtime.stages.connectors import Database, Files, Stream
from trellis.runtime.stages.definitions import Quality, Sensor, Sink, Source, StageErrors, Transform, parse

CSV = {"connector": "files", "url": "raw/*.csv"}
POSTGRES = {
    "connector": "postgres", "host": "db.example.org", "database": "d", "user": "u", "table": "t",
    "credentials": {"password": "DB_PASSWORD"},
}  # fmt: skip


def faults(kind: str, config: Any) -> dict[str, str]:
    with pytest.raises(StageErrors) as caught:
        parse(kind, config)
    return {fault.path: fault.message for fault in caught.value.errors}


def test_each_kind_reads_its_own_configuration() -> None:
    assert isinstance(parse("source", {"from": CSV}), Source)
    assert isinstance(parse("transform", {"sql": "SELECT 1"}), Transform)
    assert isinstance(parse("sink", {"to": {"connector": "files", "url": "out.parquet"}}), Sink)
    assert isinstance(parse("quality", {"rules": [{"rule": "not_null", "column": "id"}]}), Quality)
    assert isinstance(parse("sensor", {"for": CSV}), Sensor)


def test_every_fault_is_named_at_once_with_its_path() -> None:
    found = faults(
        "source",
        {
            "from": {"connector": "files", "url": "s3://b/*.csv", "credentials": {"key": "my secret!"}, "colour": 1},
            "incremental": {"by": "offset"},
            "expect": [{"rule": "not_null"}, {"rule": "range", "column": "x"}, {"rule": "nonsense"}],
            "schema": {"added": "maybe"},
            "most_bytes": "-1",
        },
    )
    assert set(found) == {
        "from.credentials.key", "from.colour", "incremental.by", "expect[0].column", "expect[1].min", "expect[2].rule",
        "expect[2].column", "schema.added", "most_bytes",
    }  # fmt: skip


def test_a_secret_that_was_put_where_its_name_belongs_is_not_repeated() -> None:
    found = faults("sink", {"to": {**POSTGRES, "credentials": {"password": "hunter2 is it"}}})
    assert "hunter2" not in str(found)
    assert "environment variable" in found["to.credentials.password"]


@pytest.mark.parametrize(
    "url",
    [
        "../other/*.csv", "a/../../b.csv", "file:///data/../etc/passwd.csv", "ftp://host/a.csv", "filecache::s3://b/a.csv",
        "s3:///a.csv", "https://user:pass@host/a.csv", "https://host/*.csv", "a\x00.csv", "data://text/a.csv",
    ],
)  # fmt: skip
def test_places_that_no_source_may_name_are_refused(url: str) -> None:
    assert any(path == "from.url" for path in faults("source", {"from": {"connector": "files", "url": url}}))


@pytest.mark.parametrize("url", ["https://host/a.csv", "out/*.csv", "out/../../a.csv"])
def test_places_that_no_sink_may_name_are_refused(url: str) -> None:
    assert "to.url" in faults("sink", {"to": {"connector": "files", "url": url}})


def test_a_sink_is_told_which_modes_its_place_has() -> None:
    stream = {"connector": "redis", "host": "h", "stream": "s"}
    assert "mode" in faults("sink", {"to": stream, "mode": "replace"})
    assert "mode" in faults("sink", {"to": {"connector": "files", "url": "one.csv"}, "mode": "append"})
    assert "key" in faults("sink", {"to": POSTGRES, "mode": "upsert"})
    assert "key" in faults("sink", {"to": POSTGRES, "mode": "append", "key": ["id"]})
    assert "to.query" in faults("sink", {"to": {**POSTGRES, "query": "SELECT 1"}})


@pytest.mark.parametrize("host", ["/var/run/postgresql", "a,b", "@abstract"])
def test_a_database_is_one_host_and_no_socket(host: str) -> None:
    assert "from.host" in faults("source", {"from": {**POSTGRES, "host": host}})


@pytest.mark.parametrize("table", ["t; DROP TABLE x", 't"', "public.t", "t--"])
def test_a_table_is_one_plain_name(table: str) -> None:
    assert "from.table" in faults("source", {"from": {**POSTGRES, "table": table}})


def test_a_transform_is_one_of_sql_python_and_spark() -> None:
    assert "sql" in faults("transform", {})
    assert "sql" in faults("transform", {"sql": "SELECT 1", "python": "a:b"})
    assert "python" in faults("transform", {"python": "os.system('x')"})
    assert "master" in faults("transform", {"spark": "a:b", "master": "yarn --conf x"})


def test_only_rules_about_rows_put_rows_aside() -> None:
    rule = {"rule": "row_count", "min": 1, "severity": "quarantine"}
    assert "rules[0].severity" in faults("quality", {"rules": [rule]})


def test_connectors_come_out_typed() -> None:
    found = parse("source", {"from": POSTGRES, "incremental": {"by": "watermark", "column": "at"}})
    assert isinstance(found, Source)
    assert isinstance(found.connector, Database)
    assert (found.increment, found.watermark, found.connector.port) == ("watermark", "at", 5432)
    files = parse("source", {"from": {"connector": "files", "url": "S3://b/x/*.tsv.gz"}})
    assert isinstance(files, Source)
    assert isinstance(files.connector, Files)
    assert (files.connector.scheme, files.connector.format, files.connector.delimiter) == ("s3", "csv", "\t")
    stream = parse("source", {"from": {"connector": "redis", "host": "h", "stream": "s"}})
    assert isinstance(stream, Source)
    assert isinstance(stream.connector, Stream)


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=5),
    max_leaves=20,
)
words = st.sampled_from(
    ["from", "to", "for", "sql", "rules", "expect", "connector", "url", "rule", "incremental", "by"]
)


@given(
    kind=st.sampled_from(["source", "transform", "sink", "quality", "sensor", "x"]),
    config=st.dictionaries(words, json_like | st.dictionaries(words, json_like, max_size=5), max_size=5) | json_like,
)
def test_whatever_comes_is_read_or_refused_with_faults(kind: str, config: Any) -> None:
    try:
        found: Any = parse(kind, config)
    except StageErrors as error:
        found = error.errors
    assert found


def test_definitions_load_with_the_standard_library_alone() -> None:
    program = (
        "import sys\nimport trellis.runtime.stages.definitions\n"
        "print([m for m in ('duckdb', 'pyarrow', 'polars', 'sqlglot', 'fsspec', 'redis') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"
