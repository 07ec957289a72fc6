"""Data sets are made of data sets: by SQL with its lineage, and by functions."""

import sys
from pathlib import Path

import pytest

from tests.support.stage_runs import Workbench
from trellis.runtime.stages.faults import StageFailed

ORDERS = {"id": [1, 2, 3], "customer": [7, 7, 8], "amount": [10.0, 20.0, 5.0]}
CUSTOMERS = {"customer": [7, 8], "name": ["a", "b"]}
BY_CUSTOMER = """
WITH spent AS (SELECT customer, sum(amount) AS total FROM orders WHERE amount > $least GROUP BY customer)
SELECT c.name, s.total, s.total * 2 AS twice, count(*) OVER () AS rows
FROM spent s JOIN customers c USING (customer) ORDER BY name;  -- the end
"""
FUNCTIONS = """
import polars as pl
import pyarrow.compute as pc

def dear(orders, least):
    return orders.filter(pc.field("amount") > least)

def lazy(orders):
    return orders.group_by("customer").agg(pl.col("amount").sum()).sort("customer")

def wrong(orders):
    return 5
"""


@pytest.fixture
def given(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> Workbench:
    bench.give("orders", ORDERS)
    bench.give("customers", CUSTOMERS)
    name = f"functions_{abs(hash(str(bench.folder)))}"
    bench.file(f"{name}.py", FUNCTIONS)
    monkeypatch.chdir(bench.folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    bench.environment["module"] = name
    return bench


def test_sql_sees_its_inputs_by_name_and_parameters_as_values(given: Workbench) -> None:
    given.run("transform", {"sql": BY_CUSTOMER}, inputs=["orders", "customers"], parameters={"least": 6, "other": "x"})
    assert given.rows("transform") == [{"name": "a", "total": 30.0, "twice": 60.0, "rows": 1}]


def test_each_column_of_a_query_is_traced_to_those_it_comes_from(given: Workbench) -> None:
    made = given.run("transform", {"sql": BY_CUSTOMER}, inputs=["orders", "customers"], parameters={"least": 0})
    assert made.notes["lineage"] == {
        "name": [{"input": "customers", "column": "name"}],
        "total": [{"input": "orders", "column": "amount"}],
        "twice": [{"input": "orders", "column": "amount"}],
        "rows": [],
    }


def test_a_star_is_traced_column_by_column(given: Workbench) -> None:
    made = given.run("transform", {"sql": "SELECT * EXCLUDE (id) FROM orders"}, inputs=["orders"])
    assert made.notes["lineage"]["amount"] == [{"input": "orders", "column": "amount"}]


def test_a_parameter_that_looks_like_sql_stays_a_value(given: Workbench) -> None:
    text = "x'; DROP TABLE orders; --"
    given.run(
        "transform", {"sql": "SELECT $text AS text FROM orders LIMIT 1"}, inputs=["orders"], parameters={"text": text}
    )
    assert given.rows("transform") == [{"text": text}]


def test_a_missing_parameter_is_named(given: Workbench) -> None:
    with pytest.raises(StageFailed, match="does not have: least"):
        given.run("transform", {"sql": BY_CUSTOMER}, inputs=["orders", "customers"])


def test_the_same_inputs_give_the_same_digest(given: Workbench) -> None:
    first = given.run("transform", {"sql": "SELECT * FROM orders"}, inputs=["orders"])
    second = given.run("transform", {"sql": "SELECT * FROM orders"}, inputs=["orders"], run_id="r2")
    assert first.digest == second.digest
    assert first.parts[0].name != second.parts[0].name


def test_a_function_on_arrow_tables_gets_inputs_and_parameters_by_name(given: Workbench) -> None:
    code = f"{given.environment['module']}:dear"
    given.run("transform", {"python": code}, inputs=["orders"], parameters={"least": 15, "other": 1})
    assert [row["id"] for row in given.rows("transform")] == [2]


def test_a_function_on_frames_of_polars_may_stay_lazy(given: Workbench) -> None:
    code = f"{given.environment['module']}:lazy"
    given.run("transform", {"python": code, "frames": "polars"}, inputs=["orders"])
    assert given.rows("transform") == [{"customer": 7, "amount": 30.0}, {"customer": 8, "amount": 5.0}]


def test_what_is_wrong_with_a_function_is_said(given: Workbench) -> None:
    module = given.environment["module"]
    for name, said in [("gone", "no function gone"), ("wrong", "returned int"), ("dear", "missing a required")]:
        with pytest.raises(StageFailed, match=said):
            given.run("transform", {"python": f"{module}:{name}"}, inputs=["orders"])
    with pytest.raises(StageFailed, match="no module no_such_module"):
        given.run("transform", {"python": "no_such_module:f"}, inputs=["orders"])


def test_a_query_beyond_its_memory_spills_to_disk(bench: Workbench) -> None:
    """Sorting 3 million wide rows within 64 MB: it ends, and leaves no spilled file behind."""
    bench.give("seed", {"n": [0]})
    sql = "SELECT hash(i) AS h, hash(i + 1) AS g, 'text ' || hash(i) AS t FROM seed, range(3000000) r(i) ORDER BY h"
    made = bench.run("transform", {"sql": sql, "memory": "96MB"}, inputs=["seed"])
    assert made.rows == 3_000_000
    assert not [path for path in Path(bench.folder).rglob("*") if "spill" in path.name]
