"""What operators type about the scheduling policy."""

import json
from pathlib import Path

import yaml

from tests.support.command_line import CommandLine
from tests.support.fake_api import problem, reply

POLICY = {"primary_policy": "priority", "fair_share": {"window_hours": 24, "decay_factor": 0.5}}
VERSION = {"version": 7, "actor": "ada", "created_at": "2026-01-31T12:00:00+00:00", "policy": POLICY}


def test_a_policy_is_shown_as_a_file_that_can_be_applied_again(cli: CommandLine) -> None:
    cli.api.on("GET", "/scheduling/policy", reply(POLICY)).on("PUT", "/scheduling/policy", reply(POLICY))
    cli.api.on("GET", "/scheduling/policy/versions", reply({"items": [VERSION]}))
    shown = cli.run("scheduling", "policy", "show", "--version", "3").stdout
    assert yaml.safe_load(shown) == POLICY
    assert cli.api.asked[0].url.params["version"] == "3"
    Path("scheduler.yaml").write_text(shown)
    done = cli.run("scheduling", "policy", "apply", "-f", "scheduler.yaml", "--expected", "6")
    assert done.stdout == "Version 7 of the policy is in force, from the next cycle on.\n"
    assert cli.api.bodies("PUT", "/scheduling/policy") == [POLICY]
    (put,) = [request for request in cli.api.asked if request.method == "PUT"]
    assert put.headers["If-Match"] == '"6"'


def test_a_policy_that_is_refused_names_the_line(cli: CommandLine) -> None:
    errors = [{"pointer": "/fair_share/decay_factor", "message": "must be from 0 to 1"}]
    cli.api.on("PUT", "/scheduling/policy", problem(422, "invalid", "", errors=errors))
    Path("scheduler.yaml").write_text("fair_share: {decay_factor: 2}\n")
    done = cli.run("scheduling", "policy", "apply", "-f", "scheduler.yaml")
    assert (done.exit_code, done.stderr) == (2, "trellis: fair_share.decay_factor must be from 0 to 1\n")


def test_versions_are_listed(cli: CommandLine) -> None:
    cli.api.on("GET", "/scheduling/policy/versions", reply({"items": [VERSION]}))
    assert all(part in cli.run("scheduling", "policy", "versions").stdout for part in ("7", "ada", "priority"))
    assert json.loads(cli.run("scheduling", "policy", "versions", "--json").stdout) == [VERSION]


def test_that_no_policy_was_put_in_force_is_said(cli: CommandLine) -> None:
    cli.api.on("GET", "/scheduling/policy/versions", reply({"items": []}))
    assert "the built-in policy holds" in cli.run("scheduling", "policy", "versions").stdout
    assert cli.run("scheduling", "policy", "versions", "--json").stdout.strip() == "[]"
