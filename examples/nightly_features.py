"""From raw files to a feature table, night by night: sources, quality, SQL, Python and a sink, stage after stage.

    python examples/nightly_features.py FOLDER --nights 2

The first night makes some 3 MB of orders (the same ones each time) and works through them; each later night brings
one more day, and only that is read. The result is the table `features` in FOLDER/shop.db. Each stage is a process of
its own, as in a job: `python -m trellis.runtime.stages SPEC.json`.
"""

import argparse
import csv
import gzip
import json
import os
import random
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import polars as pl

FIRST = date(2026, 11, 1)
DAYS_BEFORE, ORDERS_A_DAY, CUSTOMERS = 10, 8000, 500
FEATURES = """
SELECT o.customer, c.city, count(*) AS orders, sum(o.amount) AS spent, avg(o.amount) AS usual, max(o.day) AS last_day
FROM checked o JOIN customers c ON c.id = o.customer
WHERE o.day <= CAST($today AS DATE)
GROUP BY o.customer, c.city
ORDER BY o.customer
"""


def ranked(features: pl.LazyFrame) -> pl.LazyFrame:
    """Where each customer stands within the city; the stage `ranked` calls this function."""
    return features.with_columns(rank=pl.col("spent").rank("dense", descending=True).over("city").cast(pl.Int64))


# In the order in which they run: name, kind, inputs, and what each is told.
STAGES = [
    ("orders", "source", [], {
        "from": {"connector": "files", "url": "raw/orders-*.csv.gz", "columns": {"day": "DATE", "amount": "DOUBLE"}},
        "incremental": {"by": "files"},
    }),
    ("customers", "source", [], {"from": {"connector": "files", "url": "raw/customers.jsonl"}}),
    ("checked", "quality", ["orders"], {"rules": [
        {"rule": "range", "column": "amount", "min": 0, "severity": "quarantine"},
        {"rule": "not_null", "columns": ["id", "customer"], "severity": "quarantine"},
        {"rule": "unique", "column": "id"},
        {"rule": "row_count", "min": 1000},
    ]}),
    ("features", "transform", ["checked", "customers"], {"sql": FEATURES, "memory": "1GB"}),
    ("ranked", "transform", ["features"], {"python": "nightly_features:ranked", "frames": "polars"}),
    ("table", "sink", ["ranked"], {
        "to": {"connector": "sqlite", "path": "shop.db", "table": "features"}, "mode": "upsert", "key": ["customer"],
    }),
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--nights", type=int, default=2)
    given = parser.parse_args()
    folder = given.folder.resolve()
    make_customers(folder / "raw")
    for day in range(DAYS_BEFORE):
        make_orders(folder / "raw", FIRST + timedelta(day))
    for night in range(given.nights):
        today = FIRST + timedelta(DAYS_BEFORE + night)
        make_orders(folder / "raw", today)
        print(f"night of {today}", flush=True)
        for number, (name, kind, inputs, config) in enumerate(STAGES, start=1):
            print(f"[{number}/{len(STAGES)}] ", end="", flush=True)
            run_stage(folder, today, {"stage": name, "kind": kind, "inputs": inputs, "with": config})


def run_stage(folder: Path, today: date, stage: dict[str, object]) -> None:
    outputs = folder / "outputs"
    name, inputs = str(stage["stage"]), stage["inputs"]
    assert isinstance(inputs, list)
    spec = {
        **stage, "inputs": {one: str(outputs / one) for one in inputs}, "output": str(outputs / name),
        "state": str(folder / "states" / name), "parameters": {"today": str(today)}, "run_id": f"night-{today}",
        "attempt": 1,
    }  # fmt: skip
    path = folder / f"{name}.json"
    path.write_text(json.dumps(spec), encoding="utf-8")
    # A job begins in the folder of its bundle, where its functions are found; here this file is all there is of it.
    bundle = os.pathsep.join([str(Path(__file__).resolve().parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "trellis.runtime.stages", str(path)]
    subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": bundle}, check=True)


def make_customers(raw: Path) -> None:
    chance = random.Random(1)
    raw.mkdir(parents=True, exist_ok=True)
    cities = ["Łódź", "São Paulo", "Kraków", "Aarhus"]
    lines = [json.dumps({"id": number, "city": chance.choice(cities)}) for number in range(CUSTOMERS)]
    (raw / "customers.jsonl").write_text("\n".join(lines), encoding="utf-8")


def make_orders(raw: Path, day: date) -> None:
    """One day's orders, one in two hundred of them with an amount that can't be."""
    path = raw / f"orders-{day}.csv.gz"
    if path.exists():
        return
    chance = random.Random(day.toordinal())
    with gzip.open(path, "wt", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "day", "customer", "amount", "note"])
        for number in range(ORDERS_A_DAY):
            amount = -1.0 if chance.random() < 0.005 else round(chance.lognormvariate(3, 1), 2)
            note = f"=order {chance.getrandbits(64):x} <{chance.getrandbits(64):x}>"
            writer.writerow([f"{day}-{number}", day, chance.randrange(CUSTOMERS), amount, note])


if __name__ == "__main__":
    main()
