import json

import pytest

from tests.support.command_line import CommandLine
from tests.support.fake_api import reply

FINE = {
    "name": "fine_metrics", "description": "each second", "owner": "agent", "default": False, "platform": None, "project": True,
    "enabled": True,
}  # fmt: skip


def test_features_are_listed_with_who_said_what(cli: CommandLine) -> None:
    cli.api.on("GET", "/features", reply({"items": [FINE]}))
    done = cli.run("features", "list", "--project", "vision")
    assert done.stdout.splitlines()[1].split() == ["fine_metrics", "on", "off", "-", "on", "each", "second"]
    assert cli.api.asked[-1].url.params["project"] == "vision"


@pytest.mark.parametrize(("word", "sent"), [("on", True), ("off", False), ("default", None)])
def test_a_feature_is_switched_for_a_project_or_the_platform(cli: CommandLine, word: str, sent: bool | None) -> None:
    cli.api.on("PUT", "/features", reply(FINE))
    done = cli.run("features", "set", "fine_metrics", word, "--project", "vision")
    assert done.stdout == "fine_metrics is on for jobs of project vision that say nothing of it.\n"
    assert cli.run("features", "set", "fine_metrics", word).exit_code == 0
    body = {"name": "fine_metrics", "enabled": sent}
    assert cli.api.bodies("PUT", "/features") == [{**body, "project": "vision"}, body]


def test_a_word_that_is_none_is_explained(cli: CommandLine) -> None:
    done = cli.run("features", "set", "fine_metrics", "perhaps")
    assert (done.exit_code, "on|off|default" in done.stderr, cli.api.asked) == (2, True, [])


def test_a_job_says_which_features_it_wants(cli: CommandLine) -> None:
    cli.api.on("POST", "/jobs", reply({"id": "j1"}, 201))
    assert cli.run("submit", "--feature", "a", "--feature", "b=off", "--feature", "c=on", "--", "true").exit_code == 0
    assert json.loads(cli.api.asked[-1].content)["features"] == {"a": True, "b": False, "c": True}
    done = cli.run("submit", "--feature", "a=maybe", "--", "true")
    assert (done.exit_code, "--feature" in done.stderr) == (2, True)
