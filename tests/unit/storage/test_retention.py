from datetime import UTC, datetime, timedelta
from uuid import UUID

from app.storage.retention import Held, Keep, decide_removed
from trellis.vocabulary import MetricMode

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def held(number: int, minutes_ago: float, metric: float | None = None, *, damaged: bool = False) -> Held:
    return Held(UUID(int=number), NOON - timedelta(minutes=minutes_ago), metric, damaged)


def kept(these: list[Held], keep: Keep) -> set[int]:
    removed = decide_removed(these, keep, NOON)
    return {one.id.int for one in these} - {one.int for one in removed}


def test_the_newest_stay() -> None:
    these = [held(number, 10 - number) for number in range(6)]
    assert kept(these, Keep(last=2)) == {4, 5}
    assert kept(these, Keep(last=100)) == {0, 1, 2, 3, 4, 5}
    assert kept([], Keep()) == set()


def test_the_first_of_each_hour_stays_for_as_long_as_asked() -> None:
    these = [held(0, 200), held(1, 119), held(2, 90), held(3, 59), held(4, 30), held(5, 1)]
    assert kept(these, Keep(last=1, hours=2)) == {1, 3, 5}
    assert kept(these, Keep(last=1, hours=4)) == {0, 1, 3, 5}


def test_the_best_by_a_metric_stay_and_the_newer_of_equals() -> None:
    these = [held(0, 9, 0.5), held(1, 8, 0.1), held(2, 7, 0.1), held(3, 6), held(4, 5, 0.9)]
    assert kept(these, Keep(last=1, best=1, metric="loss")) == {2, 4}
    assert kept(these, Keep(last=1, best=1, metric="accuracy", mode=MetricMode.MAX)) == {4}
    assert kept(these, Keep(last=1, best=3, metric="loss")) == {0, 1, 2, 4}


def test_a_damaged_one_takes_no_place_of_a_good_one() -> None:
    these = [held(0, 3), held(1, 2), held(2, 1, damaged=True)]
    assert kept(these, Keep(last=2)) == {0, 1}
