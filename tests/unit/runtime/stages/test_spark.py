"""Functions on Spark, where it and Java are installed."""

import shutil
import sys
from importlib.util import find_spec

import pytest

from tests.support.stage_runs import Workbench
from trellis.runtime.stages.faults import StageFailed

SUMS = """
def sums(spark, orders, least):
    return orders.where(orders.amount > least).groupBy("customer").sum("amount").orderBy("customer")

def wrong(spark, orders):
    return 1
"""


@pytest.fixture
def orders(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> Workbench:
    bench.give("orders", {"customer": [1, 1, 2], "amount": [1.0, 2.0, 30.0]})
    bench.file("on_spark.py", SUMS)
    monkeypatch.chdir(bench.folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return bench


@pytest.mark.skipif(find_spec("pyspark") is None, reason="the extra spark is not installed")
@pytest.mark.skipif(shutil.which("java") is None, reason="there is no Java")
@pytest.mark.slow  # Java starts
def test_a_function_on_spark_makes_a_data_set(orders: Workbench) -> None:
    transform = {"spark": "on_spark:sums", "master": "local[1]"}
    made = orders.run("transform", transform, inputs=["orders"], parameters={"least": 1})
    assert orders.rows("transform") == [
        {"customer": 1, "sum(amount)": 2.0},
        {"customer": 2, "sum(amount)": 30.0},
    ]
    assert made.columns == (("customer", "BIGINT"), ("sum(amount)", "DOUBLE"))
    with pytest.raises(StageFailed, match="returned int"):
        orders.run("transform", {"spark": "on_spark:wrong", "master": "local[1]"}, inputs=["orders"])


@pytest.mark.skipif(find_spec("pyspark") is not None, reason="the extra spark is installed")
def test_without_spark_the_stage_says_what_to_install(orders: Workbench) -> None:
    with pytest.raises(StageFailed, match=r"trellis\[spark\]"):
        orders.run("transform", {"spark": "on_spark:sums"}, inputs=["orders"])
