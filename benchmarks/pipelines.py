"""Pipelines: a hundred stages that do nothing, the time from one stage to the next, a thousand schedules at once.

Each stage is a job of its own in a process of its own, through the API, PostgreSQL, the broker and a node.
"""

import statistics
import time
from itertools import pairwise
from typing import Any

from app.pipelines.schemas import PipelineBody
from benchmarks.bench import CONTROL_PLANE, Bench, spent
from benchmarks.stack import SLOTS, BenchError
from trellis import Client
from trellis.nouns.pipelines import PipelineRun

LAYERS, WIDTH, ROUNDS = 10, 10, 5
CHAIN = 40
DUE, LARGE = 1_000, 2_000
WITHIN_S = 60.0
SMALL = {"cpus": 0.1, "memory": "16MiB"}
_TOOK = "SELECT extract(epoch FROM ended_at - created_at), state FROM pipeline_runs WHERE id = %s"


def measure(bench: Bench) -> None:
    """All of it."""
    with bench.stack.client() as client:
        _layers(bench, client)
        _chain(bench, client)
        _validation(bench, client)
        _schedules(bench, client)


def _stage(name: str, after: list[str], command: list[str]) -> dict[str, Any]:
    return {"name": name, "after": after, "with": {"command": command}, "resources": SMALL}


def _grid(layers: int, width: int) -> list[dict[str, Any]]:
    """Every stage waits for the whole layer before."""
    names = [[f"s{layer}-{number}" for number in range(width)] for layer in range(layers)]
    return [
        _stage(name, names[layer - 1] if layer else [], ["/bin/true"])
        for layer in range(layers)
        for name in names[layer]
    ]


def _layers(bench: Bench, client: Client) -> None:
    client.pipelines.apply({"name": "bench-layers", "stages": _grid(LAYERS, WIDTH)})
    stages, took = LAYERS * WIDTH, []
    for number in range(ROUNDS + 1):
        before = bench.meter.seconds()
        seconds = _run(bench, client, "bench-layers")
        used = spent(before, bench.meter.seconds())
        if number == 0:
            continue  # every pool, cache and launcher has been used once
        took.append(seconds)
        mine = {name: used.get(name, 0.0) for name in CONTROL_PLANE if name != "flower"}
        shown = {name: round(one * 1000 / stages, 2) for name, one in used.items()}
        bench.printer.line("pipelines.layers.cpu", sum(mine.values()) * 1000 / stages, "ms/stage", **shown)
    bench.printer.line(
        "pipelines.layers", statistics.median(took), "s", stages=stages, layers=LAYERS, slots=SLOTS,
        rounds=[round(one, 2) for one in took],
    )  # fmt: skip


def _chain(bench: Bench, client: Client) -> None:
    """From the moment at which one stage reads the clock to that at which the next does: all that lies between."""
    stages = [_stage(f"s{n}", [f"s{n - 1}"] if n else [], ["/bin/date", "+%s%N"]) for n in range(CHAIN)]
    client.pipelines.apply({"name": "bench-chain", "stages": stages})
    run = client.pipelines.run("bench-chain")
    _wait(client, run)
    jobs = sorted(client.jobs.list(workflow_id=run.id), key=lambda job: int(job.name[1:]))
    times = [int(next(iter(client.jobs.logs(job))).text) / 1e9 for job in jobs]
    bench.printer.times("pipelines.stage_to_stage", [after - before for before, after in pairwise(times)])


def _validation(bench: Bench, client: Client) -> None:
    stages = [stage | {"after": stage["after"][:5]} for stage in _grid(LARGE // 20, 20)]
    body = {"name": "bench-large", "stages": stages}
    schema = PipelineBody()
    began = time.monotonic()
    schema.load(body)
    bench.printer.line("pipelines.validation", time.monotonic() - began, "s", stages=LARGE)
    began = time.monotonic()
    client.pipelines.apply(body)
    bench.printer.line("pipelines.apply", time.monotonic() - began, "s", stages=LARGE)


def _schedules(bench: Bench, client: Client) -> None:
    """So many that are due at the same moment: until the last of their runs is there."""
    for number in range(DUE):
        schedule = {"every": "1d", "starts_at": "2099-01-01T00:00:00Z"}
        name = f"bench-due-{number}"
        client.pipelines.apply({"name": name, "stages": [_stage("s", [], ["/bin/true"])], "schedule": schedule})
    with bench.stack.database() as database:
        # The moment itself is what is measured: nobody waits for midnight.
        database.execute("UPDATE pipeline_schedules SET fires_at = now() + interval '1 second'")
        deadline = time.monotonic() + WITHIN_S
        made, last = 0, 0.0
        while made < DUE and time.monotonic() < deadline:
            time.sleep(0.2)
            row: Any = database.execute(
                "SELECT count(*), extract(epoch FROM max(created_at) - min(fire_at)) FROM pipeline_runs "
                "WHERE fire_at IS NOT NULL"
            ).fetchone()
            made, last = row[0], float(row[1] or 0)
        if made < DUE:
            raise BenchError(f"{made} of {DUE} pipelines had fired after {WITHIN_S:.0f} s")
        bench.printer.line("pipelines.fired", last, "s", pipelines=DUE)


def _run(bench: Bench, client: Client, name: str) -> float:
    run = client.pipelines.run(name)
    deadline = time.monotonic() + WITHIN_S
    with bench.stack.database() as database:
        row: Any = (None, "")
        while row[0] is None and time.monotonic() < deadline:
            time.sleep(0.1)
            row = database.execute(_TOOK, (run.id,)).fetchone()
    if row[1] != "succeeded":
        raise BenchError(f"the run of {name} ended {row[1]}")
    return float(row[0])


def _wait(client: Client, run: PipelineRun) -> None:
    client.pipelines.wait(run, WITHIN_S)
