"""Metrics as a weapon: names, numbers, times and masses that are to hurt the platform, and series of others."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, select

from app.jobs import metrics as rules
from app.jobs.condensing import Keeping, condense
from app.jobs.models import MetricPoint, MetricSeries, Replica
from tests.support.fake_node import FakeNode, a_description
from tests.support.stack import Stack
from tests.support.world import World
from trellis import wire
from trellis.vocabulary import ReplicaState

NASTY = (
    "'; DROP TABLE metric_points; --",
    "%s %(x)s {0} :name",
    "a\x00b"[:1] + "\\",
    "<script>",
    "../../etc",
    "\u202egnp",
    "🚀" * 60,
)


@pytest.fixture
def node(stack: Stack, world: World) -> FakeNode:
    return FakeNode.join(stack, world)


@pytest.fixture
def running(stack: Stack, world: World, node: FakeNode) -> tuple[str, wire.ReplicaSpec]:
    """A job's id, and its replica that runs on the node."""
    job_id = stack.client(world.member).post("/jobs", {"command": ["true"]}).json["id"]
    stack.run(stack.cycle)
    replica = stack.run(lambda uow: uow.session.execute(select(Replica)).scalar_one())
    (spec,) = node.specs((str(replica.id), replica.fence))
    node.ship(node.report(spec, ReplicaState.STARTING), node.report(spec, ReplicaState.RUNNING))
    return job_id, spec


def point(spec: wire.ReplicaSpec, seq: int, **values: Any) -> wire.MetricPoint:
    usual: dict[str, Any] = {"name": "loss", "value": 1.0, "step": None, "at": datetime.now(UTC).isoformat()}
    return wire.MetricPoint(spec.replica_id, spec.fence, seq, **usual | values)


def stored(stack: Stack) -> int:
    return stack.run(lambda uow: uow.session.execute(select(func.count()).select_from(MetricPoint)).scalar_one())


def test_names_are_words_and_nothing_else(
    stack: Stack, world: World, node: FakeNode, running: tuple[str, wire.ReplicaSpec]
) -> None:
    job_id, spec = running
    node.ship(metrics=[point(spec, seq, name=name) for seq, name in enumerate(NASTY, 1)])
    member = stack.client(world.member)
    told = member.get(f"/jobs/{job_id}/metrics/series", query_string={"names": NASTY}).json["items"]
    assert {item["name"]: len(item["points"]) for item in told} == dict.fromkeys(NASTY, 1)
    assert set(member.get(f"/jobs/{job_id}/metrics").json["latest"]) == set(NASTY)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", '"1"', "null", "true"])
def test_what_is_no_number_is_refused_whole(
    stack: Stack, node: FakeNode, running: tuple[str, wire.ReplicaSpec], value: str
) -> None:
    _, spec = running
    body = f'{{"metrics": [{{"replica_id": "{spec.replica_id}", "fence": 1, "seq": 1, "name": "a", "value": {value}, "step": null, "at": "2026-01-01T00:00:00+00:00"}}]}}'
    refused = node.caller.call("POST", "/agent/shipments", data=body, content_type="application/json")
    assert (refused.status, stored(stack)) == (422, 0)


@pytest.mark.parametrize("at", ["", "yesterday", "2026-13-01T00:00:00", "9" * 5000])
def test_a_time_that_is_none_is_refused_by_its_field(
    stack: Stack, node: FakeNode, running: tuple[str, wire.ReplicaSpec], at: str
) -> None:
    refused = node.send(wire.Shipment(metrics=(point(running[1], 1, at=at),)))
    assert (refused.status, refused.json["errors"][0]["pointer"], stored(stack)) == (422, "/metrics", 0)


@pytest.mark.parametrize(
    "at",
    ["0001-01-01T00:00:00+00:00", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "1970-01-01T00:00:00",
     "3000-01-01T00:00:00+00:00"],
)  # fmt: skip
def test_a_clock_that_is_far_off_leaves_points_where_they_are_found_and_grow_old(
    stack: Stack, world: World, node: FakeNode, running: tuple[str, wire.ReplicaSpec], at: str
) -> None:
    job_id, spec = running
    node.ship(metrics=[point(spec, 1, at=at)])
    told = stack.client(world.member).get(f"/jobs/{job_id}/metrics").json["latest"]["loss"]["at"]
    now = datetime.now(UTC)
    assert (
        now - rules.EARLY - timedelta(minutes=5)
        < datetime.fromisoformat(told)
        < now + rules.LATE + timedelta(minutes=5)
    )
    aged = Keeping(*[-2 * rules.LATE] * 3)
    stack.run(lambda uow: condense(uow, aged))
    assert stored(stack) == 0


def test_a_name_for_each_point_ends_at_so_many_and_the_others_go_on(
    stack: Stack, node: FakeNode, running: tuple[str, wire.ReplicaSpec]
) -> None:
    _, spec = running
    many = 2 * rules.MOST_NAMES
    for part in range(4):
        first = 1 + part * many // 4
        receipt = node.ship(metrics=[point(spec, seq, name=f"m{seq}") for seq in range(first, first + many // 4)])
    assert receipt.metrics[spec.replica_id] == many  # settled: the node may forget them
    node.ship(metrics=[point(spec, many + 1, name="m1")])
    assert stored(stack) == rules.MOST_NAMES + 1
    names = select(func.count()).select_from(MetricSeries)
    assert stack.run(lambda uow: uow.session.execute(names).scalar_one()) == rules.MOST_NAMES


def test_what_is_sent_twice_in_any_order_is_counted_once(
    stack: Stack, node: FakeNode, running: tuple[str, wire.ReplicaSpec]
) -> None:
    _, spec = running
    points = [point(spec, seq) for seq in range(1, 50)]
    node.ship(metrics=points[:30])
    node.ship(metrics=[*reversed(points), *points])
    node.ship(metrics=points)
    assert stored(stack) == 49


@pytest.mark.parametrize("values", [{"step": 10**30}, {"step": -(10**30)}, {"seq": 10**30}])
def test_numbers_that_no_column_holds_are_refused(
    stack: Stack, node: FakeNode, running: tuple[str, wire.ReplicaSpec], values: dict[str, Any]
) -> None:
    spec = running[1]
    refused = node.send(wire.Shipment(metrics=(replace(point(spec, 1), **values),)))
    assert (refused.status, stored(stack)) == (422, 0)


def test_a_body_that_is_too_large_is_refused(
    stack: Stack, node: FakeNode, running: tuple[str, wire.ReplicaSpec]
) -> None:
    huge = wire.Shipment(metrics=tuple(point(running[1], seq, name="x" * 200) for seq in range(1, 15_000)))
    assert (node.send(huge).status, stored(stack)) == (413, 0)


def test_a_node_reports_nothing_of_a_replica_that_is_anothers(
    stack: Stack, world: World, running: tuple[str, wire.ReplicaSpec]
) -> None:
    _, spec = running
    other = FakeNode.join(stack, world, a_description("node-2"))
    receipt = other.ship(metrics=[point(spec, 1)])
    assert (receipt.stale, receipt.metrics, stored(stack)) == ((spec.replica_id,), {}, 0)


def test_people_report_nothing_and_nodes_read_nothing(
    stack: Stack, world: World, node: FakeNode, running: tuple[str, wire.ReplicaSpec]
) -> None:
    job_id, spec = running
    body = wire.pack(wire.Shipment(metrics=(point(spec, 1),)))
    assert stack.client(world.member).post("/agent/shipments", body).status == 403
    assert node.caller.get(f"/jobs/{job_id}/metrics/series").status == 403
    assert stored(stack) == 0


def test_the_series_of_another_project_are_not_there(
    stack: Stack, world: World, node: FakeNode, running: tuple[str, wire.ReplicaSpec]
) -> None:
    job_id, spec = running
    node.ship(metrics=[point(spec, 1)])
    stranger = stack.client(world.stranger)
    for path in (f"/jobs/{job_id}/metrics", f"/jobs/{job_id}/metrics/series", f"/jobs/{UUID(int=0)}/metrics/series"):
        assert stranger.get(path).status == 404


@pytest.mark.parametrize(
    "query", [{"each_replica": "perhaps"}, {"resolution": 10**30}, {"from": "0001-01-01T00:00:00Z"}]
)
def test_a_question_that_would_ask_too_much_names_its_field(
    stack: Stack, world: World, running: tuple[str, wire.ReplicaSpec], query: dict[str, Any]
) -> None:
    answer = stack.client(world.member).get(
        f"/jobs/{running[0]}/metrics/series", query_string={"names": "a", "resolution": 60, **query}
    )
    assert answer.status == 422, answer.text
