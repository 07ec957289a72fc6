"""A pipeline of functions: measurements are made, cleaned a batch at a time, and summed up; a report is only made where
there is something to report.

Run it, in the folder of this file:

    trellis pipeline apply houses.py
    trellis pipeline run houses --parameter batches=4
"""

import random

from trellis.flows import Pipeline, stage

SMALL = {"cpus": 0.1, "memory": "64MiB"}


@stage(resources=SMALL)
def batches(batches: int) -> list[int]:
    """Which batches there are today; what a stage returns is its result, known only when it has run."""
    return list(range(batches))


@stage(resources=SMALL, over=batches, retries={"limit": 2, "backoff_s": 1})
def clean(item: int, seed: int) -> None:
    """One job a batch."""
    chance = random.Random(seed + item)
    rows = [chance.gauss(100, 30) for _ in range(1000)]
    kept = [row for row in rows if row > 0]
    print(f"batch {item}: kept {len(kept)} of {len(rows)} rows, mean {sum(kept) / len(kept):.1f}")


@stage(resources=SMALL, after=[clean])
def judge(batches: int) -> str:
    """What comes next is chosen by what this tells."""
    return "report" if batches > 1 else "rest"


@stage(resources=SMALL, only_if=(judge, "report"))
def report(day: str) -> None:
    """Only where there was more than one batch."""
    print(f"report of {day}")


@stage(resources=SMALL, after=[report], when="none_failed")
def tidy() -> None:
    """Whichever way was taken."""
    print("tidied")


houses = Pipeline(
    "houses",
    [batches, clean, judge, report, tidy],
    parameters={
        "batches": {"type": "integer", "default": 3},
        "seed": {"type": "integer", "default": 7},
        "day": {"type": "date", "default": "today"},
    },
    description="Cleans measurements, a batch a job",
)
