"""Metrics that grow coarser with age: what is asked of them stays true, and nothing is lost or counted twice."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, func, select, update

from app.core.uow import UnitOfWork
from app.jobs.condensing import AT_ONCE, Keeping, condense
from app.jobs.metrics import append_points, latest
from app.jobs.metrics import series as newest
from app.jobs.models import Job, MetricBucket, MetricPoint, MetricSeries, Replica
from app.jobs.series import AGGREGATES, SeriesQuery, over_time
from tests.support import examples
from tests.support.fake_node import FakeNode
from tests.support.stack import Stack
from tests.support.world import World
from trellis.wire import MetricPoint as Point

BEGIN = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
# Long ago for the database's clock: everything is old enough at once; or nothing is.
AT_ONCE_COARSE = Keeping(timedelta(0), timedelta(0), timedelta(days=36_500))
MINUTES_ALONE = Keeping(timedelta(0), timedelta(days=36_500), timedelta(days=36_500))
NOT_YET = Keeping(*[timedelta(days=36_500)] * 3)
GONE = Keeping(*[timedelta(0)] * 3)
Sample = tuple[float, float]  # seconds after BEGIN, value
samples = st.lists(
    st.tuples(st.integers(0, 3599).map(float), st.floats(-1e308, 1e308).filter(lambda v: v == 0 or abs(v) > 1e-280)),
    min_size=1, max_size=40,
)  # fmt: skip


@pytest.fixture
def job_id(stack: Stack, world: World) -> UUID:
    """A job with one replica, as old as what it is to have measured."""
    member = stack.client(world.member)
    FakeNode.join(stack, world)
    made = UUID(member.post("/jobs", {"command": ["true"]}).json["id"])
    stack.run(stack.cycle)
    times = {"started_at": BEGIN, "created_at": BEGIN}
    stack.run(lambda uow: uow.session.execute(update(Job).values(times)))
    stack.run(lambda uow: uow.session.execute(update(Replica).values(created_at=BEGIN)))
    return made


def measured(uow: UnitOfWork, points: Sequence[Sample], name: str = "loss") -> None:
    replica = uow.session.execute(select(Replica)).scalar_one()
    told = [
        Point(str(replica.id), replica.fence, replica.metric_seq + n, name, value, n, (BEGIN + timedelta(seconds=s)).isoformat())
        for n, (s, value) in enumerate(points, 1)
    ]  # fmt: skip
    append_points(uow, {replica.id: replica}, told)


def condense_all(uow: UnitOfWork, keeping: Keeping) -> None:
    while condense(uow, keeping):
        pass


def asked(uow: UnitOfWork, job_id: UUID, step_s: int, agg: str) -> list[tuple[datetime, float, int]]:
    query = SeriesQuery(("loss",), BEGIN, BEGIN + HOUR, step_s, agg)
    (found,) = over_time(uow, uow.get(Job, job_id), query).items
    return [(point["at"], point["value"], point["count"]) for point in found["points"]]


def rows(uow: UnitOfWork, model: Any) -> int:
    return uow.session.execute(select(func.count()).select_from(model)).scalar_one()


@settings(
    examples.CHEAP,
    max_examples=max(30, examples.CHEAP.max_examples // 10),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(points=samples, step_s=st.sampled_from([60, 300, 900, 3600]), late=samples)
def test_what_is_condensed_says_of_whole_buckets_what_its_points_said(
    stack: Stack, job_id: UUID, points: list[Sample], step_s: int, late: list[Sample]
) -> None:
    def compare(uow: UnitOfWork) -> None:
        for table in (MetricPoint, MetricBucket, MetricSeries):
            uow.session.execute(delete(table))
        keeping = MINUTES_ALONE if step_s < 900 else AT_ONCE_COARSE
        measured(uow, sorted(points))
        condense_all(uow, keeping)
        # What comes late is added to what is condensed already; some of it stays as it is.
        measured(uow, [*late, *points])
        before = {agg: asked(uow, job_id, step_s, agg) for agg in AGGREGATES if agg != "last"}
        condense_all(uow, keeping)
        after = {agg: asked(uow, job_id, step_s, agg) for agg in before}
        assert rows(uow, MetricPoint) == 0
        raw = sorted([*points, *late, *points])
        for agg, found in after.items():
            assert [(at, many) for at, _, many in found] == [(at, many) for at, _, many in before[agg]]
            wanted = by_hand(raw, step_s, agg)
            for (_, value, _), (_, same, _), right in zip(found, before[agg], wanted, strict=True):
                assert value == pytest.approx(right, rel=1e-9, abs=1e-9 * max(abs(v) for _, v in raw)), agg
                assert same == pytest.approx(right, rel=1e-9, abs=1e-9 * max(abs(v) for _, v in raw)), agg

    stack.run(compare)


def by_hand(points: Sequence[Sample], step_s: int, agg: str) -> list[float]:
    parts: dict[int, list[float]] = {}
    for second, value in points:
        parts.setdefault(int(second // step_s), []).append(value)
    largest = 1.7976931348623157e308
    act: dict[str, Callable[[list[float]], float]] = {
        "min": min,
        "max": max,
        "sum": lambda values: max(-largest, min(largest, sum(v / 2**64 for v in values) * 2.0**64)),
        "mean": lambda values: sum(v / len(values) for v in values),
    }
    return [act[agg](parts[key]) for key in sorted(parts)]


def test_minutes_become_quarters_and_quarters_end(stack: Stack, job_id: UUID) -> None:
    points = [(float(second), float(second)) for second in range(0, 3600, 10)]
    stack.run(lambda uow: measured(uow, points))
    stack.run(lambda uow: condense_all(uow, NOT_YET))
    assert stack.run(lambda uow: (rows(uow, MetricPoint), rows(uow, MetricBucket))) == (360, 0)
    stack.run(lambda uow: condense_all(uow, MINUTES_ALONE))
    assert stack.run(lambda uow: (rows(uow, MetricPoint), rows(uow, MetricBucket))) == (0, 60)
    stack.run(lambda uow: condense_all(uow, AT_ONCE_COARSE))
    assert stack.run(lambda uow: (rows(uow, MetricPoint), rows(uow, MetricBucket))) == (0, 4)
    stack.run(lambda uow: uow.session.execute(update(Replica).values(ended_at=BEGIN)))
    stack.run(lambda uow: condense_all(uow, GONE))
    assert stack.run(lambda uow: (rows(uow, MetricBucket), rows(uow, MetricSeries))) == (0, 0)


def test_the_last_of_a_bucket_is_the_one_that_was_measured_last(stack: Stack, job_id: UUID) -> None:
    stack.run(lambda uow: measured(uow, [(30.0, 5.0), (10.0, 9.0)]))
    stack.run(lambda uow: condense_all(uow, MINUTES_ALONE))
    stack.run(lambda uow: measured(uow, [(20.0, 7.0)]))
    stack.run(lambda uow: condense_all(uow, AT_ONCE_COARSE))
    assert stack.run(lambda uow: [value for _, value, _ in asked(uow, job_id, 3600, "last")]) == [5.0]


def test_the_latest_value_and_the_newest_points_are_told_of_what_is_condensed(stack: Stack, job_id: UUID) -> None:
    stack.run(lambda uow: measured(uow, [(10.0, 4.0), (20.0, 2.0), (70.0, 1.0)]))
    stack.run(lambda uow: condense_all(uow, MINUTES_ALONE))
    told = stack.run(lambda uow: latest(uow, uow.get(Job, job_id)))
    assert (told["loss"]["value"], told["loss"]["step"]) == (1.0, 3)
    stack.run(lambda uow: measured(uow, [(130.0, 8.0)]))
    points = stack.run(lambda uow: newest(uow, uow.get(Job, job_id), "loss", 2))
    assert [point["value"] for point in points] == [1.0, 8.0]
    assert next(point["value"] for point in stack.run(lambda uow: newest(uow, uow.get(Job, job_id), "loss", 9))) == 3.0


def test_a_question_from_within_a_minute_is_given_that_minute(stack: Stack, job_id: UUID) -> None:
    stack.run(lambda uow: measured(uow, [(5.0, 4.0), (65.0, 2.0)]))
    stack.run(lambda uow: condense_all(uow, MINUTES_ALONE))
    query = SeriesQuery(("loss",), BEGIN + timedelta(seconds=30), BEGIN + timedelta(minutes=1), 60)
    table = stack.run(lambda uow: over_time(uow, uow.get(Job, job_id), query))
    assert [point["value"] for point in table.items[0]["points"]] == [4.0]


def test_a_transaction_that_is_lost_loses_no_point(stack: Stack, job_id: UUID) -> None:
    stack.run(lambda uow: measured(uow, [(10.0, 4.0), (20.0, 2.0)]))
    with stack.sessions() as session:  # a worker that dies before its commit
        condense(UnitOfWork(session, stack.run(lambda uow: uow.actor)), MINUTES_ALONE)
        session.rollback()
    assert stack.run(lambda uow: rows(uow, MetricPoint)) == 2
    stack.run(lambda uow: condense_all(uow, MINUTES_ALONE))
    assert stack.run(lambda uow: asked(uow, job_id, 60, "mean")) == [(BEGIN, 3.0, 2)]


def test_many_that_condense_at_once_count_each_point_once(stack: Stack, job_id: UUID) -> None:
    points = [(float(second), 1.0) for second in range(3600)]
    for name in ("loss", "a", "b", "c"):
        stack.run(partial(measured, points=points, name=name))
    outcomes = stack.race(lambda uow: condense_all(uow, MINUTES_ALONE), times=4)
    assert outcomes == [None] * 4
    stack.run(lambda uow: condense_all(uow, MINUTES_ALONE))
    assert stack.run(lambda uow: sum(many for _, _, many in asked(uow, job_id, 60, "sum"))) == 3600
    total = select(func.sum(MetricBucket.many))
    assert stack.run(lambda uow: uow.session.execute(total).scalar_one()) == 4 * 3600


def test_a_unit_takes_so_many_points_at_the_most_and_says_that_there_are_more(stack: Stack, job_id: UUID) -> None:
    for first in range(0, AT_ONCE + 1000, 3000):
        points = [(float((first + n) % 3600), 1.0) for n in range(3000)]
        stack.run(partial(measured, points=points))
    before = stack.run(lambda uow: rows(uow, MetricPoint))
    assert stack.run(lambda uow: condense(uow, MINUTES_ALONE))
    assert stack.run(lambda uow: rows(uow, MetricPoint)) == before - AT_ONCE
    assert not stack.run(lambda uow: condense(uow, MINUTES_ALONE))


def test_sums_that_no_number_can_tell_are_the_largest_there_is(stack: Stack, job_id: UUID) -> None:
    stack.run(lambda uow: measured(uow, [(1.0, 1e308), (2.0, 1e308), (3.0, 1e308), (3.5, 1.0)]))
    for keeping in (NOT_YET, MINUTES_ALONE):
        stack.run(partial(condense_all, keeping=keeping))
        assert stack.run(lambda uow: asked(uow, job_id, 60, "sum"))[0][1] == 1.7976931348623157e308
        assert stack.run(lambda uow: asked(uow, job_id, 60, "mean"))[0][1] == pytest.approx(7.5e307)
