"""`trellis node-show`, `quarantine`, `unquarantine`: how a node is, and whether it is trusted with work."""

from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from trellis.answers import Event, Node, plain
from trellis.cli.context import AsJson, Here, here
from trellis.cli.machines import NodeWord, Reason, find_node
from trellis.cli.tables import gpus_table, table
from trellis.cli.text import cell, cores, moment, safe
from trellis.errors import Forbidden
from trellis.units import format_bytes

MOST_EVENTS = 20
MOST_JOBS = 20
Device = Annotated[int | None, typer.Option(min=0, max=63, help="Only this device of it, by its index.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("node-show")(node_show)
    app.command()(quarantine)
    app.command()(unquarantine)


def node_show(
    context: typer.Context,
    node: NodeWord,
    events: Annotated[int, typer.Option(min=0, max=500, help="So many of the last things that happened to it.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Say how a node is: what is used of it, what is wrong with it and its devices, what runs there, what happened.

    For example: trellis node-show gpu-1
    """
    run = here(context)
    found = find_node(run, node)
    happened = _events(run, found, events)
    body = plain(found) | {"events": [plain(event) for event in happened]}
    run.answer(body, lambda: run.out.print(_shown(found, happened)))


def _events(run: Here, node: Node, most: int) -> list[Event]:
    """What happened to it, as far as that is the caller's to know."""
    try:
        return list(islice(run.client.nodes.events(node.id), most)) if most else []
    except Forbidden:
        return []


def _shown(node: Node, events: list[Event]) -> RenderableType:
    parts: list[RenderableType] = [Text(safe(line)) for line in _lines(node)]
    if node.findings:
        parts.append(_findings_table(node))
    if node.gpus:
        parts.append(gpus_table([node]))
    if node.jobs:
        parts.append(_jobs_table(node))
    if events:
        parts.append(_events_table(events))
    return Group(*parts)


def _lines(node: Node) -> Iterator[str]:
    cpus = f"{cores(node.cpu_milli_used)} of {cores(node.cpu_milli)} CPUs"
    memory = f"{format_bytes(node.memory_bytes_used)} of {format_bytes(node.memory_bytes)} memory"
    yield f"Node {node.name} is {node.state}: {cpus} and {memory} are held."
    load = "-" if node.load_percent is None else f"{node.load_percent} %"
    disk = "-" if node.disk_free_bytes is None else format_bytes(node.disk_free_bytes)
    yield f"Load {load}, {disk} of disk free, isolation {node.isolation}, last seen {moment(node.last_seen_at)}."
    if node.cordon_reason:
        yield f"It is cordoned: {node.cordon_reason}."
    if node.drain:
        why = f": {node.drain['reason']}" if node.drain["reason"] else ""
        until = f", until {_moment(node.drain['until'])}" if node.drain["until"] else ""
        yield f"It is drained{why}{until}; {node.jobs_left} left."
    if node.quarantine:
        yield f"It is quarantined by {node.quarantine['by']} since {_moment(node.quarantine['since'])}: {node.quarantine['reason']}."
    for gpu in node.gpus:
        if gpu.quarantine:
            yield f"Device {gpu.index} is quarantined by {gpu.quarantine['by']}: {gpu.quarantine['reason']}."


def _findings_table(node: Node) -> Table:
    rows = [
        tuple(
            cell(word) for word in (one["check"], one["severity"], _device(one), _moment(one["since"]), one["message"])
        )
        for one in node.findings
    ]
    return table(["CHECK", "SEVERITY", "GPU", "SINCE", "FOUND"], rows, right=("GPU",), gives="FOUND")


def _moment(stamp: str) -> str:
    return moment(datetime.fromisoformat(stamp))


def _device(finding: Any) -> str:
    return "-" if finding["device"] is None else str(finding["device"])


def _jobs_table(node: Node) -> Table:
    rows = [
        (cell(one["job_id"] or "-"), cell(one["name"]), cell(cores(one["cpu_milli"])), cell(format_bytes(one["memory_bytes"])))
        for one in node.jobs[:MOST_JOBS]
    ]  # fmt: skip
    return table(["JOB", "NAME", "CPUS", "MEMORY"], rows, right=("CPUS", "MEMORY"), gives="NAME")


def _events_table(events: list[Event]) -> Table:
    rows = [
        (cell(moment(one.at)), cell(one.kind), cell(one.actor.name), cell(one.reason or one.data.get("output") or ""))
        for one in events
    ]
    return table(["WHEN", "WHAT", "WHO", "WHY"], rows, gives="WHY")


def quarantine(
    context: typer.Context, node: NodeWord, reason: Reason = "", gpu: Device = None, as_json: AsJson = False
) -> None:
    """Trust a node, or one of its devices, with no work until `unquarantine`; what runs there goes on.

    For example: trellis quarantine gpu-1 --gpu 3 --reason "errors in its memory"
    """
    run = here(context)
    changed = run.client.nodes.quarantine(find_node(run, node).id, reason, device=gpu)
    what = f"Node {changed.name}" if gpu is None else f"Device {gpu} of node {changed.name}"
    run.answer(changed, lambda: run.say(f"{what} takes nothing new; `trellis unquarantine` lets it again."))


def unquarantine(
    context: typer.Context, node: NodeWord, reason: Reason = "", gpu: Device = None, as_json: AsJson = False
) -> None:
    """Trust a node, or one of its devices, again, whoever did not.

    For example: trellis unquarantine gpu-1
    """
    run = here(context)
    changed = run.client.nodes.release(find_node(run, node).id, reason, device=gpu)
    run.answer(changed, lambda: run.say(f"Node {changed.name} is {changed.state}."))
