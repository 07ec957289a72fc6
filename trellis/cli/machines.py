"""`trellis cluster apply`, `node-set`, `cordon`, `uncordon`, `maintenance`: what operators say of nodes."""

from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer

from trellis.answers import Node
from trellis.cli.context import AsJson, Here, here
from trellis.cli.files import read_yaml
from trellis.cli.options import pairs, when
from trellis.cli.text import moment
from trellis.errors import Field, Invalid, NotFound
from trellis.vocabulary import TaintEffect

cluster = typer.Typer(
    help="Topology, pools and nodes from one file.\n\nFor example: trellis cluster apply -f cluster.yaml"
)
NodeWord = Annotated[str, typer.Argument(metavar="NODE", help="Its name or id.")]
Reason = Annotated[str, typer.Option(help="Why, for the record.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("node-set")(node_set)
    app.command()(cordon)
    app.command()(uncordon)
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


def maintenance(
    context: typer.Context,
    nodes: Annotated[list[str], typer.Argument(metavar="NODE...", help="Names.")],
    ends: Annotated[str, typer.Option(help="A time, such as 2026-01-31T12:00.")],
    starts: Annotated[str | None, typer.Option(help="Likewise; now if left out.")] = None,
    name: Annotated[str, typer.Option(help="What is to be done.")] = "",
    as_json: AsJson = False,
) -> None:
    """Claim nodes for work on them over a window; `trellis reservations` shows it.

    For example: trellis maintenance gpu-1 --starts 2026-01-31T08:00 --ends 2026-01-31T12:00
    """
    run = here(context)
    window = {"starts_at": when("starts", starts), "ends_at": when("ends", ends)}
    made = run.client.reservations.plan_maintenance(nodes, name=name, **window)
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
