"""SQL of a stage that reaches for more than its inputs: refused in words, and stopped by the wall behind the words."""

import os
from pathlib import Path

import duckdb
import pytest

from tests.support.stage_runs import Workbench
from trellis.runtime.stages.engine import engine, shut_off
from trellis.runtime.stages.faults import StageFailed
from trellis.runtime.stages.queries import check_query

ATTACKS = r"""
SELECT * FROM 'FILE'
SELECT * FROM "FILE"
FROM 'FILE'
SELECT * FROM ('FILE')
SELECT * FROM orders, 'FILE'
SELECT * FROM orders WHERE EXISTS (FROM 'FILE')
SELECT (SELECT content FROM read_text('FILE')) FROM orders
SELECT * FROM read_csv('FILE')
SELECT * FROM read_csv_auto('FILE')
SELECT * FROM "read_csv"('FILE')
SELECT * FROM READ_CSV(/* quiet */ 'FILE')
SELECT * FROM read_csv(['FILE', 'FILE'])
SELECT * FROM read_csv('FI' || 'LE')
SELECT * FROM system.main.read_csv('FILE')
SELECT * FROM read_parquet('FILE')
SELECT * FROM parquet_scan('FILE')
SELECT * FROM parquet_metadata('FILE')
SELECT * FROM read_json('FILE')
SELECT * FROM read_blob('FILE')
SELECT * FROM sniff_csv('FILE')
SELECT * FROM glob('FOLDER/*')
SELECT glob('FOLDER/*')
SELECT ('FILE').read_text()
SELECT * FROM sqlite_scan('FILE', 't')
WITH x AS (SELECT * FROM read_text('FILE')) SELECT * FROM x
WITH x AS (WITH y AS (FROM 'FILE') FROM y) SELECT * FROM x
WITH "FILE" AS (SELECT * FROM "FILE") SELECT * FROM "FILE"
WITH orders AS (DELETE FROM orders RETURNING *) SELECT * FROM orders
WITH x AS (INSERT INTO orders VALUES (1) RETURNING *) SELECT * FROM x
SELECT * FROM query('SELECT 1')
SELECT * FROM query_table('orders')
SELECT * FROM query('FROM read_text(''FILE'')')
SELECT * FROM json_execute_serialized_sql('{}')
SELECT 1; SELECT 2
SELECT 1; ATTACH 'FILE'
SELECT 1) TO 'FILE' (FORMAT csv); --
SELECT 1 --\n; COPY orders TO 'FILE'
/* SELECT 1 */ COPY orders TO 'FILE'
COPY orders TO 'FILE'
COPY (SELECT 1) TO 'FILE'
EXPORT DATABASE 'FOLDER'
IMPORT DATABASE 'FOLDER'
ATTACH 'FILE' AS other
ATTACH ':memory:' AS other
DETACH memory
INSTALL httpfs
FORCE INSTALL httpfs FROM 'http://127.0.0.1:1'
LOAD httpfs
LOAD 'FILE'
PRAGMA database_list
PRAGMA enable_profiling
CALL pragma_version()
SET memory_limit = '100GB'
SET enable_external_access = true
RESET lock_configuration
SET VARIABLE x = 1
CREATE TABLE t AS SELECT 1
CREATE MACRO f() AS TABLE SELECT * FROM read_text('FILE')
CREATE SECRET s (TYPE s3)
CREATE FUNCTION f(x) AS x
DROP VIEW orders
ALTER TABLE orders RENAME TO x
INSERT INTO orders VALUES (1)
UPDATE orders SET id = 1
DELETE FROM orders
TRUNCATE orders
MERGE INTO orders USING orders o ON true WHEN MATCHED THEN DELETE
EXPLAIN ANALYZE SELECT 1
DESCRIBE orders
SUMMARIZE orders
FROM (DESCRIBE orders)
SELECT * FROM (SHOW TABLES)
SHOW ALL TABLES
PREPARE p AS SELECT 1
EXECUTE p
USE memory
BEGIN
CHECKPOINT
VACUUM
PIVOT orders ON id
SELECT * FROM information_schema.tables
SELECT * FROM main.orders
SELECT * FROM memory.main.orders
SELECT * FROM pg_catalog.pg_class
SELECT * FROM sqlite_master
SELECT * FROM duckdb_settings()
SELECT * FROM duckdb_secrets()
SELECT * FROM pragma_table_info('orders')
SELECT current_setting('temp_directory')
SELECT getenv('HOME')
SELECT getvariable('x')
SELECT nextval('s')
SELECT * FROM $table
SELECT * FROM 'http://127.0.0.1:1/x.parquet'
SELECT * FROM 's3://bucket/x.parquet'
SELECT * FROM read_csv('http://127.0.0.1:1/x.csv')
SELECT * FROM repeat_row(1, num_rows = 1)
SELECT * FROM seq_scan('orders')
SELECT * FROM arrow_scan(1, 2, 3)
SELECT * FROM pandas_scan(1)
SELECT * FROM nothing_there
SELECT write_log('x')
""".strip().splitlines()


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_reaches_beyond_the_inputs_is_refused_before_anything_runs(tmp_path: Path, attack: str) -> None:
    with pytest.raises(StageFailed, match=r"SQL|input|function|FROM|part of the query"):
        check_query(spelled(attack, tmp_path), {"orders"})


def spelled(attack: str, folder: Path) -> str:
    return attack.replace("\\n", "\n").replace("FILE", f"{folder}/secret.csv").replace("FOLDER", str(folder))


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_wall_holds_where_the_words_would_not(tmp_path: Path, attack: str) -> None:
    """Straight into the engine, past the check: no byte of a file is read, none written, nothing called or loaded."""
    (tmp_path / "secret.csv").write_text("canary\nSECRET\n")
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    before = sorted(path for path in tmp_path.rglob("*"))
    said = ""
    with engine(tmp_path / "out") as connection:
        connection.execute("CREATE TABLE orders AS SELECT 1 AS id")
        shut_off(connection, [tmp_path / "in"], tmp_path / "out")
        try:
            said = str(connection.execute(spelled(attack, tmp_path)).fetchall())
        except duckdb.Error as error:
            said = "" if "SECRET" not in str(error) else str(error)
        assert "SECRET" not in said
        settings = "SELECT current_setting('enable_external_access'), current_setting('lock_configuration')"
        assert connection.execute(settings).fetchall() == [(False, True)]
    assert sorted(path for path in tmp_path.rglob("*")) == before
    assert (tmp_path / "secret.csv").read_text() == "canary\nSECRET\n"


@pytest.mark.parametrize(
    "honest",
    [
        "SELECT id FROM orders; -- done;", "FROM orders", "WITH o AS (SELECT * FROM orders) SELECT * FROM o",
        "SELECT * FROM range(3)", "SELECT unnest([1, 2])", "SELECT read_me FROM (SELECT id AS read_me FROM orders)",
        "SELECT 'COPY orders TO ''x''; ATTACH' AS text FROM orders", 'SELECT "drop table" FROM (SELECT 1 AS "drop table")',
        "SELECT list_transform([1], lambda x: x + 1) FROM orders", "SELECT id FROM orders UNION ALL SELECT 2",
        "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 3) SELECT * FROM t",
        "SELECT id, row_number() OVER (ORDER BY id) AS r FROM orders QUALIFY r = 1",
        "SELECT * FROM orders o ASOF JOIN orders p ON o.id >= p.id", "SELECT /* ; DROP TABLE x */ 1 AS one",
    ],
)  # fmt: skip
def test_honest_queries_pass_and_run(bench: Workbench, honest: str) -> None:
    bench.give("orders", {"id": [1, 2]})
    assert bench.run("transform", {"sql": honest}, inputs=["orders"]).rows > 0


@pytest.mark.parametrize(
    "bomb",
    [
        "SELECT " + "(" * 5000 + "1" + ")" * 5000,
        "SELECT " + "-" * 20_000 + "1",
        "SELECT " + "+".join("1" for _ in range(40_000)),
        "WITH " + ", ".join(f"c{n} AS (SELECT 1)" for n in range(9_000)) + " SELECT 1",
        "SELECT '" + "x" * 200_000 + "'",
        "SELECT 1\x00; DROP TABLE x",
    ],
    ids=["brackets", "minus", "sums", "parts", "long", "nul"],
)
def test_a_query_that_is_a_bomb_is_refused_in_bounded_time(bomb: str) -> None:
    with pytest.raises(StageFailed):
        check_query(bomb, set())


def test_rules_of_quality_reach_no_further_than_sql(bench: Workbench) -> None:
    bench.file("secret.csv", "canary\nSECRET\n")
    bench.give("orders", {"id": [1]})
    for rule in (
        {"rule": "sql", "sql": f"SELECT * FROM read_text('{bench.folder}/secret.csv')"},
        {"rule": "condition", "condition": f"(SELECT count(*) FROM read_text('{bench.folder}/secret.csv')) = 0"},
        {"rule": "condition", "condition": "true) AS x; DROP VIEW data; SELECT (true"},
        {"rule": "sql", "sql": "COPY data TO 'x.csv'"},
    ):
        with pytest.raises(StageFailed, match=r"SQL|function"):
            bench.run("quality", {"rules": [rule]}, inputs=["orders"])
    quoted = {"rule": "in_set", "column": "id", "values": ["'); ATTACH 'x"], "name": "it's\"", "severity": "quarantine"}
    with pytest.raises(StageFailed, match="Conversion"):
        bench.run("quality", {"rules": [quoted]}, inputs=["orders"])


def test_names_of_columns_are_never_sql(bench: Workbench) -> None:
    evil = 'x" FROM data; DROP VIEW data; --'
    bench.give("orders", {evil: [1, 2], "it's": ["=1+1", None]})
    rules = [{"rule": "unique", "column": evil}, {"rule": "not_null", "column": "it's", "severity": "quarantine"}]
    made = bench.run("quality", {"rules": rules}, inputs=["orders"])
    assert [name for name, _ in made.columns] == [evil, "it's"]
    assert made.rows == 1


def test_environment_of_the_process_is_out_of_reach(bench: Workbench) -> None:
    bench.give("orders", {"id": [1]})
    os.environ["TRELLIS_TEST_CANARY"] = "SECRET"
    try:
        with pytest.raises(StageFailed):
            bench.run("transform", {"sql": "SELECT getenv('TRELLIS_TEST_CANARY')"}, inputs=["orders"])
    finally:
        del os.environ["TRELLIS_TEST_CANARY"]
