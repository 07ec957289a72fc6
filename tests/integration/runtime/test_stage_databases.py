"""Stages against real servers: PostgreSQL, SQLite, streams of Valkey, and objects behind S3's protocol."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import unquote, urlsplit

import psycopg
import pytest
import redis
import s3fs
from moto.server import ThreadedMotoServer

from tests.support.databases import create_database
from tests.support.services import Services
from tests.support.stage_runs import Workbench
from trellis.runtime.stages.faults import StageFailed

ORDERS: dict[str, list[Any]] = {"id": [1, 2, 3], "word": ["a", "it's", None], "share": [0.5, 1.5, 2.5]}
NEWER: dict[str, list[Any]] = {"id": [3, 4], "word": ["c", "d"], "share": [9.5, 8.5]}


@pytest.fixture(params=["postgres", "sqlite"])
def place(request: pytest.FixtureRequest, bench: Workbench, worker_id: str) -> dict[str, Any]:
    """A database of its own, empty, as a connector."""
    if request.param == "sqlite":
        return {"connector": "sqlite", "path": "some.db"}
    services: Services = request.getfixturevalue("services")
    return as_connector(create_database(services.database_url, f"stages_{worker_id}"), bench)


def as_connector(url: str, bench: Workbench) -> dict[str, Any]:
    split = urlsplit(url.replace("postgresql+psycopg", "postgresql"))
    bench.environment["DB_PASSWORD"] = unquote(split.password or "")
    bench.egress = "127.0.0.0/8, ::1"
    return {
        "connector": "postgres", "host": split.hostname, "port": split.port, "database": split.path.strip("/"),
        "user": split.username, "credentials": {"password": "DB_PASSWORD"},
    }  # fmt: skip


def sink(bench: Workbench, place: dict[str, Any], columns: dict[str, list[Any]], run_id: str, **more: Any) -> bool:
    """Write; whether it was the first time."""
    bench.give("orders", columns)
    config = {"to": {**place, "table": "target"}, **more}
    return not bench.run("sink", config, inputs=["orders"], run_id=run_id).notes["sink"]["applied_before"]


def there(bench: Workbench, place: dict[str, Any]) -> list[dict[str, Any]]:
    bench.run("source", {"from": {**place, "table": "target"}}, stage="check", run_id=str(id(object())))
    return sorted(bench.rows("check"), key=lambda row: (row["id"], str(row["word"])))


def rows(columns: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def test_what_is_written_to_a_table_is_read_again(bench: Workbench, place: dict[str, Any]) -> None:
    assert sink(bench, place, ORDERS, "r1")
    assert there(bench, place) == rows(ORDERS)


def test_a_run_that_is_tried_again_applies_once(bench: Workbench, place: dict[str, Any]) -> None:
    assert sink(bench, place, ORDERS, "r1", mode="append")
    assert not sink(bench, place, ORDERS, "r1", mode="append")
    assert len(there(bench, place)) == 3
    assert sink(bench, place, ORDERS, "r2", mode="append")
    assert len(there(bench, place)) == 6


def test_replacing_leaves_the_new_rows_alone(bench: Workbench, place: dict[str, Any]) -> None:
    sink(bench, place, ORDERS, "r1")
    sink(bench, place, NEWER, "r2", mode="replace")
    assert there(bench, place) == rows(NEWER)


def test_an_upsert_replaces_by_key_and_keeps_the_others(bench: Workbench, place: dict[str, Any]) -> None:
    sink(bench, place, ORDERS, "r1")
    sink(bench, place, NEWER, "r2", mode="upsert", key=["id"])
    assert there(bench, place) == rows(ORDERS)[:2] + rows(NEWER)


def test_a_key_that_comes_twice_is_refused_and_changes_nothing(bench: Workbench, place: dict[str, Any]) -> None:
    sink(bench, place, ORDERS, "r1")
    twice: dict[str, list[Any]] = {"id": [7, 7], "word": ["a", "b"], "share": [1.0, 2.0]}
    with pytest.raises(StageFailed, match="come more than once"):
        sink(bench, place, twice, "r2", mode="upsert", key=["id"])
    assert there(bench, place) == rows(ORDERS)
    assert sink(bench, place, NEWER, "r2", mode="append")


def test_a_write_that_fails_halfway_changes_nothing_and_can_be_tried_again(
    bench: Workbench, place: dict[str, Any]
) -> None:
    sink(bench, place, ORDERS, "r1")
    with pytest.raises(StageFailed):
        sink(bench, place, {**NEWER, "new_column": [1, 2]}, "r2", mode="replace")
    assert there(bench, place) == rows(ORDERS)
    assert sink(bench, place, NEWER, "r2", mode="replace")
    assert there(bench, place) == rows(NEWER)


def test_only_rows_above_the_watermark_are_read(bench: Workbench, place: dict[str, Any]) -> None:
    config = {"from": {**place, "table": "target"}, "incremental": {"by": "watermark", "column": "id"}}
    sink(bench, place, ORDERS, "r1")
    assert bench.run("source", config, run_id="r1").rows == 3
    assert bench.run("source", config, run_id="r2").rows == 0
    sink(bench, place, NEWER, "r3", mode="append")
    assert bench.run("source", config, run_id="r3").notes["watermark"] == 4
    assert [row["id"] for row in bench.rows("source")] == [4]
    assert bench.run("source", config, run_id="r3", attempt=2).rows == 1


def test_a_query_is_one_select(bench: Workbench, place: dict[str, Any]) -> None:
    sink(bench, place, ORDERS, "r1")
    bench.run("source", {"from": {**place, "query": "SELECT id * 2 AS twice FROM target WHERE id > 2 -- so"}})
    assert bench.rows("source") == [{"twice": 6}]
    for query in ("SELECT 1) AS x; DROP TABLE target; --", "DROP TABLE target", "ATTACH 'x' AS y"):
        with pytest.raises(StageFailed):
            bench.run("source", {"from": {**place, "query": query}})
    assert there(bench, place) == rows(ORDERS)


def test_names_that_need_quoting_are_quoted(bench: Workbench, place: dict[str, Any]) -> None:
    evil = 'x"; DROP TABLE target; --'
    bench.give("orders", {"select": [1], evil: ["'; DROP TABLE target; --"]})
    bench.run("sink", {"to": {**place, "table": "order"}, "mode": "upsert", "key": ["select", evil]}, inputs=["orders"])
    bench.run("source", {"from": {**place, "table": "order"}})
    assert bench.rows("source") == [{"select": 1, evil: "'; DROP TABLE target; --"}]


def test_types_of_postgresql_arrive_as_what_they_are(bench: Workbench, services: Services, worker_id: str) -> None:
    url = create_database(services.database_url, f"stages_{worker_id}")
    place = as_connector(url, bench)
    with psycopg.connect(url.replace("postgresql+psycopg", "postgresql"), autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE target AS SELECT 12345678901234567.25::numeric AS n, 1::smallint AS s, true AS b, DATE '2026-01-02' "
            "AS d, TIMESTAMPTZ '2026-01-02 03:04:05+00' AS t, 'x'::text AS x, NULL::text AS z, ARRAY[1, 2] AS l"
        )
    bench.run("source", {"from": {**place, "table": "target"}})
    assert bench.rows("source") == [
        {
            "n": Decimal("12345678901234567.250000000"), "s": 1, "b": True, "d": date(2026, 1, 2),
            "t": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "x": "x", "z": None, "l": [1, 2],
        }
    ]  # fmt: skip


def test_a_wrong_password_is_said_without_being_told(bench: Workbench, services: Services, worker_id: str) -> None:
    place = as_connector(create_database(services.database_url, f"stages_{worker_id}"), bench)
    bench.environment["DB_PASSWORD"] = "hunter2&x=/"
    with pytest.raises(StageFailed) as caught:
        bench.run("source", {"from": {**place, "table": "target"}})
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in str(caught.value.__cause__)


def test_empty_columns_of_sqlite_keep_their_declared_type(bench: Workbench) -> None:
    place = {"connector": "sqlite", "path": "some.db"}
    bench.give("orders", {"id": [1], "word": ["x"], "at": [date(2026, 1, 1)]})
    bench.run("sink", {"to": {**place, "table": "target"}}, inputs=["orders"])
    config = {"from": {**place, "table": "target"}, "incremental": {"by": "watermark", "column": "id"}}
    first = bench.run("source", config, run_id="r1")
    assert bench.run("source", config, run_id="r2").columns == first.columns


@pytest.fixture
def stream(bench: Workbench, services: Services) -> Iterator[tuple[dict[str, Any], "redis.Redis"]]:
    split = urlsplit(services.broker_url)
    bench.environment["STREAM_PASSWORD"] = split.password or ""
    bench.egress = "127.0.0.0/8"
    name = f"stream-{id(bench)}"
    client = redis.Redis.from_url(services.broker_url)
    connector = {
        "connector": "redis", "host": split.hostname, "port": split.port, "stream": name, "batch": 1000,
        "database": int(split.path.strip("/") or 0), "credentials": {"password": "STREAM_PASSWORD"},
    }  # fmt: skip
    yield connector, client
    client.delete(name)
    client.close()


def test_a_stream_is_read_once_from_where_the_last_run_ended(
    bench: Workbench, stream: tuple[dict[str, Any], "redis.Redis"]
) -> None:
    connector, client = stream
    config = {"from": connector, "incremental": {"by": "offset"}}
    for number in range(1500):
        client.xadd(connector["stream"], {"n": str(number)})
    assert bench.run("source", config, run_id="r1").rows == 1000
    first = [row["n"] for row in bench.rows("source")]
    assert bench.run("source", config, run_id="r1", attempt=2).rows == 1000
    assert bench.run("source", config, run_id="r2").rows == 500
    assert [int(n) for n in first + [row["n"] for row in bench.rows("source")]] == list(range(1500))
    nothing = bench.run("source", config, run_id="r3")
    assert (nothing.rows, [name for name, _ in nothing.columns]) == (0, ["_id", "n"])
    client.xadd(connector["stream"], {"n": "last"})
    bench.run("source", config, run_id="r4")
    assert [row["n"] for row in bench.rows("source")] == ["last"]


def test_each_row_goes_into_a_stream_once_however_often_the_run_is_tried(
    bench: Workbench, stream: tuple[dict[str, Any], "redis.Redis"], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first try ends in the middle, after some batches were added."""
    connector, client = stream
    bench.give("orders", {"n": list(range(2500)), "word": ["x", None] * 1250})
    config = {"to": connector, "mode": "append"}
    real = redis.client.Pipeline.execute
    left = [2]

    def breaks(self: Any, *rest: Any, **more: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise redis.ConnectionError("gone")
        return real(self, *rest, **more)

    monkeypatch.setattr(redis.client.Pipeline, "execute", breaks)
    with pytest.raises(StageFailed, match="gone"):
        bench.run("sink", config, inputs=["orders"])
    assert client.xlen(connector["stream"]) == 2000
    monkeypatch.setattr(redis.client.Pipeline, "execute", real)
    bench.run("sink", config, inputs=["orders"], attempt=2)
    bench.run("sink", config, inputs=["orders"], attempt=3)
    entries: Any = client.xrange(connector["stream"])
    found = [fields for _, fields in entries]
    assert [int(fields[b"n"]) for fields in found] == list(range(2500))
    assert [b"word" in fields for fields in found[:2]] == [True, False]


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(bench: Workbench, s3: str) -> dict[str, Any]:
    name = f"b-{id(bench)}"
    bench.environment |= {"S3_KEY": "test", "S3_SECRET": "test"}
    bench.egress = "127.0.0.0/8"
    s3fs.S3FileSystem(key="test", secret="test", endpoint_url=s3, skip_instance_cache=True).mkdir(name)
    keys = {"key": "S3_KEY", "secret": "S3_SECRET"}
    return {"connector": "files", "endpoint_url": s3, "credentials": keys, "url": f"s3://{name}"}


@pytest.mark.parametrize("ending", ["parquet", "csv.gz"])
def test_objects_are_written_whole_and_read_again(bench: Workbench, bucket: dict[str, Any], ending: str) -> None:
    one = {**bucket, "url": f"{bucket['url']}/made/one.{ending}"}
    bench.give("orders", ORDERS)
    bench.run("sink", {"to": one}, inputs=["orders"])
    bench.run("source", {"from": {**one, "url": f"{bucket['url']}/made/*.{ending}"}, "incremental": {"by": "files"}})
    assert bench.rows("source") == rows(ORDERS)


def test_a_folder_of_objects_changes_with_its_list_and_once_a_run(bench: Workbench, bucket: dict[str, Any]) -> None:
    folder = {**bucket, "url": f"{bucket['url']}/target", "format": "parquet"}
    read = {"from": {**bucket, "url": f"{bucket['url']}/target/*.parquet"}}
    for columns, run_id in [(ORDERS, "r1"), (NEWER, "r2"), (NEWER, "r2")]:
        bench.give("orders", columns)
        bench.run("sink", {"to": folder, "mode": "append"}, inputs=["orders"], run_id=run_id)
    assert bench.run("source", read).rows == 5
    bench.give("orders", NEWER)
    bench.give("both", {"id": [1, 1, 2, 2]})
    once = {"to": folder, "mode": "upsert", "key": ["id"]}
    with pytest.raises(StageFailed, match="2 keys"):
        bench.run("sink", once, inputs=["both"], run_id="r3")
    bench.run("sink", {"to": folder, "mode": "replace"}, inputs=["orders"], run_id="r4")
    bench.run("sink", once, inputs=["orders"], run_id="r5")
    # Those of the list before stay for who reads them still; those before that are gone.
    assert bench.run("source", read).rows == 4
