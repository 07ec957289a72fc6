"""Metrics over time."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from app.jobs.models import Job, Replica
from app.jobs.series import MOST_POINTS
from tests.support.fake_node import FakeNode
from tests.support.stack import Answer, Caller, Stack
from tests.support.statements import counted
from tests.support.world import World
from trellis.vocabulary import ReplicaState
from trellis.wire import MetricPoint

BEGIN = datetime(2026, 1, 1, 12, tzinfo=UTC)
LOSS = [4.0, 2.0, 3.0, 1.0, 8.0]


@pytest.fixture
def job(stack: Stack, world: World) -> str:
    """A job that reported the loss every ten seconds, and twice how much memory it used."""
    member, node = stack.client(world.member), FakeNode.join(stack, world)
    made: str = member.post("/jobs", {"command": ["true"]}).json["id"]
    stack.run(stack.cycle)
    replica = stack.run(lambda uow: uow.session.execute(select(Replica)).scalar_one())
    (spec,) = node.specs((str(replica.id), replica.fence))
    stack.run(lambda uow: uow.session.execute(update(Replica).values(created_at=BEGIN)))
    points = [("loss", value, 10 * i) for i, value in enumerate(LOSS)] + [("memory", 7.0, 0), ("memory", 9.0, 30)]
    metrics = [
        MetricPoint(spec.replica_id, spec.fence, seq, name, value, None, (BEGIN + timedelta(seconds=at)).isoformat())
        for seq, (name, value, at) in enumerate(points, 1)
    ]
    node.ship(node.report(spec, ReplicaState.STARTING), node.report(spec, ReplicaState.RUNNING), metrics=metrics)
    times = {"started_at": BEGIN, "ended_at": None}
    stack.run(lambda uow: uow.session.execute(update(Job).values(times)))
    return made


@pytest.fixture
def member(stack: Stack, world: World) -> Caller:
    return stack.client(world.member)


def asked(caller: Caller, job: str, **query: Any) -> Answer:
    usual = {"from": BEGIN.isoformat(), "to": (BEGIN + timedelta(minutes=1)).isoformat()}
    return caller.get(f"/jobs/{job}/metrics/series", query_string={**usual, **query})


def values(answer: Answer, name: str = "loss") -> list[float]:
    (found,) = [item for item in answer.json["items"] if item["name"] == name]
    return [point["value"] for point in found["points"]]


@pytest.mark.parametrize(
    ("agg", "wanted"),
    [("mean", [3.0, 2.0, 8.0]), ("min", [2.0, 1.0, 8.0]), ("max", [4.0, 3.0, 8.0]), ("sum", [6.0, 4.0, 8.0]),
     ("last", [2.0, 1.0, 8.0])],
)  # fmt: skip
def test_each_step_of_time_is_one_value(member: Caller, job: str, agg: str, wanted: list[float]) -> None:
    answer = asked(member, job, names="loss", resolution=20, agg=agg)
    assert (values(answer), answer.json["resolution_s"], answer.json["agg"]) == (wanted, 20, agg)
    first = answer.json["items"][0]["points"][0]
    assert (datetime.fromisoformat(first["at"]), first["count"]) == (BEGIN, 2)


def test_all_names_are_found_where_none_is_given(member: Caller, job: str) -> None:
    answer = asked(member, job, resolution=60)
    assert [item["name"] for item in answer.json["items"]] == ["loss", "memory"]
    assert values(answer, "memory") == [8.0]


def test_a_name_that_was_never_reported_has_no_points(member: Caller, job: str) -> None:
    assert values(asked(member, job, names="nothing"), "nothing") == []


def test_only_the_time_that_is_asked_for_counts(member: Caller, job: str) -> None:
    begin = (BEGIN + timedelta(seconds=20)).isoformat()
    end = (BEGIN + timedelta(seconds=40)).isoformat()
    assert values(asked(member, job, names="loss", resolution=1, **{"from": begin, "to": end})) == [3.0, 1.0]


def test_a_replica_is_asked_for_by_its_index(member: Caller, job: str) -> None:
    assert values(asked(member, job, names="loss", resolution=60, replica=0)) == [3.6]
    assert values(asked(member, job, names="loss", resolution=60, replica=1)) == []


def test_each_replica_is_a_series_of_its_own_where_that_is_asked_for(member: Caller, job: str) -> None:
    items = asked(member, job, resolution=60, each_replica="true").json["items"]
    assert [(item["name"], item["replica"], len(item["points"])) for item in items] == [
        ("loss", 0, 1),
        ("memory", 0, 1),
    ]
    (empty,) = asked(member, job, resolution=60, each_replica="true", names="nothing").json["items"]
    assert (empty["name"], empty["points"]) == ("nothing", [])


def test_the_resolution_suits_the_time_where_none_is_said(member: Caller, job: str) -> None:
    for length, wanted in ((timedelta(minutes=1), 1), (timedelta(hours=1), 30), (timedelta(days=365), 157_680)):
        assert asked(member, job, names="loss", to=(BEGIN + length).isoformat()).json["resolution_s"] == wanted


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ({"resolution": 1, "to": (BEGIN + timedelta(seconds=MOST_POINTS + 1)).isoformat()}, "/resolution"),
        ({"resolution": 0}, "/resolution"),
        ({"resolution": "1s"}, "/resolution"),
        ({"agg": "median"}, "/agg"),
        ({"to": BEGIN.isoformat()}, "/to"),
        ({"from": "yesterday"}, "/from"),
        ({"replica": -1}, "/replica"),
        ({"names": ["x"] * 51}, "/names"),
        ({"surprise": 1}, "/surprise"),
    ],
    ids=str,
)
def test_a_question_that_makes_no_sense_names_its_field(
    member: Caller, job: str, query: dict[str, Any], pointer: str
) -> None:
    answer = asked(member, job, **{"names": "loss", **query})
    assert (answer.status, answer.json["errors"][0]["pointer"]) == (422, pointer), answer.text


def test_the_statements_do_not_grow_with_the_names(stack: Stack, member: Caller, job: str) -> None:
    counts = []
    for names in (["loss"], ["loss", "memory", *map(str, range(40))]):
        with counted(stack) as statements:
            assert asked(member, job, names=names, resolution=1).status == 200
        counts.append(len(statements))
    assert counts[0] == counts[1]


def test_nobody_else_sees_them(stack: Stack, world: World, job: str) -> None:
    assert asked(stack.client(world.stranger), job).status == 404
