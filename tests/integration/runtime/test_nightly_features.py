"""The stages of the example of a night's work, on its own data."""

import importlib
import sqlite3
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.stage_runs import Workbench

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


def test_two_nights_make_one_table_of_features_from_each_order_once(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    example: Any = importlib.import_module("nightly_features")
    example.make_customers(bench.folder / "raw")
    made: dict[str, Any] = {}
    read = []
    for night in range(2):
        today = example.FIRST + timedelta(night)
        example.make_orders(bench.folder / "raw", today)
        for name, kind, inputs, config in example.STAGES:
            more = {"parameters": {"today": str(today)}, "run_id": f"night-{today}"}
            made[name] = bench.run(kind, config, name, inputs=inputs, **more)
        read.append(made["orders"].rows)
    assert read == [example.ORDERS_A_DAY] * 2
    with sqlite3.connect(bench.folder / "shop.db") as connection:
        assert connection.execute("SELECT count(*) FROM features").fetchone() == (example.CUSTOMERS,)
        assert connection.execute("SELECT count(*) FROM trellis_applied").fetchone() == (2,)
    lineage = made["features"].notes["lineage"]
    assert lineage["spent"] == [{"input": "checked", "column": "amount"}]
    assert lineage["city"] == [{"input": "customers", "column": "city"}]
    assert made["checked"].notes["quarantine"]["rows"] > 0
