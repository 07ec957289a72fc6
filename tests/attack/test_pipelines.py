"""Definitions that are meant to hurt: refused in words, quickly, and nothing is kept of them."""

import time
from typing import Any

import pytest

from tests.support.fake_node import FakeNode, a_description
from tests.support.flows import Runner, a_pipeline, a_stage, apply, faults_of
from tests.support.stack import Caller, Stack
from tests.support.world import World


@pytest.fixture
def member(stack: Stack, world: World) -> Caller:
    return stack.client(world.member)


def refused(stack: Stack, caller: Caller, body: dict[str, Any]) -> dict[str, str]:
    before = stack.dump()
    found = faults_of(caller.post("/pipelines", body))
    assert stack.dump() == before
    return found


def test_every_fault_of_a_definition_is_told_at_once(stack: Stack, member: Caller) -> None:
    stages = [
        a_stage("a", "b"), a_stage("b", "a"), a_stage("c", "nowhere"), {"name": "d", "with": {}},
        a_stage("e", resources={"cpus": -1}), a_stage("f", **{"with": {"command": ["x"], "array": {}}}),
        a_stage("g", queue="nope"), a_stage("h", **{"with": {"command": ["x"], "comand": 1}}),
    ]  # fmt: skip
    parameters = {"day": {"type": "date", "default": "someday"}}
    schedule = {"cron": "* * * * *", "parameters": {"zz": 1}}
    found = refused(stack, member, a_pipeline(*stages, parameters=parameters, schedule=schedule))
    assert found.keys() >= {
        "/stages/2/after", "/stages/3/with/command", "/stages/4/resources/cpus", "/stages/5/with/array",
        "/stages/7/with/comand", "/parameters/day/default", "/schedule/parameters/zz",
    }  # fmt: skip
    assert any("circle" in message for message in found.values())
    assert '"h"' in found["/stages/7/with/comand"]


def test_a_stage_that_names_a_queue_that_is_not_there_is_named(stack: Stack, member: Caller) -> None:
    assert "'g'" in refused(stack, member, a_pipeline(a_stage("g", queue="nope")))["/stages/0/queue"]


def test_a_million_stages_are_refused_before_any_is_looked_at(stack: Stack, member: Caller) -> None:
    began = time.monotonic()
    answer = member.post("/pipelines", a_pipeline(*({"name": "s"} for _ in range(100_000))))
    assert answer.status in (413, 422)
    assert time.monotonic() - began < 5
    assert refused(stack, member, a_pipeline(*({"name": "s"} for _ in range(2_001))))["/stages"].startswith("are 2001")
    wide = a_stage("x", *(f"s{number}" for number in range(10_001)))
    assert "edges" in refused(stack, member, a_pipeline(wide))["/stages"]


def test_two_thousand_stages_are_accepted_and_each_circle_in_them_is_named(stack: Stack, member: Caller) -> None:
    wide = [a_stage(f"s{n}", *(f"s{(n // 40 - 1) * 40 + k}" for k in range(5) if n >= 40)) for n in range(2000)]
    assert apply(member, *wide)["number"] == 1
    line = [a_stage(f"s{n}", f"s{(n + 1) % 2000}") for n in range(2000)]
    found = refused(stack, member, a_pipeline(*line, name="line"))
    (message,) = found.values()
    assert "circle" in message
    assert len(message) < 500


@pytest.mark.parametrize(
    "name",
    ["<script>alert(1)</script>", "$(reboot)", "a;b", "../../x", "a\nb", "A", "", "x" * 64, "-x", "a b", "\u202ea"],
)
def test_names_that_would_run_somewhere_are_no_names(stack: Stack, member: Caller, name: str) -> None:
    assert "/stages/0/name" in refused(stack, member, a_pipeline(a_stage(name)))
    assert "/name" in refused(stack, member, a_pipeline(a_stage("a"), name=name))
    assert refused(stack, member, a_pipeline(a_stage("a"), parameters={name: {"type": "string"}}))


@pytest.mark.parametrize(
    "stage",
    [
        {"map": {"over": list(range(1001))}}, {"map": {"over": "abc"}}, {"map": {"over": {"stage": "a"}}},
        {"only_if": {"stage": "a", "equals": 1}}, {"when": "sometimes"}, {"kind": "sql"}, {"kind": "sensor"},
        {"after": "b"}, {"after": [1]}, {"after": [["b"]]}, {"with": []}, {"with": {"command": "true"}}, {"name": None},
        {"with": {"command": ["x"], "project": "other"}}, {"with": {"command": ["x"], "depends_on": []}},
        {"with": {"command": ["x"], "environment": {"LD_PRELOAD": "x"}}}, {"resources": 3}, {"retries": [1]},
        {"with": {"command": ["x"], "environment": {"TRELLIS_RUN_ID": "x"}}}, {"unknown": 1},
    ],
    ids=str,
)  # fmt: skip
def test_odd_stages_are_refused_in_words(stack: Stack, member: Caller, stage: dict[str, Any]) -> None:
    assert refused(stack, member, a_pipeline(a_stage("a") | stage, a_stage("b")))


@pytest.mark.parametrize("stages", [None, [], {}, "a", [None], [1], [[]], [{}], [{"name": {}}]], ids=str)
def test_what_is_no_list_of_stages_is_refused(stack: Stack, member: Caller, stages: Any) -> None:
    assert refused(stack, member, {"name": "x", "stages": stages})


def test_who_may_only_look_applies_and_runs_nothing(stack: Stack, world: World, member: Caller) -> None:
    flow = apply(member, a_stage("a"))
    viewer, stranger = stack.client(world.viewer), stack.client(world.stranger)
    assert viewer.get(f"/pipelines/{flow['id']}").status == 200
    assert viewer.post("/pipelines", a_pipeline(a_stage("b"))).status in (403, 422)
    assert viewer.post(f"/pipelines/{flow['id']}/runs").status == 403
    assert viewer.delete(f"/pipelines/{flow['id']}").status == 403
    assert stranger.get(f"/pipelines/{flow['id']}").status == 404
    assert stranger.get("/pipelines").json["items"] == []


def test_stages_do_not_reach_into_another_project(stack: Stack, world: World) -> None:
    node = FakeNode.join(stack, world, a_description(cpus=64))
    mine, theirs = stack.client(world.member), stack.client(world.stranger)
    stages = (a_stage("a", cache=True),)
    run = Runner(stack, mine, node, apply(mine, *stages))
    run.end("a")
    other = Runner(stack, theirs, node, apply(theirs, *stages))
    assert other.states == {"a": "running"}  # what one project made is not used by another
