"""Who held how much over time: against intervals that are known, and against themselves."""

from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, text

from app.core.access import SYSTEM
from app.core.ids import new_id
from app.core.uow import UnitOfWork
from app.resources.models import Allocation, AllocationGpu, AllocationSlot, Gpu, Node
from app.resources.usage import KEYS, UsageQuery, note_idle, report_usage
from tests.integration.jobs.test_life import placed, plan, submit
from tests.support.fake_node import FakeNode, a_description
from tests.support.stack import Caller, Stack
from tests.support.statements import counted
from tests.support.world import World
from trellis import wire

GIB = 2**30
# A Monday long ago, so that what runs now is not in the way.
T0 = datetime(2026, 1, 5, tzinfo=UTC)


def at(hours: float) -> datetime:
    return T0 + timedelta(hours=hours)


@pytest.fixture
def node(stack: Stack, world: World) -> FakeNode:
    return FakeNode.join(stack, world, a_description(gpus=4))


@pytest.fixture
def admin(stack: Stack, world: World) -> Caller:
    return stack.client(world.admin)


def hold(
    stack: Stack, project_id: UUID, begins: float, ends: float, gpus: int = 0, idle_s: int = 0, **values: Any
) -> UUID:
    """A record of something that was held from one hour of T0's day to another."""

    def act(uow: UnitOfWork) -> UUID:
        node_id = uow.session.query(Node.id).order_by(Node.name).first()[0]  # type: ignore[index]
        devices = [row[0] for row in uow.session.query(Gpu.id).filter_by(node_id=node_id).order_by(Gpu.index)]
        row: dict[str, Any] = {
            "id": new_id(), "node_id": node_id, "project_id": project_id, "job_id": new_id(), "holder_name": "past",
            "owner_name": "ann", "exclusive": False, "expires_at": None, "cpu_milli": 2000, "memory_bytes": GIB,
            "created_at": at(begins), "released_at": at(ends),
        }  # fmt: skip
        uow.execute(insert(Allocation), [row | values])
        held = [{"allocation_id": row["id"], "gpu_id": gpu, "milli": 1000, "live": False, "idle_s": idle_s}
                for gpu in devices[:gpus]]  # fmt: skip
        if held:
            uow.execute(insert(AllocationGpu), held)
        found: UUID = row["id"]
        return found

    return stack.run(act)


def ask(caller: Caller, **query: Any) -> list[dict[str, Any]]:
    query = {"from": at(0).isoformat(), "to": at(24).isoformat(), **query}
    answer = caller.get("/resources/usage", query_string=query)
    assert answer.status == 200, answer.text
    items: list[dict[str, Any]] = answer.json["items"]
    return items


def test_hours_are_those_between_grant_and_return(stack: Stack, world: World, node: FakeNode, admin: Caller) -> None:
    hold(stack, world.project.id, 1, 3.5, gpus=2)
    (found,) = ask(admin)
    assert (found["cpu_hours"], found["memory_gib_hours"], found["gpu_hours"], found["jobs"]) == (5.0, 2.5, 5.0, 1)
    assert (found["idle_gpu_hours"], found["project"], found["queue"]) == (0.0, None, None)


def test_what_reaches_over_the_edges_counts_as_far_as_it_lies_within(
    stack: Stack, world: World, node: FakeNode, admin: Caller
) -> None:
    hold(stack, world.project.id, -5, 1)
    hold(stack, world.project.id, 23, 30)
    hold(stack, world.project.id, -9, -1)
    hold(stack, world.project.id, 24, 25)
    (found,) = ask(admin)
    assert (found["cpu_hours"], found["jobs"]) == (4.0, 2)


def test_it_is_told_apart_by_time_project_user_and_kind_of_device(
    stack: Stack, world: World, node: FakeNode, admin: Caller
) -> None:
    hold(stack, world.project.id, 0.5, 1.5, gpus=1)
    hold(stack, world.strangers_project.id, 1, 2, owner_name="eve")
    by_hour = ask(admin, bucket="1h")
    assert [(one["starts_at"][11:13], one["cpu_hours"]) for one in by_hour] == [("00", 1.0), ("01", 3.0)]
    by_user = ask(admin, by=["user", "gpu_type"])
    assert [(one["user"], one["gpu_type"], one["gpu_hours"]) for one in by_user] == [
        ("ann", "H100", 1.0),
        ("eve", "", 0.0),
    ]
    assert {one["project"] for one in ask(admin, by="project")} == {world.project.name, world.strangers_project.name}


def test_slices_count_as_the_part_of_the_device_that_they_hold(
    stack: Stack, world: World, node: FakeNode, admin: Caller
) -> None:
    allocation_id = hold(stack, world.project.id, 0, 8)

    def slots(uow: UnitOfWork) -> None:
        gpu_id = uow.session.query(Gpu.id).first()[0]  # type: ignore[index]
        rows = [{"allocation_id": allocation_id, "gpu_id": gpu_id, "slot": slot, "live": False} for slot in range(4)]
        uow.execute(insert(AllocationSlot), rows)

    stack.run(slots)
    assert [one["gpu_hours"] for one in ask(admin)] == [4.0]


def test_everybody_sees_what_their_projects_held_and_no_more(
    stack: Stack, world: World, node: FakeNode, admin: Caller
) -> None:
    hold(stack, world.project.id, 0, 1)
    hold(stack, world.strangers_project.id, 0, 2)
    for user, hours in ((world.viewer, [2.0]), (world.stranger, [4.0]), (world.admin, [6.0])):
        assert [one["cpu_hours"] for one in ask(stack.client(user))] == hours
    path = "/resources/usage"
    foreign = {"project_id": str(world.project.id)}
    assert stack.client(world.stranger).get(path, query_string=foreign).status == 404
    assert stack.client().get(path).status == 401
    assert node.caller.get(path).status == 403


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ({"from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"}, "/from"),
        ({"from": "2020-01-01T00:00:00Z"}, "/from"),
        ({"from": "2099-01-01T00:00:00Z"}, "/from"),
        ({"last": "30d", "bucket": "1m"}, "/bucket"),
        ({"bucket": "1s"}, "/bucket"),
        ({"bucket": "x"}, "/bucket"),
        ({"by": "shoe size"}, "/by/0"),
        ({"from": "yesterday"}, "/from"),
        ({"last": "500d"}, "/last"),
        ({"to": "0001-01-01T00:00:00Z"}, "/to"),
    ],
)
def test_questions_that_make_no_sense_are_refused_by_name(admin: Caller, query: dict[str, str], pointer: str) -> None:
    refused = admin.get("/resources/usage", query_string=query)
    assert (refused.status, refused.json["errors"][0]["pointer"]) == (422, pointer), refused.text


def test_a_week_is_asked_in_few_statements(stack: Stack, world: World, node: FakeNode, admin: Caller) -> None:
    for hour in range(20):
        hold(stack, world.project.id, hour, hour + 2, gpus=1)
    with counted(stack) as statements:
        ask(admin, bucket="1h", by=list(KEYS))
    assert len([one for one in statements if "allocations" in one]) == 1


_HOURS = st.floats(-3, 27, allow_nan=False).map(lambda hours: round(hours, 6))
_HELD = st.tuples(_HOURS, st.floats(0, 12).map(lambda hours: round(hours, 6)), st.integers(0, 4), st.integers(0, 10**5))


@settings(
    max_examples=15, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(held=st.lists(_HELD, max_size=8), bucket_s=st.integers(600, 90_000))
def test_the_pieces_make_up_the_whole_however_it_is_cut(
    stack: Stack, world: World, node: FakeNode, held: list[Any], bucket_s: int
) -> None:
    stack.run(lambda uow: uow.session.execute(text("DELETE FROM allocation_gpus; DELETE FROM allocations")))
    for begins, lasts, gpus, idle_s in held:
        hold(stack, world.project.id, begins, begins + lasts, gpus, idle_s)

    def whole(**query: Any) -> list[float]:
        asked = UsageQuery(at(0), at(24), **query)
        items = stack.run(lambda uow: report_usage(uow, asked), SYSTEM).items
        names = ("cpu_hours", "memory_gib_hours", "gpu_hours", "idle_gpu_hours")
        assert all(one.idle_gpu_hours <= one.gpu_hours + 1e-9 for one in items)
        return [sum(getattr(one, name) for one in items) for name in names]

    inside = [max(0.0, min(24.0, b + lasts) - max(0.0, b)) for b, lasts, _, _ in held]
    expected = [2 * sum(inside), sum(inside), sum(h * gpus for h, (_, _, gpus, _) in zip(inside, held, strict=True))]
    for pieces, by in product((None, bucket_s), ((), ("user",), KEYS)):
        found = whole(bucket_s=pieces, by=by)
        assert found == pytest.approx(whole(), abs=1e-6)
        assert found[:3] == pytest.approx(expected, abs=1e-5)


# Idle


def beat(node: FakeNode, *percent: int) -> None:
    node.beat(gpus=tuple(wire.GpuReading(i, busy, 0, 40, 100) for i, busy in enumerate(percent)))


def later(stack: Stack, seconds: float) -> None:
    """So much time passes between two looks."""
    statement = "UPDATE allocation_gpus SET idle_seen_at = idle_seen_at - make_interval(secs => :s)"
    stack.run(lambda uow: uow.session.execute(text(statement), {"s": seconds}))


def idle(stack: Stack) -> list[int]:
    query = "SELECT idle_s FROM allocation_gpus JOIN gpus ON gpus.id = gpu_id WHERE live ORDER BY index"
    return list(stack.run(lambda uow: uow.session.execute(text(query)).scalars().all()))


def test_devices_that_are_held_and_do_nothing_are_counted(stack: Stack, world: World, node: FakeNode) -> None:
    submit(stack.client(world.member), resources={"gpus": 2})
    plan(stack)
    (spec,) = placed(stack, node)
    assert [gpu.index for gpu in spec.gpus] == [0, 1]
    beat(node, 0, 80, 0, 0)
    for _ in range(2):  # twice at one moment counts once
        stack.run(note_idle)
    later(stack, 60)
    stack.run(note_idle)
    stack.run(note_idle)
    assert idle(stack) == [60, 0]
    beat(node, 50, 0, 0, 0)
    stack.run(note_idle)
    later(stack, 60)
    stack.run(note_idle)
    assert idle(stack) == [60, 60]
    later(stack, 3600)  # nobody looked meanwhile
    stack.run(note_idle)
    assert idle(stack) == [60, 60]


def test_devices_of_a_profile_can_not_be_said_to_be_idle(stack: Stack, world: World) -> None:
    node = FakeNode.join(stack, world, a_description(gpus=1, profile="h100x1"))
    submit(stack.client(world.member), resources={"gpus": 1})
    plan(stack)
    beat(node, 0)
    stack.run(note_idle)
    later(stack, 60)
    stack.run(note_idle)
    assert idle(stack) == [0]
