"""How much of a cluster's GPUs can be given away: `python -m benchmarks.packing FOLDER`, on one core.

FOLDER holds the openb trace (github.com/alibaba/clusterdata, cluster-trace-gpu-v2023): `openb_node_list_gpu_node.csv`
and `openb_pod_list_*.csv`, of which the shared variants default, gpuspec33, gpushare60, multigpu30 and cpu100 count.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.lines import Printer, say
from scheduler.config import Config
from scheduler.simulator.openb import Packed, pack_arrivals, pack_queue, read_nodes, read_pods
from scheduler.snapshot import Node, Request

LOAD = 1.3
SEEDS = 10
CONFIG = Config()
# Mean of ten runs at 130 % load, % of GPUs allocated under FGD: github.com/hkust-adsl/kubernetes-scheduler-simulator,
# experiments/analysis/expected_results.
PUBLISHED = {"default": 95.39, "gpuspec33": 94.55, "gpushare60": 91.40, "multigpu30": 96.46, "cpu100": 95.35}


def measure(printer: Printer, folder: Path, seeds: int = SEEDS) -> None:
    """Pack every variant that the folder has, as it arrives and as a queue that is seen whole."""
    nodes = _nodes(folder)
    means = {}
    for variant, published in PUBLISHED.items():
        pods = _pods(folder, variant)
        means[variant] = _line(printer, f"arrivals.{variant}", [partial(pack_arrivals, nodes, pods)] * seeds, published)
        _line(printer, f"queue.{variant}", [partial(pack_queue, nodes, pods, config=CONFIG)] * seeds, published)
    mean, published = statistics.fmean(means.values()), statistics.fmean(PUBLISHED.values())
    printer.line("packing.arrivals.mean", mean, "%", published=round(published, 2), load=LOAD, seeds=seeds)


def _line(printer: Printer, name: str, runs: Sequence[partial[Packed]], published: float) -> float:
    seconds, packed = [], []
    for seed, run in enumerate(runs, start=1):
        begun = time.process_time()
        packed.append(run(load=LOAD, seed=seed))
        seconds.append(time.process_time() - begun)
    percents = [one.allocated_percent for one in packed]
    mean = statistics.fmean(percents)
    printer.line(
        f"packing.{name}",
        mean,
        "%",
        published=published,
        deviation=round(statistics.pstdev(percents), 3),
        load=LOAD,
        seeds=len(packed),
        tasks=round(statistics.fmean(one.arrived for one in packed)),
        cpu_s=round(statistics.median(seconds), 2),
    )
    return mean


def _nodes(folder: Path) -> tuple[Node, ...]:
    with open(folder / "openb_node_list_gpu_node.csv", encoding="utf-8", newline="") as lines:
        return read_nodes(lines)


def _pods(folder: Path, variant: str) -> tuple[Request, ...]:
    with open(folder / f"openb_pod_list_{variant}.csv", encoding="utf-8", newline="") as lines:
        return read_pods(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.packing", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    given = parser.parse_args()
    try:
        measure(Printer(), given.folder, given.seeds)
    except FileNotFoundError as error:
        say(f"{error.filename} is not there")
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
