"""Rules find what breaks them; bad rows are put aside; changes of columns are seen."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.support.stage_runs import Workbench
from trellis.runtime.stages.evolution import Change, compare
from trellis.runtime.stages.faults import StageFailed
from trellis.runtime.stages.folders import Dataset

GOOD: dict[str, list[Any]] = {"id": [1, 2, 3], "mail": ["a@x", "b@x", None], "age": [10, 20, None]}


def judged(bench: Workbench, columns: dict[str, list[Any]], *rules: dict[str, Any], run_id: str = "r1") -> Dataset:
    bench.give("people", columns)
    return bench.run("quality", {"rules": list(rules)}, inputs=["people"], run_id=run_id)


@pytest.mark.parametrize(
    ("rule", "bad"),
    [
        ({"rule": "not_null", "column": "mail"}, 1),
        ({"rule": "not_null", "columns": ["mail", "age"]}, 1),
        ({"rule": "unique", "column": "twin"}, 2),
        ({"rule": "range", "column": "age", "min": 11}, 1),
        ({"rule": "range", "column": "age", "max": 15.5}, 1),
        ({"rule": "range", "column": "day", "min": "2026-01-02"}, 1),
        ({"rule": "in_set", "column": "id", "values": [1, 2]}, 1),
        ({"rule": "in_set", "column": "mail", "values": ["a@x", "it's"]}, 1),
        ({"rule": "pattern", "column": "mail", "pattern": "a@[a-z]"}, 1),
        ({"rule": "condition", "condition": "age < 15 OR id = 3 -- said so"}, 1),
        ({"rule": "row_count", "min": 4}, 1),
        ({"rule": "row_count", "max": 2}, 1),
        ({"rule": "sql", "sql": "SELECT id FROM data GROUP BY id HAVING id > 1;"}, 2),
    ],
)
def test_each_rule_counts_what_breaks_it(bench: Workbench, rule: dict[str, Any], bad: int) -> None:
    columns = {**GOOD, "twin": [1, 1, None], "day": ["2026-01-01", "2026-01-02", "2026-01-03"]}
    found = judged(bench, columns, {**rule, "severity": "warn"}).notes["quality"]
    assert [(one["bad"], one["passed"]) for one in found] == [(bad, False)]
    with pytest.raises(StageFailed, match="the data broke 1 rules"):
        judged(bench, columns, rule)


@pytest.mark.parametrize(
    "rule",
    [
        {"rule": "not_null", "column": "id"}, {"rule": "unique", "column": "id"},
        {"rule": "range", "column": "age", "min": 10, "max": 20}, {"rule": "in_set", "column": "age", "values": [10, 20]},
        {"rule": "pattern", "column": "mail", "pattern": "[ab]@x"}, {"rule": "condition", "condition": "age > 5"},
        {"rule": "row_count", "min": 3, "max": 3}, {"rule": "sql", "sql": "SELECT * FROM data WHERE id > 3"},
    ],
)  # fmt: skip
def test_what_keeps_its_rule_passes_whole_and_nulls_break_none_but_not_null(bench: Workbench, rule: Any) -> None:
    assert judged(bench, GOOD, rule).rows == 3


def test_freshness_is_the_age_of_the_newest(bench: Workbench) -> None:
    now = datetime.now(UTC)
    rule = {"rule": "freshness", "column": "at", "max_age": "2h"}
    assert judged(bench, {"at": [now - timedelta(days=9), now - timedelta(hours=1)]}, rule).rows == 2
    assert judged(bench, {"at": [(now - timedelta(hours=1)).replace(tzinfo=None)]}, rule).rows == 1
    with pytest.raises(StageFailed, match="the newest is"):
        judged(bench, {"at": [now - timedelta(hours=3)]}, rule)
    with pytest.raises(StageFailed, match="the newest is nothing"):
        judged(bench, {"at": [None]}, rule)


def test_rows_are_counted_against_earlier_runs(bench: Workbench) -> None:
    rule = {"rule": "row_count", "within": 0.5}
    for run, rows in enumerate([100, 120, 90]):
        judged(bench, {"id": list(range(rows))}, rule, run_id=f"r{run}")
    with pytest.raises(StageFailed, match="20 rows, wanted are from 51"):
        judged(bench, {"id": list(range(20))}, rule, run_id="r9")
    assert judged(bench, {"id": list(range(150))}, rule, run_id="r9").rows == 150


def test_bad_rows_go_to_a_folder_aside_with_the_rules_they_broke(bench: Workbench) -> None:
    aside: list[dict[str, Any]] = [
        {"rule": "not_null", "column": "mail", "severity": "quarantine"},
        {"rule": "range", "column": "id", "max": 2, "severity": "quarantine", "name": "low ids"},
    ]
    made = judged(bench, GOOD, *aside, {"rule": "not_null", "column": "age"}, {"rule": "row_count", "max": 2})
    assert [row["id"] for row in bench.rows("quality")] == [1, 2]
    noted = made.notes["quarantine"]
    assert noted["rows"] == 1
    bad = pq.read_table(bench.output("quality") / noted["file"]).to_pylist()
    assert bad == [{"id": 3, "mail": None, "age": None, "_broken": ["not_null mail", "low ids"]}]


def test_a_rule_that_names_no_column_of_the_data_is_refused(bench: Workbench) -> None:
    with pytest.raises(StageFailed, match="there is no column gone; there are id, mail, age"):
        judged(bench, GOOD, {"rule": "unique", "column": "gone"})


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        ("INTEGER", "BIGINT", "widened"), ("BIGINT", "INTEGER", "broken"), ("FLOAT", "DOUBLE", "widened"),
        ("BIGINT", "DOUBLE", "broken"), ("BIGINT", "VARCHAR", "broken"), ("DATE", "TIMESTAMP", "widened"),
        ("DECIMAL(9,2)", "DECIMAL(12,4)", "widened"), ("DECIMAL(9,2)", "DECIMAL(10,4)", "broken"),
        ("UINTEGER", "BIGINT", "widened"), ("INTEGER", "DOUBLE", "widened"),
    ],
)  # fmt: skip
def test_a_type_widens_only_where_every_value_stays(before: str, after: str, change: str) -> None:
    assert compare([("a", before)], [("a", after)]) == [Change("a", change, before, after)]


def test_columns_that_come_and_go_are_told_apart() -> None:
    found = compare([("a", "INTEGER"), ("b", "DATE")], [("c", "DATE"), ("a", "INTEGER")])
    assert [str(change) for change in found] == ["b removed (DATE)", "c added (DATE)"]
    assert compare([], [("a", "DATE")]) == []


def test_the_policy_decides_what_a_change_means(bench: Workbench) -> None:
    def made(columns: dict[str, list[Any]], run_id: str, **policy: str) -> Dataset:
        bench.give("people", columns)
        config = {"sql": "SELECT * FROM people", "schema": policy}
        return bench.run("transform", config, inputs=["people"], run_id=run_id)

    made({"a": [1], "b": ["x"]}, "r1")
    added = made({"a": [1], "b": ["x"], "c": [1.5]}, "r2", added="warn")
    assert added.notes["evolution"] == [
        {"column": "c", "change": "added", "before": "", "after": "DOUBLE", "action": "warn"}
    ]
    with pytest.raises(StageFailed, match=r"b removed \(VARCHAR\)"):
        made({"a": [1], "c": [1.5]}, "r3")
    with pytest.raises(StageFailed, match=r"c broken \(DOUBLE to VARCHAR\)"):
        made({"a": [1], "b": ["x"], "c": ["1.5"]}, "r3")
    assert made({"a": [1]}, "r3", removed="allow").columns == (("a", "BIGINT"),)
