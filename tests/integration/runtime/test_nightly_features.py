"""The example of a night's work, as a person runs it."""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.slow  # twelve processes, as many as two nights have stages
def test_two_nights_make_one_table_of_features_from_each_order_once(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "examples/nightly_features.py"), str(tmp_path), "--nights", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    read = [int(line.split("orders: ")[1].split()[0]) for line in done.stdout.splitlines() if "orders: " in line]
    assert read == [88_000, 8_000]
    with sqlite3.connect(tmp_path / "shop.db") as connection:
        rows, runs = connection.execute(
            "SELECT count(*), (SELECT count(*) FROM trellis_applied) FROM features"
        ).fetchone()
    assert (rows, runs) == (500, 2)
    lineage = json.loads((tmp_path / "outputs/features/dataset.json").read_text())["lineage"]
    assert lineage["spent"] == [{"input": "checked", "column": "amount"}]
    assert lineage["city"] == [{"input": "customers", "column": "city"}]
    assert json.loads((tmp_path / "outputs/checked/dataset.json").read_text())["quarantine"]["rows"] > 0
