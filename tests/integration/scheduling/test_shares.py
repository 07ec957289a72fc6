"""Past use with real rows: it grows while something is held, fades after, and ranks."""

import pytest
from sqlalchemy import text

from app.scheduling.policy import FairShare
from app.scheduling.shares import half_life_s, measure_use, past_use
from tests.support.fake_node import FakeNode, a_description
from tests.support.stack import Caller, Stack
from tests.support.world import World


@pytest.fixture
def member(stack: Stack, world: World) -> Caller:
    return stack.client(world.member)


def submit(caller: Caller, **body: object) -> None:
    assert caller.post("/jobs", {"command": ["true"], **body}).status == 201


def later(stack: Stack, hours: int) -> None:
    """Let time pass: what was measured was measured so much earlier."""
    earlier = text("UPDATE past_uses SET at = at - make_interval(hours => :hours)")
    stack.run(lambda uow: uow.session.execute(earlier, {"hours": hours}))


def use(stack: Stack) -> list[float]:
    return [round(used, 3) for used in stack.run(lambda uow: past_use(uow, FairShare())).values()]


def test_a_window_is_over_when_the_factor_is_left() -> None:
    assert half_life_s(FairShare(window_hours=10, decay_factor_milli=500)) == 36_000
    assert half_life_s(FairShare(window_hours=10, decay_factor_milli=250)) == pytest.approx(18_000)


def test_what_is_held_becomes_past_use_and_fades_when_it_is_given_back(
    stack: Stack, world: World, member: Caller
) -> None:
    FakeNode.join(stack, world, a_description(cpus=4))
    submit(member, resources={"cpus": 2, "memory": "1GiB"})
    stack.run(stack.cycle)
    stack.run(measure_use)
    assert use(stack) == [0.0]
    later(stack, 168)  # a whole window at half of the cluster: half of that
    stack.run(measure_use)
    assert use(stack) == [0.25]
    done = text("UPDATE allocations SET released_at = now()")
    stack.run(lambda uow: uow.session.execute(done))
    later(stack, 168)
    assert use(stack) == [0.125]
    stack.run(measure_use)
    later(stack, 168 * 30)
    stack.run(measure_use)
    assert use(stack) == []


def test_under_fair_share_whoever_used_less_goes_first(stack: Stack, world: World, member: Caller) -> None:
    admin = stack.client(world.admin)
    assert admin.put("/scheduling/policy", {"primary_policy": "fair_share"}).status == 200
    submit(member, name="theirs")
    submit(stack.client(world.project_admin), name="ours")
    used = text("INSERT INTO past_uses (account_id, used, at) VALUES (:account, 0.5, now())")
    account = f"{world.project.id}/{world.member.id}"
    stack.run(lambda uow: uow.session.execute(used, {"account": account}))
    FakeNode.join(stack, world, a_description(cpus=1))
    assert stack.run(stack.cycle).started == 1
    states = {job["name"]: job["state"] for job in member.get("/jobs").json["items"]}
    assert states == {"theirs": "queued", "ours": "scheduled"}
