"""The scheduling policy: put in force whole, version by version."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import select

from app.core.events import Event
from app.scheduling.cycle import is_due
from app.scheduling.policy import SchedulingPolicy, change_policy, load_policy, policy_in_force
from scheduler.config import BackfillOrder, Config, Preemption
from tests.support.stack import Caller, Stack
from tests.support.world import World

PATH = "/scheduling/policy"
FILE = Path(__file__).parents[3] / "docker" / "config" / "scheduler.yaml"


@pytest.fixture
def admin(stack: Stack, world: World) -> Caller:
    return stack.client(world.admin)


def test_what_holds_where_nobody_has_said_anything_is_the_file_that_comes_with_it(stack: Stack, admin: Caller) -> None:
    first = admin.get(PATH)
    assert first.headers["ETag"] == '"0"'
    assert set(yaml.safe_load(FILE.read_text())) == set(first.json)
    put = admin.put(PATH, yaml.safe_load(FILE.read_text()))
    assert (put.json, put.headers["ETag"]) == (first.json, '"0"')
    assert stack.run(policy_in_force).policy == SchedulingPolicy()
    assert stack.run(load_policy) == Config()


def test_a_policy_is_put_in_force_whole_and_every_version_is_kept(stack: Stack, world: World, admin: Caller) -> None:
    first = {"primary_policy": "fair_share", "enable_backfill": False, "max_placements_per_cycle": 7}
    second = {"fair_share": {"window_hours": 24, "decay_factor": 0.25}, "preemption": {"grace_period": "2m"}}
    changed = admin.put(PATH, first, headers={"If-Match": '"0"'})
    assert (changed.status, changed.headers["ETag"]) == (200, '"1"')
    config = stack.run(load_policy)
    assert config == Config(policy="fair_share", backfill=False, max_placements=7)
    assert admin.put(PATH, second, headers={"If-Match": '"1"'}).headers["ETag"] == '"2"'
    member = stack.client(world.member)
    now = member.get(PATH).json
    assert (now["primary_policy"], now["fair_share"]["decay_factor"]) == ("priority", 0.25)
    assert now["preemption"] == {
        "grace_period": 120, "priority_threshold": 1, "max_preemptions": 3, "min_run_time": 300,
    }  # fmt: skip
    assert member.get(PATH, query_string={"version": 1}).json == changed.json
    assert member.get(PATH, query_string={"version": 0}).json["enable_backfill"] is True
    assert member.get(PATH, query_string={"version": 3}).status == 404
    versions = member.get(f"{PATH}/versions").json["items"]
    assert [(v["version"], v["actor"]) for v in versions] == [(2, world.admin.username), (1, world.admin.username)]
    assert versions[1]["policy"] == changed.json
    assert admin.put(PATH, now).headers["ETag"] == '"2"'


EVERYTHING = {
    "primary_policy": "deadline", "secondary_policy": "gang", "enable_preemption": False, "enable_backfill": False,
    "enable_gang_scheduling": False, "enable_reclaim": False, "enable_consolidation": False, "enable_elastic": False,
    "scheduling_interval": 1.5, "ageing_per_hour": 0.5, "restart_cost": 7, "patience": 8, "size_lead": 9, "stand_back": 17,
    "max_placements_per_cycle": 10, "fair_share": {"window_hours": 11, "decay_factor": 0.12},
    "preemption": {"grace_period": 13, "priority_threshold": 14, "max_preemptions": 15, "min_run_time": 16},
    "backfill": {"order": "shortest", "reserved_heads": None, "use_predictions": True},
}  # fmt: skip


def test_all_that_the_scheduler_can_be_told_is_policy(stack: Stack, admin: Caller) -> None:
    assert admin.put(PATH, EVERYTHING).json == EVERYTHING
    assert admin.get(PATH).json == EVERYTHING
    usual, told = asdict(Config()), asdict(stack.run(load_policy))
    assert not [name for name in usual if told[name] == usual[name]]
    assert stack.run(load_policy) == Config(
        "deadline", "gang", False, BackfillOrder.SHORTEST, None, True, False, Preemption(False, 13.0, 14, 15, 16.0),
        False, False, False, 7.0, 0.5, 8.0, 9.0, 17.0, 10,
    )  # fmt: skip


def test_a_change_says_what_it_changed_and_makes_a_cycle_due(stack: Stack, world: World, admin: Caller) -> None:
    stack.client(world.member).post("/jobs", {"command": ["true"]})
    stack.run(stack.cycle)
    admin.put(PATH, {"primary_policy": "fifo"})
    assert stack.run(is_due)
    told = stack.run(lambda uow: uow.session.execute(select(Event).where(Event.kind == "policy.changed")).scalar_one())
    assert told.data == {"version": 1, "before": {"primary_policy": "priority"}, "after": {"primary_policy": "fifo"}}
    assert (told.actor_name, told.subject_type) == (world.admin.username, "policy")


def test_who_read_another_version_changes_nothing(admin: Caller) -> None:
    admin.put(PATH, {"primary_policy": "fifo"})
    answer = admin.put(PATH, {"primary_policy": "fair_share"}, headers={"If-Match": '"0"'})
    assert (answer.status, answer.json["code"]) == (409, "stale_version")


def test_of_changes_at_once_each_makes_a_version_of_its_own(stack: Stack, world: World, admin: Caller) -> None:
    numbers = iter(range(1, 9))
    stack.race(lambda uow: change_policy(uow, SchedulingPolicy(max_placements=next(numbers)), None), times=8)
    versions = admin.get(f"{PATH}/versions").json["items"]
    assert [version["version"] for version in versions] == [8, 7, 6, 5, 4, 3, 2, 1]


def test_the_policy_is_the_platforms_to_change_and_everybodys_to_read(stack: Stack, world: World) -> None:
    chief = stack.client(world.project_admin)
    assert (chief.get(PATH).status, chief.put(PATH, {"primary_policy": "fifo"}).status) == (200, 403)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"primary_policy": "lottery"}, "/primary_policy"),
        ({"secondary_policy": ""}, "/secondary_policy"),
        ({"enable_backfill": "yes"}, "/enable_backfill"),
        ({"enable_preemption": 1.5}, "/enable_preemption"),
        ({"scheduling_interval": -1}, "/scheduling_interval"),
        ({"scheduling_interval": 601}, "/scheduling_interval"),
        ({"fair_share": {"decay_factor": 1.5}}, "/fair_share/decay_factor"),
        ({"fair_share": {"decay_factor": -0.1}}, "/fair_share/decay_factor"),
        ({"fair_share": {"window_hours": 0}}, "/fair_share/window_hours"),
        ({"preemption": {"max_preemptions": True}}, "/preemption/max_preemptions"),
        ({"preemption": {"priority_threshold": 0}}, "/preemption/priority_threshold"),
        ({"preemption": {"grace_period": "soon"}}, "/preemption/grace_period"),
        ({"backfill": {"reserved_heads": 0}}, "/backfill/reserved_heads"),
        ({"backfill": {"order": "longest"}}, "/backfill/order"),
        ({"max_placements_per_cycle": 0}, "/max_placements_per_cycle"),
        ({"primary_polcy": "fifo"}, "/primary_polcy"),
        ({"fair_share": {"window": 3}}, "/fair_share/window"),
    ],
)
def test_a_fault_is_named_and_no_version_is_made(
    stack: Stack, admin: Caller, body: dict[str, Any], pointer: str
) -> None:
    answer = admin.put(PATH, body)
    assert (answer.status, [error["pointer"] for error in answer.json["errors"]]) == (422, [pointer])
    assert stack.run(policy_in_force).version == 0
