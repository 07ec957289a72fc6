"""`trellis nodes`, `trellis node-token` and `trellis queues`."""

from itertools import islice
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from trellis.answers import Queue
from trellis.cli.context import AsJson, Here, here
from trellis.cli.tables import gpus_table, heads_table, kinds_table, nodes_table, queues_table, ranked_by, traits_table
from trellis.cli.text import safe
from trellis.errors import Field, Invalid, NotFound
from trellis.holdings import QueueOrder
from trellis.units import parse_seconds
from trellis.vocabulary import NodeState, QueueState

MOST_LINES = 100
queues = typer.Typer(help="List, make, explain, pause and resume queues.\n\nFor example: trellis queues pause default")
QueueWord = Annotated[str, typer.Argument(metavar="QUEUE", help="Its name or id.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(nodes)
    app.command("node-token")(node_token)
    app.add_typer(queues, name="queues")


def nodes(
    context: typer.Context,
    state: Annotated[NodeState | None, typer.Option(help="In this state.")] = None,
    gpu_type: Annotated[str | None, typer.Option(help="With devices of this type.")] = None,
    label: Annotated[str | None, typer.Option(help="With this label, or in this domain (zone=north), K=V.")] = None,
    pool: Annotated[str | None, typer.Option(help="In this pool.")] = None,
    gpus: Annotated[bool, typer.Option("--gpus", help="One line a device.")] = False,
    traits: Annotated[bool, typer.Option("--traits", help="Where they lie and what is said of them.")] = False,
    every: Annotated[bool, typer.Option("--all", help="One line a node, however many there are.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the machines and what is used of each; of more than a hundred, how many of each kind there are.

    For example: trellis nodes --gpus
    """
    run = here(context)
    wanted = label.replace("=", ":", 1) if label else None
    coming = run.client.nodes.list(state=state, gpu_type=gpu_type, label=wanted, pool=pool)
    found = list(islice(coming, MOST_LINES))
    some = every or gpus or traits or state or gpu_type or label or pool
    if not (some or run.as_json) and next(coming, None):
        run.out.print(kinds_table(run.client.nodes.kinds()))
        run.note("`trellis nodes --all` lists each of them; `--label`, `--pool` and `--state` list some.")
        return
    found += coming

    def show() -> None:
        if found:
            run.out.print(gpus_table(found) if gpus else traits_table(found) if traits else nodes_table(found))
        else:
            run.say("No node matches; `trellis node --join URL --token T` on a machine makes it one.")

    run.answer(found, show)


def node_token(
    context: typer.Context,
    name: Annotated[str | None, typer.Option(help="What it is for, so that it is known again.")] = None,
    expires: Annotated[str, typer.Option(help="For how long machines may join with it, such as 1h.")] = "1h",
    as_json: AsJson = False,
) -> None:
    """Make a token with which a machine may become a node; it is shown this once.

    For example: trellis node --join http://10.0.0.5:8420 --token "$(trellis node-token)"
    """
    run = here(context)
    made = run.client.nodes.create_join_token(name, _seconds(expires))
    run.answer(made, lambda: typer.echo(made.token))


def _seconds(text: str) -> int:
    try:
        return parse_seconds(text)
    except ValueError as error:
        raise Invalid(Field("--expires", str(error))) from error


@queues.callback(invoke_without_command=True)
def default(context: typer.Context, as_json: AsJson = False) -> None:
    """List, make, explain, pause and resume queues; alone it lists them.

    For example: trellis queues pause default
    """
    if context.invoked_subcommand is None:
        _list(here(context))


@queues.command("list")
def list_queues(context: typer.Context, as_json: AsJson = False) -> None:
    """List the queues.

    For example: trellis queues list --json
    """
    _list(here(context))


def _list(run: Here) -> None:
    found = list(run.client.queues.list())
    run.answer(found, lambda: run.out.print(queues_table(found)))


@queues.command()
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="What it is to be called.")],
    project_id: Annotated[str | None, typer.Option(help="For this project alone.")] = None,
    weight: Annotated[int | None, typer.Option(help="Its share beside other queues.")] = None,
    policy: Annotated[str | None, typer.Option(help="How its jobs are ranked.")] = None,
    second_policy: Annotated[str | None, typer.Option(help="And those that the first holds for equal.")] = None,
    pool: Annotated[str | None, typer.Option(help="To which what its jobs hold is charged.")] = None,
    most_gpus: Annotated[str | None, typer.Option(help="Devices that its jobs hold at most, together.")] = None,
    most_running: Annotated[int | None, typer.Option(help="Jobs that run at most at once.", min=0)] = None,
    as_json: AsJson = False,
) -> None:
    """Make a queue.

    For example: trellis queues create nightly --weight 2
    """
    run = here(context)
    limits = _limits(weight, policy, second_policy, pool, most_gpus, most_running)
    made = run.client.queues.create(name, project_id=project_id, **limits)
    run.answer(made, lambda: run.say(f"Queue {made.name} is made."))


@queues.command("set")
def change(
    context: typer.Context,
    queue: QueueWord,
    weight: Annotated[int | None, typer.Option(help="Its share beside other queues.")] = None,
    policy: Annotated[str | None, typer.Option(help="How its jobs are ranked.")] = None,
    second_policy: Annotated[str | None, typer.Option(help="And those that the first holds for equal.")] = None,
    pool: Annotated[str | None, typer.Option(help="To which what its jobs hold is charged.")] = None,
    most_gpus: Annotated[str | None, typer.Option(help="Devices that its jobs hold at most, together.")] = None,
    most_running: Annotated[int | None, typer.Option(help="Jobs that run at most at once.", min=0)] = None,
    as_json: AsJson = False,
) -> None:
    """Change a queue; what is not named stays.

    For example: trellis queues set nightly --most-gpus 8
    """
    run = here(context)
    limits = _limits(weight, policy, second_policy, pool, most_gpus, most_running)
    changed = run.client.queues.update(find_queue(run, queue), **limits)
    run.answer(changed, lambda: run.say(f"Queue {changed.name} is changed."))


def _limits(
    weight: int | None,
    policy: str | None,
    second_policy: str | None,
    pool: str | None,
    most_gpus: str | None,
    most_running: int | None,
) -> dict[str, Any]:
    said: dict[str, Any] = {"weight": weight, "policy": policy, "second_policy": second_policy, "pool": pool}
    said |= {"most": None if most_gpus is None else {"gpus": most_gpus}, "most_running": most_running}
    return {name: value for name, value in said.items() if value is not None}


@queues.command()
def explain(
    context: typer.Context,
    queue: QueueWord,
    job: Annotated[str | None, typer.Option(help="Only what comes before this job of the queue; `last` too.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say in which order the jobs of a queue wait, and why each kind of them does.

    For example: trellis queues explain default
    """
    run = here(context)
    told = run.client.queues.explain(find_queue(run, queue).id, None if job is None else run.job_id(job))
    run.answer(told, lambda: run.out.print(_explained(told)))


def _explained(order: QueueOrder) -> RenderableType:
    paused = f" It is {order.state}." if order.state == QueueState.PAUSED else ""
    place = f" The job is number {order.position}." if order.position else ""
    said = Text(safe(f"Queue {order.name} is ranked by {ranked_by(order)}.{paused}{place}"))
    if order.heads:
        return Group(said, Text(), heads_table(order.heads))
    return Group(said, Text("Nothing waits before it." if order.position else "Nothing waits in it."))


@queues.command()
def pause(context: typer.Context, queue: QueueWord, as_json: AsJson = False) -> None:
    """Start no more jobs of a queue; those that run go on.

    For example: trellis queues pause default
    """
    run = here(context)
    changed = run.client.queues.pause(find_queue(run, queue).id)
    run.answer(changed, lambda: run.say(f"Queue {changed.name} is paused; `trellis queues resume` opens it again."))


@queues.command()
def resume(context: typer.Context, queue: QueueWord, as_json: AsJson = False) -> None:
    """Start a queue's jobs again.

    For example: trellis queues resume default
    """
    run = here(context)
    changed = run.client.queues.resume(find_queue(run, queue).id)
    run.answer(changed, lambda: run.say(f"Queue {changed.name} is open."))


def find_queue(run: Here, word: str) -> Queue:
    """The queue of that name or id. Raises NotFound."""
    for queue in run.client.queues.list():
        if word in (queue.id, queue.name):
            return queue
    raise NotFound(f"there is no queue called {word!r}; `trellis queues` lists them")
