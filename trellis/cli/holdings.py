"""`trellis pools`, `allocate`, `allocations`, `release`, `reserve`, `reservations`: who may hold what."""

from collections.abc import Iterable
from typing import Annotated, Any

import typer

from trellis.cli.context import AsJson, Here, here
from trellis.cli.options import pairs, when
from trellis.cli.tables import table
from trellis.cli.text import cell, cores, moment, state_cell
from trellis.errors import NotFound
from trellis.holdings import Allocation, Pool, Reservation, Reserved
from trellis.units import format_bytes

pools = typer.Typer(help="Nodes under one quota.\n\nFor example: trellis pools create research --parent all")
reservations = typer.Typer(help="Claims on future windows.\n\nFor example: trellis reservations cancel ID")
Gpus = Annotated[str, typer.Option("--gpus", "-G", help="Devices, such as 1 or 0.5.")]
Cpus = Annotated[str, typer.Option("--cpus", "-c", help="Cores, such as 4 or 0.5.")]
Memory = Annotated[str, typer.Option("--memory", "-m", help="Such as 16GiB.")]
GpuType = Annotated[str | None, typer.Option(help="Of this model.")]
PoolWord = Annotated[str | None, typer.Option("--pool", help="In this pool or one within it.")]
Label = Annotated[list[str] | None, typer.Option(help="A label or domain of the node, K=V; may be given again.")]
Exclusive = Annotated[bool, typer.Option("--exclusive", help="A whole node that has at least so much.")]
Tolerates = Annotated[list[str] | None, typer.Option(help="A taint that is no obstacle; may be given again.")]
ProjectWord = Annotated[str | None, typer.Option("--project", "-A", help="Name or id; yours if you have one.")]
Ended = Annotated[bool, typer.Option("--ended", help="Those that are over too.")]
Name = Annotated[str, typer.Option("--name", "-J", help="What it is for.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(pools, name="pools")
    app.command()(allocate)
    app.command()(allocations)
    app.command()(release)
    app.command()(reserve)
    app.add_typer(reservations, name="reservations")


@pools.callback(invoke_without_command=True)
def default_pools(context: typer.Context, as_json: AsJson = False) -> None:
    """List, make and remove pools; alone it lists them.

    For example: trellis pools create research --parent all
    """
    if context.invoked_subcommand is None:
        _list_pools(here(context))


@pools.command("list")
def list_pools(context: typer.Context, as_json: AsJson = False) -> None:
    """List the pools, with what they have and what is held of it.

    For example: trellis pools list --json
    """
    _list_pools(here(context))


def _list_pools(run: Here) -> None:
    found = list(run.client.pools.list())
    run.answer(found, lambda: run.out.print(_pools_table(found)))


@pools.command("create")
def create_pool(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="What it is to be called.")],
    parent: Annotated[str | None, typer.Option(help="The pool it lies in.")] = None,
    weight: Annotated[int | None, typer.Option(help="Its share beside its siblings.")] = None,
    cpu_overcommit: Annotated[str | None, typer.Option(help="How many times its real CPUs are given away.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a pool; `trellis cluster apply` makes many, with what they own, lend and borrow.

    For example: trellis pools create research --parent all
    """
    run = here(context)
    said = {"parent": parent, "weight": weight, "overcommit": cpu_overcommit and {"cpu": cpu_overcommit}}
    made = run.client.pools.create(name, **{key: value for key, value in said.items() if value is not None})
    run.answer(made, lambda: run.say(f"Pool {made.name} is made."))


@pools.command("remove")
def remove_pool(
    context: typer.Context, pool: Annotated[str, typer.Argument(help="Its name or id.")], as_json: AsJson = False
) -> None:
    """Remove a pool that nothing belongs to.

    For example: trellis pools remove research
    """
    run = here(context)
    for found in run.client.pools.list():
        if pool in (found.id, found.name):
            run.client.pools.delete(found.id)
            run.answer(found, lambda: run.say(f"Pool {pool} is removed."))
            return
    raise NotFound(f"there is no pool called {pool!r}; `trellis pools` lists them")


def allocate(
    context: typer.Context,
    gpus: Gpus = "0",
    cpus: Cpus = "1",
    memory: Memory = "1GiB",
    gpu_type: GpuType = None,
    exclusive: Exclusive = False,
    pool: PoolWord = None,
    label: Label = None,
    tolerate: Tolerates = None,
    project: ProjectWord = None,
    name: Name = "",
    ttl: Annotated[str, typer.Option(help="For how long, such as 2h.")] = "1h",
    as_json: AsJson = False,
) -> None:
    """Hold a part of a node without a job, until it is released or its time is over.

    For example: trellis allocate --gpus 1 --gpu-type H100 --ttl 2h
    """
    run = here(context)
    wish = _part(cpus, memory, gpus, gpu_type, pool, exclusive, label, tolerate)
    held = run.client.allocations.create(**wish, project=project, name=name, ttl=ttl)
    text = f"Holding {_amounts(held)} on {held.node} until {moment(held.expires_at)}; `trellis release {held.id}`."
    run.answer(held, lambda: run.say(text))


def allocations(context: typer.Context, as_json: AsJson = False) -> None:
    """List what is held now, by jobs and without.

    For example: trellis allocations --json
    """
    run = here(context)
    found = list(run.client.allocations.list())
    rows = [
        (
            cell(a.id),
            cell(a.node),
            cell(_amounts(a)),
            cell(moment(a.expires_at)),
            cell(a.job_id or a.owner),
            cell(a.name),
        )
        for a in found
    ]
    headings = ["ID", "NODE", "HOLDS", "UNTIL", "FOR", "NAME"]
    run.answer(found, lambda: run.out.print(table(headings, rows, gives="NAME")))


def release(
    context: typer.Context,
    allocation: Annotated[str, typer.Argument(metavar="ALLOCATION", help="Its id.")],
    force: Annotated[bool, typer.Option("--force", help="Though it is somebody else's.")] = False,
    as_json: AsJson = False,
) -> None:
    """Give back what is held without a job.

    For example: trellis release 0198f000-0000-7000-8000-000000000000
    """
    run = here(context)
    run.client.allocations.release(allocation, force=force)
    run.answer({"id": allocation}, lambda: run.say(f"Allocation {allocation} is released."))


def reserve(
    context: typer.Context,
    ends: Annotated[str, typer.Option(help="A time, such as 2026-01-31T12:00.")],
    starts: Annotated[str | None, typer.Option(help="Likewise; now if left out.")] = None,
    count: Annotated[int, typer.Option(help="How many such parts.", min=1)] = 1,
    gpus: Gpus = "0",
    cpus: Cpus = "1",
    memory: Memory = "1GiB",
    gpu_type: GpuType = None,
    exclusive: Exclusive = False,
    pool: PoolWord = None,
    label: Label = None,
    tolerate: Tolerates = None,
    project: ProjectWord = None,
    name: Name = "",
    as_json: AsJson = False,
) -> None:
    """Claim parts of nodes for a project over a window.

    For example: trellis reserve --count 4 --gpus 8 --starts 2026-01-31T08:00 --ends 2026-01-31T18:00
    """
    run = here(context)
    wish = _part(cpus, memory, gpus, gpu_type, pool, exclusive, label, tolerate)
    window = {"starts_at": when("starts", starts), "ends_at": when("ends", ends)}
    made = run.client.reservations.create(**wish, **window, count=count, project=project, name=name)
    text = f"Reservation {made.id} from {moment(made.starts_at)} to {moment(made.ends_at)} on {_nodes(made)}."
    run.answer(made, lambda: run.say(text))


@reservations.callback(invoke_without_command=True)
def default_reservations(context: typer.Context, ended: Ended = False, as_json: AsJson = False) -> None:
    """List and cancel reservations; alone it lists them.

    For example: trellis reservations --ended
    """
    if context.invoked_subcommand is None:
        _list_reservations(here(context), ended=ended)


@reservations.command("list")
def list_reservations(context: typer.Context, ended: Ended = False, as_json: AsJson = False) -> None:
    """List the reservations of one's projects, and maintenance.

    For example: trellis reservations list --ended
    """
    _list_reservations(here(context), ended=ended)


def _list_reservations(run: Here, *, ended: bool) -> None:
    found = list(run.client.reservations.list(ended=ended))
    run.answer(found, lambda: run.out.print(_reservations_table(found)))


@reservations.command("cancel")
def cancel_reservation(
    context: typer.Context,
    reservation: Annotated[str, typer.Argument(metavar="RESERVATION", help="Its id.")],
    as_json: AsJson = False,
) -> None:
    """Give a reservation up.

    For example: trellis reservations cancel 0198f000-0000-7000-8000-000000000000
    """
    run = here(context)
    run.client.reservations.cancel(reservation)
    run.answer({"id": reservation}, lambda: run.say(f"Reservation {reservation} is cancelled."))


def _part(
    cpus: str,
    memory: str,
    gpus: str,
    gpu_type: str | None,
    pool: str | None,
    exclusive: bool,
    label: Iterable[str] | None,
    tolerate: Iterable[str] | None,
) -> dict[str, Any]:
    wish = {"cpus": cpus, "memory": memory, "gpus": gpus, "exclusive": exclusive}
    return wish | _given(
        gpu_type=gpu_type, pool=pool, labels=pairs("label", label) or None, tolerates=list(tolerate or ()) or None
    )


def _given(**said: Any) -> dict[str, Any]:
    return {name: value for name, value in said.items() if value is not None}


def _amounts(held: Allocation | Reserved) -> str:
    gpus = sum(device["milli"] for device in held.gpus)
    words = [f"{cores(held.cpu_milli)} CPU", format_bytes(held.memory_bytes)]
    return ", ".join([*words, f"{cores(gpus)} GPU"] if gpus else words)


def _nodes(reservation: Reservation) -> str:
    return ", ".join(sorted({part.node for part in reservation.parts}))


def _pools_table(found: list[Pool]) -> Any:
    rows = []
    for pool in found:
        figures, held, most = pool.figures, pool.figures.held, pool.figures.capacity
        cpus = f"{cores(held.cpu_milli or 0)}/{cores(most.cpu_milli or 0)}"
        gpus = f"{cores(held.gpu_milli or 0)}/{cores(most.gpu_milli or 0)}"
        nominal = "-" if pool.nominal.gpu_milli is None else cores(pool.nominal.gpu_milli)
        over = f"{pool.overcommit.get('cpu', 1):g}x" if pool.overcommit.get("cpu", 1) != 1 else "-"
        words = (pool.name, pool.parent or "-", f"{figures.nodes_ready}/{figures.nodes}", cpus, gpus, nominal, over,
                 figures.running, figures.pending)  # fmt: skip
        rows.append(tuple(cell(word) for word in words))
    headings = ["NAME", "IN", "NODES", "CPUS", "GPUS", "OWN GPUS", "OVERCOMMIT", "RUNNING", "PENDING"]
    return table(headings, rows, right=headings[2:], gives="NAME")


def _reservations_table(found: list[Reservation]) -> Any:
    rows = [
        (
            cell(r.id), state_cell(r.state), cell(moment(r.starts_at)), cell(moment(r.ends_at)),
            cell("maintenance" if r.maintenance else r.owner), cell(_nodes(r)), cell(r.name),
        )
        for r in found
    ]  # fmt: skip
    return table(["ID", "STATE", "FROM", "UNTIL", "FOR", "NODES", "NAME"], rows, gives="NODES")
