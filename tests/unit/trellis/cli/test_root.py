import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Annotated

import pytest
import typer

import trellis
from tests.support.command_line import CommandLine
from trellis.cli import extras
from trellis.errors import Unavailable

ROOT = Path(__file__).resolve().parents[4]
COMMANDS = ["submit", "jobs", "job", "cancel", "retry", "logs", "nodes", "queues", "login", "logout", "whoami"]
more = typer.Typer(help="Many things.")


@more.command()
def first(count: int = 1) -> None:
    """Do the first thing."""
    typer.echo(f"first {count}")


@more.command()
def second() -> None:
    """Do the second thing."""
    raise Unavailable("the database is away")


alone = typer.Typer(help="One thing so far.")


@alone.command()
def begin() -> None:
    """Begin."""
    typer.echo("begun")


def single(loud: Annotated[bool, typer.Option("--loud")] = False) -> None:
    """Do one thing."""
    typer.echo("ONE" if loud else "one")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    here = __name__
    found = {
        "single": EntryPoint("single", f"{here}:single", extras.GROUP),
        "more": EntryPoint("more", f"{here}:more", extras.GROUP),
        "alone": EntryPoint("alone", f"{here}:alone", extras.GROUP),
        "up": EntryPoint("up", "no_such_package.commands:up", extras.GROUP),
    }
    monkeypatch.setattr(extras, "registered", lambda: found)


@pytest.mark.usefixtures("installed")
def test_commands_of_other_parts_are_offered_beside_our_own(cli: CommandLine) -> None:
    shown = cli.run("--help").stdout
    for line in ("single", "Do one thing", "Many things", "Not installed: needs the extra `local`", *COMMANDS):
        assert line in shown
    assert cli.run("single", "--loud").stdout == "ONE\n"
    assert cli.run("alone", "begin").stdout == "begun\n"
    assert cli.run("more", "first", "--count", "3").stdout == "first 3\n"


@pytest.mark.usefixtures("installed")
def test_errors_of_other_parts_are_one_line_too(cli: CommandLine) -> None:
    done = cli.run("more", "second")
    assert (done.exit_code, done.stderr) == (1, "trellis: the database is away\n")


@pytest.mark.usefixtures("installed")
def test_a_command_whose_part_is_not_installed_names_the_extra(cli: CommandLine) -> None:
    done = cli.run("up", "--nodes", "3")
    expected = "trellis: `trellis up` needs no_such_package, which is not installed: pip install 'trellis[local]'\n"
    assert (done.exit_code, done.stderr) == (1, expected)


def test_nothing_of_other_parts_is_loaded_for_our_own_commands(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "load", lambda entry: pytest.fail(f"loaded {entry}"))
    assert cli.run("jobs", "--help").exit_code == 0


def test_the_version_is_told(cli: CommandLine) -> None:
    assert cli.run("--version").stdout == f"trellis {trellis.__version__}\n"


@pytest.mark.parametrize("command", [*COMMANDS[:7], "login", "logout", "whoami", "queues pause", "queues create"])
def test_every_help_has_an_example(cli: CommandLine, command: str) -> None:
    assert f"trellis {command}" in cli.run(*command.split(), "--help").stdout.split("Usage", 1)[1].split("\n", 2)[2]


@pytest.mark.parametrize(
    "command", ["jobs", "job", "logs", "cancel", "retry", "submit", "nodes", "whoami", "queues list"]
)
def test_json_is_to_be_had_everywhere(cli: CommandLine, command: str) -> None:
    assert "--json" in cli.run(*command.split(), "--help").stdout


def test_a_typing_error_gets_a_suggestion(cli: CommandLine) -> None:
    done = cli.run("sumbit")
    assert done.exit_code == 2
    assert "submit" in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_can_complete(shell: str) -> None:
    variables = {"_TRELLIS_COMPLETE": f"source_{shell}", "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "trellis.cli"], env=variables, capture_output=True, text=True, timeout=60, check=False
    )
    assert "_TRELLIS_COMPLETE" in done.stdout
    typed = {
        "_TRELLIS_COMPLETE": "complete_bash",
        "COMP_WORDS": "trellis que",
        "COMP_CWORD": "1",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-m", "trellis.cli"], env=typed, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.split() == ["queues"]
