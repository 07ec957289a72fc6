"""`trellis simulate`: the scheduler on a cluster that there is not, faster than real time."""

import gzip
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from math import inf
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from app.cli.commands import sentences
from app.cli.drawings import check_drawing, write_drawing
from app.cli.errors import StackError
from app.cli.live import Live
from app.cli.packing import Packing
from app.cli.scenarios import read_load, read_nodes
from scheduler.config import BackfillOrder, Config
from scheduler.simulator.cluster import LEVELS, one_machine
from scheduler.simulator.report import batch_figures, figures
from scheduler.simulator.run import History, Scenario, simulate
from scheduler.simulator.traces import Trace, TraceError, read_swf
from scheduler.simulator.workload import HOUR_S, Load, Work, draw_outages, draw_workload
from trellis import Client
from trellis.errors import TrellisError
from trellis.profile import environment, resolve

MOST_LOG_BYTES = 1 << 30
_BAR_STEP = 50


class Policy(StrEnum):
    """The orders that can be compared: the platform's own, and those of the literature."""

    DEFAULT = "default"
    FIFO = "fifo"
    EASY = "easy"
    EASY_SJBF = "easy-sjbf"
    CONSERVATIVE = "conservative"


class Estimates(StrEnum):
    """Which limits jobs have: those of the log, or their run times, as if people knew."""

    LOG = "log"
    PERFECT = "perfect"


_EASY = Config(policy="fifo", second_policy="fifo")
CONFIGS: dict[Policy, Config] = {
    Policy.DEFAULT: Config(),
    Policy.FIFO: replace(_EASY, backfill=False),
    Policy.EASY: _EASY,
    Policy.EASY_SJBF: replace(_EASY, backfill_order=BackfillOrder.SHORTEST),
    Policy.CONSERVATIVE: replace(_EASY, reserved_heads=None),
}
# What the published figures call it.
_SHORT = {Policy.CONSERVATIVE: "cons"}


def run(
    swf: Annotated[Path | None, typer.Option(help="A log in the Standard Workload Format, plain or gzip.")] = None,
    policy: Annotated[Policy, typer.Option(help="Who goes first, and who may pass.")] = Policy.DEFAULT,
    estimates: Annotated[Estimates, typer.Option(help="Limits as logged, or the true run times.")] = Estimates.LOG,
    procs: Annotated[int | None, typer.Option(help="Processors, where the log does not say.", min=1)] = None,
    cluster: Annotated[Path | None, typer.Option(help="A cluster.yaml to draw work for.")] = None,
    work: Annotated[Path | None, typer.Option(help="A YAML file that says what work to draw.")] = None,
    seed: Annotated[int, typer.Option(help="Equal seeds draw equal work.")] = 1,
    hours: Annotated[float | None, typer.Option(help="Stop after so many simulated hours.", min=0.01)] = None,
    openb_nodes: Annotated[Path | None, typer.Option(help="The nodes of an openb GPU-sharing trace.")] = None,
    openb_pods: Annotated[Path | None, typer.Option(help="The pods of an openb GPU-sharing trace.")] = None,
    load: Annotated[float, typer.Option(help="openb: ask for so many times the GPUs.", min=0.01, max=10)] = 1.3,
    seeds: Annotated[int, typer.Option(help="openb: how many runs.", min=1, max=1000)] = 10,
    queue_visible: Annotated[bool, typer.Option("--queue-visible", help="openb: all wait at once.")] = False,
    live: Annotated[
        bool, typer.Option("--live", help="Submit it to the platform that runs, whose nodes play it.")
    ] = False,
    speed: Annotated[float, typer.Option(help="live: as in the profile of the nodes.", min=0.01, max=100_000)] = 60.0,
    draw: Annotated[Path | None, typer.Option(help="Write a picture: FILE.svg or FILE.png.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Replay a log, or drawn work, through the scheduler; but for --live nothing of the platform needs to run.

    For example: trellis simulate --cluster examples/cluster.yaml --seed 3
    """
    console = Console()
    with sentences(Console(stderr=True)):
        if openb_nodes is not None or openb_pods is not None:
            if openb_nodes is None or openb_pods is None or not (swf is cluster is work is draw is None):
                raise StackError(
                    "--openb-nodes FILE and --openb-pods FILE go together, and with no --swf, --cluster or --draw."
                )
            packing = Packing(openb_nodes, openb_pods, load, seeds, queue_visible, CONFIGS[policy])
            _tell(packing.run(quiet=as_json), console, as_json=as_json)
            return
        if draw is not None:
            check_drawing(draw)
        if live:
            _tell(
                _Live(swf, cluster, work, estimates, procs, seed, hours, speed).run(quiet=as_json),
                console,
                as_json=as_json,
            )
            return
        if swf is not None and cluster is None:
            history, answer = _Replay(swf, policy, estimates, procs).run(quiet=as_json)
        elif cluster is not None and swf is None:
            history, answer = _Drawn(cluster, work, policy, seed, hours).run(quiet=as_json)
        else:
            raise StackError(
                "Say what to simulate: --swf FILE, --cluster FILE, or --openb-nodes FILE with --openb-pods FILE."
            )
        _tell(answer, console, as_json=as_json)
        if draw is not None:
            write_drawing(draw, history, f"{answer.get('log', answer.get('cluster'))}, {answer['policy']}")


def _tell(answer: dict[str, Any], console: Console, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(answer))
    else:
        console.print(_sheet(answer))


@dataclass(frozen=True, slots=True)
class _Replay:
    """A log to replay, and how."""

    path: Path
    policy: Policy
    estimates: Estimates
    processors: int | None

    def run(self, *, quiet: bool) -> tuple[History, dict[str, Any]]:
        """Return what happened, and the figures it is compared by."""
        trace = self.read()
        scenario = Scenario(one_machine(trace.processors), trace.workload)
        begun = time.monotonic()
        history = _watched(scenario, CONFIGS[self.policy], quiet=quiet)
        if not history.spans:
            raise StackError(f"{self.path} holds no job that can run on {trace.processors} processors.")
        answer = {
            "log": self.path.name,
            "policy": _SHORT.get(self.policy, str(self.policy)),
            "estimates": str(self.estimates),
            "dropped": trace.workload.dropped,
            **asdict(batch_figures(history, trace.processors)),
            "sim_s": round(time.monotonic() - begun, 2),
        }
        return history, answer

    def read(self) -> Trace:
        """The log. Raises StackError for one that is none."""
        try:
            with open(self.path, "rb") as begin:
                packed = begin.read(2) == b"\x1f\x8b"
            with gzip.open(self.path, "rt") if packed else open(self.path) as lines:  # the with closes either
                return read_swf(lines, self.processors, perfect=self.estimates is Estimates.PERFECT)
        except (TraceError, UnicodeDecodeError, EOFError, gzip.BadGzipFile) as error:
            raise StackError(f"{self.path} is no log that can be read: {error}.") from error


@dataclass(frozen=True, slots=True)
class _Drawn:
    """Work to draw for a cluster; it stops after so many `hours`, None: when all is done."""

    cluster: Path
    work: Path | None
    policy: Policy
    seed: int
    hours: float | None

    def run(self, *, quiet: bool) -> tuple[History, dict[str, Any]]:
        """Return what happened, and its figures."""
        nodes = read_nodes(self.cluster)
        load = Load() if self.work is None else read_load(self.work)
        try:
            workload = draw_workload(load, nodes, self.seed)
        except ValueError as error:
            raise StackError(f"There is no such work to draw: {error}.") from error
        last_at = workload.works[-1].submitted_at
        until = inf if self.hours is None else self.hours * HOUR_S
        outages = draw_outages(load, nodes, min(until, last_at), self.seed)
        scenario = Scenario(nodes, workload, levels=LEVELS, outages=outages, until=until)
        begun = time.monotonic()
        history = _watched(scenario, CONFIGS[self.policy], quiet=quiet)
        try:
            found = figures(history)
        except ValueError as error:
            raise StackError(f"In that time {error}: simulate for longer.") from error
        answer = {
            "cluster": self.cluster.name,
            "nodes": len(nodes),
            "policy": str(self.policy),
            "seed": self.seed,
            **asdict(found),
            "sim_s": round(time.monotonic() - begun, 2),
        }
        return history, answer


@dataclass(frozen=True, slots=True)
class _Live:
    """A log, or work drawn for a cluster, to be submitted; of its first `hours`, None: all."""

    swf: Path | None
    cluster: Path | None
    work: Path | None
    estimates: Estimates
    processors: int | None
    seed: int
    hours: float | None
    speed: float

    def run(self, *, quiet: bool) -> dict[str, Any]:
        """Submit it, and return how that went."""
        works = self._works()
        if not works:
            raise StackError("In that time there is no job to submit.")
        profile = resolve(environment(), Path.cwd())
        console = Console(stderr=True)
        with Client(profile.url, profile.api_key) as client, _bar(console, "submitted", len(works)) as show:
            try:
                return Live(works, self.speed).run(
                    client, progress=show if not quiet else _say_nothing, sleep=time.sleep
                )
            except TrellisError as error:
                raise StackError(f"It can't be submitted: {error}") from error

    def _works(self) -> Sequence[Work]:
        if self.swf is not None and self.cluster is None:
            works = _Replay(self.swf, Policy.DEFAULT, self.estimates, self.processors).read().workload.works
        elif self.cluster is not None and self.swf is None:
            load = Load() if self.work is None else read_load(self.work)
            works = draw_workload(load, read_nodes(self.cluster), self.seed).works
        else:
            raise StackError("Say what to submit: --swf FILE or --cluster FILE.")
        until = inf if self.hours is None else (works[0].submitted_at if works else 0.0) + self.hours * HOUR_S
        return [work for work in works if work.submitted_at <= until]


def _say_nothing(_: int) -> None:
    """Nobody watches."""


@contextmanager
def _bar(console: Console, what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show how many of `total` are done, where a person watches."""
    if not console.is_terminal:
        yield _say_nothing
        return
    columns = (TextColumn(what), BarColumn(40), MofNCompleteColumn(), TextColumn("jobs"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda done: bar.update(task, completed=done)


def _watched(scenario: Scenario, config: Config, *, quiet: bool) -> History:
    """Simulate, with a bar on standard error where a person watches."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        return simulate(scenario, config)
    with _bar(console, "simulated", len(scenario.workload.works)) as show:

        def now_and_then(left: int) -> None:
            if left % _BAR_STEP == 0:
                show(left)

        return simulate(scenario, config, progress=now_and_then)


def _sheet(answer: dict[str, Any]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    table.add_column(justify="right")
    for key, value in _rows(answer):
        name = key.removesuffix("_s").removesuffix("_percent").replace("_", " ").replace("bsld", "bounded slowdown")
        unit = " s" if key.endswith("_s") else " %" if key.endswith("_percent") else ""
        shown = f"{value:,}" if isinstance(value, int | float) and not key.endswith("checksum") else str(value)
        table.add_row(name, f"{shown}{unit}")
    return table


def _rows(answer: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield what one line each says; of figures over several runs their mean and each."""
    for key, value in answer.items():
        if isinstance(value, dict):
            yield key, value["mean"]
            yield "of each run", ", ".join(map(str, value["per_seed"]))
        else:
            yield key, value
