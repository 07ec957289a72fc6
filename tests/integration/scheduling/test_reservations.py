"""Claims on future windows: what can be had, what stands in the way, how they begin and end; maintenance."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from app.core.amounts import Amounts
from app.resources.candidates import Part
from app.resources.models import Reservation
from app.resources.reservations import follow_windows, list_reservations
from app.scheduling.claims import ReservationSpec, reserve
from tests.support.fake_node import FakeNode, a_description
from tests.support.stack import Answer, Caller, Stack
from tests.support.world import World

GIB = 2**30
TODAY = datetime.now(UTC).replace(microsecond=0)


def at(hours: float) -> str:
    return (TODAY + timedelta(hours=hours)).isoformat()


@pytest.fixture
def chief(stack: Stack, world: World) -> Caller:
    return stack.client(world.project_admin)


@pytest.fixture
def admin(stack: Stack, world: World) -> Caller:
    return stack.client(world.admin)


def a_node(stack: Stack, world: World, name: str = "node-1", **values: Any) -> FakeNode:
    return FakeNode.join(stack, world, a_description(name, **values))


def claim(caller: Caller, start: float | None, end: float, **body: Any) -> Answer:
    window = {"ends_at": at(end)} | ({} if start is None else {"starts_at": at(start)})
    return caller.post("/resources/reserve", window | body)


def test_a_claim_names_the_parts_of_nodes_that_it_will_get(stack: Stack, world: World, chief: Caller) -> None:
    for name in ("a", "b"):
        a_node(stack, world, name, cpus=8, gpus=2)
    made = claim(chief, 24, 48, count=2, cpus=4, gpus=2, name="course")
    assert made.status == 201, made.text
    assert [(part["node"], part["gpus"]) for part in made.json["parts"]] == [
        ("a", [{"index": 0, "milli": 1000}, {"index": 1, "milli": 1000}]),
        ("b", [{"index": 0, "milli": 1000}, {"index": 1, "milli": 1000}]),
    ]
    assert (made.json["state"], made.json["project_id"]) == ("planned", str(world.project.id))
    path = f"/resources/reservations/{made.json['id']}"
    viewer = stack.client(world.viewer)
    assert viewer.get(path).json == made.json
    assert viewer.get("/resources/reservations").json["items"] == [made.json]
    (kept,) = stack.run(list_reservations)
    assert (str(kept[0].id), [part.cpu_milli for part in kept[1]]) == (made.json["id"], [4000, 4000])


@pytest.mark.parametrize(
    ("start", "end", "status"),
    [(10, 20, 409), (0.5, 11, 409), (19, 30, 409), (5, 30, 409), (20, 30, 201), (5, 10, 201)],
)
def test_two_claims_share_no_device_at_any_moment(
    stack: Stack, world: World, chief: Caller, start: float, end: float, status: int
) -> None:
    a_node(stack, world, gpus=1)
    assert claim(chief, 10, 20, gpus=1).status == 201
    second = claim(chief, start, end, gpus=1)
    assert second.status == status, second.text
    if status == 409:
        assert second.json["detail"].endswith("free on the 1 node that matches: 7 CPUs, 0 GPUs")


def test_claims_one_after_the_other_leave_as_much_as_the_larger_does(stack: Stack, world: World, chief: Caller) -> None:
    a_node(stack, world, cpus=8)
    for start, cpus in ((10, 5), (11, 3), (12, 6)):
        assert claim(chief, start, start + 1, cpus=cpus).status == 201
    assert claim(chief, 9, 14, cpus=3).status == 409
    assert claim(chief, 9, 14, cpus=2).status == 201


def test_of_16_claims_on_the_last_node_exactly_one_wins(stack: Stack, world: World) -> None:
    a_node(stack, world, gpus=1)
    part = Part(Amounts(1000, GIB, 1000))
    window = (TODAY + timedelta(hours=2), TODAY + timedelta(hours=1))
    spec = ReservationSpec(part, ends_at=window[0], starts_at=window[1], project=str(world.project.id))
    outcomes = stack.race(lambda uow: reserve(uow, spec), times=16)
    assert sorted(type(o).__name__ for o in outcomes) == ["CapacityTaken"] * 15 + ["Reservation"]


def test_only_what_is_sure_to_have_ended_is_promised(stack: Stack, world: World, chief: Caller) -> None:
    a_node(stack, world, cpus=3)
    member = stack.client(world.member)
    for body in ({"time_limit": "1h"}, {}, {"time_limit": "5h"}):
        assert member.post("/jobs", {"command": ["true"], **body}).status == 201
    assert stack.run(stack.cycle).started == 3
    assert claim(chief, 2, 3, cpus=2).status == 409
    assert claim(chief, 2, 3, cpus=1).status == 201
    assert claim(chief, 6, 7, cpus=3).status == 409
    assert claim(chief, 6, 7, cpus=2).status == 201


def test_what_is_held_for_a_time_is_in_the_way_for_that_time(stack: Stack, world: World, chief: Caller) -> None:
    a_node(stack, world, gpus=1)
    assert chief.post("/resources/allocate", {"gpus": 1, "ttl": "2h"}).status == 201
    assert claim(chief, 1, 5, gpus=1).status == 409
    assert claim(chief, 3, 5, gpus=1).status == 201


def test_nobody_holds_what_another_project_has_claimed_within_that_time(
    stack: Stack, world: World, chief: Caller
) -> None:
    a_node(stack, world, gpus=1)
    assert claim(chief, 1, 5, gpus=1).status == 201
    stranger = stack.client(world.stranger)
    late = stranger.post("/resources/allocate", {"gpus": 1, "ttl": "2h"})
    assert (late.status, late.json["code"]) == (409, "capacity_taken")
    assert chief.post("/resources/allocate", {"gpus": 1, "ttl": "2h"}).status == 201


def test_a_claim_is_given_up_and_what_it_held_is_free_again(stack: Stack, world: World, chief: Caller) -> None:
    a_node(stack, world, gpus=1)
    made = claim(chief, 1, 5, gpus=1).json
    path = f"/resources/reservations/{made['id']}"
    assert stack.client(world.member).delete(path).status == 403
    assert stack.client(world.stranger).delete(path).status == 404
    assert chief.delete(path, headers={"If-Match": '"9"'}).json["code"] == "stale_version"
    assert chief.delete(path, headers={"If-Match": '"1"'}).status == 204
    assert chief.delete(path).json["code"] == "illegal_transition"
    assert claim(chief, 1, 5, gpus=1).status == 201
    assert len(chief.get("/resources/reservations").json["items"]) == 1
    assert len(chief.get("/resources/reservations?ended=true").json["items"]) == 2


def test_claims_begin_and_end_as_their_windows_do(stack: Stack, world: World, chief: Caller) -> None:
    a_node(stack, world, gpus=3)
    later, now = claim(chief, 1, 5, gpus=1).json, claim(chief, None, 5, gpus=1).json
    assert (later["state"], now["state"]) == ("planned", "active")
    shift = {name: getattr(Reservation, name) - timedelta(hours=3) for name in ("starts_at", "ends_at")}
    move = lambda uow: uow.session.execute(update(Reservation).values(shift))  # noqa: E731
    in_order = select(Reservation.state).order_by(Reservation.created_at)
    for states in (["active", "active"], ["ended", "ended"]):
        stack.run(move)
        stack.race(follow_windows, times=3)
        assert stack.run(lambda uow: list(uow.session.execute(in_order).scalars())) == states
    assert stack.events_of(later["id"]) == ["reservation.created", "reservation.active", "reservation.ended"]


def test_maintenance_takes_whole_nodes_whatever_runs_there(
    stack: Stack, world: World, chief: Caller, admin: Caller
) -> None:
    a_node(stack, world, cpus=4, gpus=1)
    stack.client(world.member).post("/jobs", {"command": ["true"]})
    stack.run(stack.cycle)
    body = {"nodes": ["node-1"], "starts_at": at(1), "ends_at": at(2), "name": "new fans"}
    assert chief.post("/resources/maintenance", body).status == 403
    made = admin.post("/resources/maintenance", body)
    assert (made.status, made.json["maintenance"], made.json["project_id"]) == (201, True, None), made.text
    assert made.json["parts"][0]["cpu_milli"] == 4000
    assert stack.client(world.stranger).get(f"/resources/reservations/{made.json['id']}").json == made.json
    assert claim(chief, 1, 5, gpus=1).status == 409
    assert chief.delete(f"/resources/reservations/{made.json['id']}").status == 403
    assert admin.delete(f"/resources/reservations/{made.json['id']}").status == 204


def test_maintenance_gives_way_to_a_claim_and_says_to_which(
    stack: Stack, world: World, chief: Caller, admin: Caller
) -> None:
    a_node(stack, world, gpus=1)
    made = claim(chief, 1, 5, gpus=1).json
    body = {"nodes": ["node-1"], "starts_at": at(4), "ends_at": at(6)}
    answer = admin.post("/resources/maintenance", body)
    assert (answer.status, answer.json["code"]) == (409, "capacity_taken")
    assert made["id"] in answer.json["detail"]
    assert admin.post("/resources/maintenance", body | {"starts_at": at(5)}).status == 201
    unknown = admin.post("/resources/maintenance", body | {"nodes": ["node-1", "node-2"]})
    assert [error["pointer"] for error in unknown.json["errors"]] == ["/nodes/1"]


@pytest.mark.parametrize(
    ("start", "end", "pointer"),
    [
        (-1, 2, "/starts_at"),
        (2, 2, "/ends_at"),
        (3, 2, "/ends_at"),
        (1, 24 * 400, "/ends_at"),
        (24 * 800, 24 * 801, "/starts_at"),
    ],
)
def test_a_window_that_is_none_is_refused(
    stack: Stack, world: World, chief: Caller, start: float, end: float, pointer: str
) -> None:
    answer = claim(chief, start, end)
    assert (answer.status, [error["pointer"] for error in answer.json["errors"]]) == (422, [pointer])


def test_a_member_claims_nothing_for_later(stack: Stack, world: World) -> None:
    a_node(stack, world)
    project = {"project": world.project.name}
    assert claim(stack.client(world.member), 1, 2, **project).status == 403
    assert claim(stack.client(world.stranger), 1, 2, **project).json["errors"][0]["pointer"] == "/project"
