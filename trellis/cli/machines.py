"""`trellis cluster apply`, `node-set`, `cordon`, `drain`, `maintenance` and so on: what operators say of nodes."""

import time
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from trellis.answers import Node
from trellis.cli.context import AsJson, Here, here
from trellis.cli.files import read_yaml
from trellis.cli.options import pairs, when
from trellis.cli.text import moment, safe
from trellis.errors import Field, Invalid, NotFound
from trellis.vocabulary import NodeState, TaintEffect

cluster = typer.Typer(
    help="Topology, pools and nodes from one file.\n\nFor example: trellis cluster apply -f cluster.yaml"
)
NodeWord = Annotated[str, typer.Argument(metavar="NODE", help="Its name or id.")]
_LOOK_EVERY_S = 1.0
Reason = Annotated[str, typer.Option(help="Why, for the record.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("node-set")(node_set)
    app.command()(cordon)
    app.command()(uncordon)
    app.command()(drain)
    app.command()(undrain)
    app.command()(maintenance)
    app.add_typer(cluster, name="cluster")


@cluster.callback()
def top(as_json: AsJson = False) -> None:
    """Topology, pools and nodes from one file.

    For example: trellis cluster apply -f cluster.yaml
    """


@cluster.command()
def apply(
    context: typer.Context,
    file: Annotated[Path, typer.Option("--file", "-f", help="A cluster.yaml.")],
    as_json: AsJson = False,
) -> None:
    """Make levels, pools and nodes as a file says, all or nothing; what it does not name stays.

    For example: trellis cluster apply -f cluster.yaml
    """
    run = here(context)
    done = run.client.nodes.apply_cluster(read_yaml("file", file))

    def show() -> None:
        run.say(f"Pools changed: {', '.join(done.pools) or 'none'}. Nodes changed: {', '.join(done.nodes) or 'none'}.")
        if done.missing:
            run.note(f"Not joined yet, apply again once they have: {', '.join(done.missing)}.")

    run.answer(done, show)


def node_set(
    context: typer.Context,
    node: NodeWord,
    label: Annotated[list[str] | None, typer.Option(help="K=V, or K= to take it away; may be given again.")] = None,
    domain: Annotated[
        list[str] | None, typer.Option(help="Where it lies, such as rack=r7; may be given again.")
    ] = None,
    taint: Annotated[
        list[str] | None,
        typer.Option(help="KEY, KEY=VALUE or KEY=VALUE:avoid, in place of those it has; `none` for none."),
    ] = None,
    pool: Annotated[str | None, typer.Option(help="A pool's name; empty for none.")] = None,
    spot: Annotated[bool | None, typer.Option("--spot/--no-spot", help="May be taken away at any time.")] = None,
    usd_per_hour: Annotated[str | None, typer.Option(help="What it costs.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say something of a node; what is not named stays.

    For example: trellis node-set gpu-1 --label disk=nvme --pool research
    """
    run = here(context)
    found = find_node(run, node)
    traits: dict[str, Any] = {"pool": pool, "spot": spot, "usd_per_hour": usd_per_hour}
    if label:
        traits["labels"] = _changed(found.labels, pairs("label", label))
    if domain:
        traits["domains"] = _changed(found.domains, pairs("domain", domain))
    if taint:
        traits["taints"] = [_taint(word) for word in taint if word != "none"]
    changed = run.client.nodes.update(found, **{name: said for name, said in traits.items() if said is not None})
    run.answer(changed, lambda: run.say(f"Node {changed.name} is changed."))


def cordon(context: typer.Context, node: NodeWord, reason: Reason = "", as_json: AsJson = False) -> None:
    """Place nothing more on a node; what runs there goes on.

    For example: trellis cordon gpu-1 --reason "new drivers"
    """
    run = here(context)
    changed = run.client.nodes.cordon(find_node(run, node).id, reason)
    run.answer(changed, lambda: run.say(f"Node {changed.name} takes nothing new; `trellis uncordon` lets it again."))


def uncordon(context: typer.Context, node: NodeWord, reason: Reason = "", as_json: AsJson = False) -> None:
    """Place work on a node again.

    For example: trellis uncordon gpu-1
    """
    run = here(context)
    changed = run.client.nodes.uncordon(find_node(run, node).id, reason)
    run.answer(changed, lambda: run.say(f"Node {changed.name} takes work again."))


def drain(
    context: typer.Context,
    node: NodeWord,
    reason: Reason = "",
    deadline: Annotated[
        str | None,
        typer.Option(help="For jobs that would have to begin again elsewhere, such as 30m; none if left out."),
    ] = None,
    migrate: Annotated[
        bool,
        typer.Option("--migrate/--no-migrate", help="Move jobs that can go on elsewhere at once, or at the deadline."),
    ] = True,
    wait: Annotated[bool, typer.Option("--wait", help="Until nothing is left there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Empty a node: nothing new is placed there; jobs that save checkpoints go on elsewhere, others end first.

    For example: trellis drain gpu-1 --reason "new drivers" --deadline 30m --wait
    """
    run = here(context)
    asked = run.client.nodes.drain(find_node(run, node).id, reason, deadline=deadline, migrate=migrate)
    found = _wait_until_quiet(run, asked) if wait else asked
    left = f"{found.jobs_left} job{'' if found.jobs_left == 1 else 's'} left"
    done = f"Node {found.name} is {found.state}, {left}; `trellis undrain {found.name}` lets it take work again."
    run.answer(found, lambda: run.say(done))


def _wait_until_quiet(run: Here, asked: Node) -> Node:
    """The node once it is empty, with a bar of what has left; or once somebody undrained it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=run.err, transient=True, disable=not run.err.is_terminal) as bar:
        found, most = asked, asked.jobs_left
        shown = bar.add_task(f"jobs that left {safe(asked.name)}", total=max(most, 1))
        while found.drain is not None and found.state != NodeState.DRAINED:
            most = max(most, found.jobs_left)
            bar.update(shown, total=max(most, 1), completed=most - found.jobs_left)
            time.sleep(_LOOK_EVERY_S)
            found = run.client.nodes.get(asked.id)
    return found


def undrain(context: typer.Context, node: NodeWord, reason: Reason = "", as_json: AsJson = False) -> None:
    """Let a node that was emptied take work again.

    For example: trellis undrain gpu-1
    """
    run = here(context)
    changed = run.client.nodes.undrain(find_node(run, node).id, reason)
    run.answer(changed, lambda: run.say(f"Node {changed.name} is {changed.state}."))


def maintenance(
    context: typer.Context,
    nodes: Annotated[list[str], typer.Argument(metavar="NODE...", help="Names.")],
    ends: Annotated[str, typer.Option(help="A time, such as 2026-01-31T12:00.")],
    starts: Annotated[str | None, typer.Option(help="Likewise; now if left out.")] = None,
    name: Annotated[str, typer.Option(help="What is to be done.")] = "",
    drain_within: Annotated[
        str, typer.Option(help="From the beginning, for jobs that would have to begin again elsewhere.")
    ] = "10m",
    as_json: AsJson = False,
) -> None:
    """Claim nodes for work on them over a window: they are drained when it begins, and back when it ends.

    No job that might still run then is started before; `trellis reservations` shows it.

    For example: trellis maintenance gpu-1 --starts 2026-01-31T08:00 --ends 2026-01-31T12:00
    """
    run = here(context)
    window = {"starts_at": when("starts", starts), "ends_at": when("ends", ends)}
    made = run.client.reservations.plan_maintenance(nodes, name=name, drain_within=drain_within, **window)
    text = f"Maintenance {made.id} from {moment(made.starts_at)} to {moment(made.ends_at)}."
    run.answer(made, lambda: run.say(text))


def find_node(run: Here, word: str) -> Node:
    """The node of that name or id. Raises NotFound."""
    # By name first: what looks like an id may be one.
    for node in run.client.nodes.list(name=word):
        return node
    try:
        return run.client.nodes.get(str(UUID(word)))
    except (ValueError, NotFound):
        raise NotFound(f"there is no node called {word!r}; `trellis nodes` lists them") from None


def _changed(known: Any, said: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in {**known, **said}.items() if value}


def _taint(word: str) -> dict[str, str]:
    said, _, effect = word.partition(":")
    key, _, value = said.partition("=")
    if effect not in ("", *TaintEffect) or not key:
        raise Invalid(Field("--taint", f"must be KEY, KEY=VALUE or KEY=VALUE:avoid, not {word!r}"))
    return {"key": key, "value": value, "effect": effect or TaintEffect.REFUSE}
