"""`trellis features`: behaviour that can be switched on before it is everybody's."""

from typing import Annotated

import typer

from trellis.cli.context import AsJson, Here, here
from trellis.cli.tables import table
from trellis.cli.text import cell
from trellis.errors import Field, Invalid

features = typer.Typer(
    help="Switches for behaviour that is not for everybody yet.\n\nFor example: trellis features list"
)
_WORDS = {"on": True, "off": False, "default": None}
_SAID = {True: "on", False: "off", None: "-"}
ProjectWord = Annotated[str | None, typer.Option("--project", "-A", help="Of this project; else of the platform.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(features, name="features")


@features.command("list")
def list_features(context: typer.Context, project: ProjectWord = None, as_json: AsJson = False) -> None:
    """List the features there are, and whether jobs have them that say nothing.

    For example: trellis features list --project vision
    """
    run = here(context)
    found = run.client.features.list(project)

    def show() -> None:
        rows = [
            tuple(cell(word) for word in (
                one.name, _SAID[one.enabled], _SAID[one.default], _SAID[one.platform], _SAID[one.project], one.description,
            ))
            for one in found
        ]  # fmt: skip
        run.out.print(table(["NAME", "NOW", "USUAL", "PLATFORM", "PROJECT", "WHAT"], rows, gives="WHAT"))

    run.answer(found, show)


@features.command("set")
def set_feature(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Which, see `trellis features list`.")],
    word: Annotated[str, typer.Argument(metavar="on|off|default", help="`default` says nothing of it any more.")],
    project: ProjectWord = None,
    as_json: AsJson = False,
) -> None:
    """Switch a feature for a project or the platform: for jobs that are submitted from now on and say nothing of it.

    For example: trellis features set fine_metrics on --project vision
    """
    run: Here = here(context)
    if word not in _WORDS:
        raise Invalid(Field("on|off|default", f"must be one of these, not {word!r}"))
    done = run.client.features.set(name, _WORDS[word], project=project)
    where = f"project {project}" if project else "the platform"
    run.answer(
        done, lambda: run.say(f"{done.name} is {_SAID[done.enabled]} for jobs of {where} that say nothing of it.")
    )
