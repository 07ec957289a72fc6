"""Fire times: cron in a zone whose clocks change, and intervals that do not care."""

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest

from app.pipelines.models import PipelineSchedule
from app.pipelines.schedules import AT_ONCE, fires
from app.pipelines.timetable import Timetable, cron_fault, zone_fault
from trellis.vocabulary import CatchUp

BERLIN = ZoneInfo("Europe/Berlin")


def local(times: Timetable, after: datetime, count: int) -> list[str]:
    return [at.astimezone(BERLIN).strftime("%d. %H:%M %z") for at in islice(times.after(after), count)]


def test_a_time_that_the_clocks_skip_fires_once_right_after_the_gap() -> None:
    nightly = Timetable("30 2 * * *", "Europe/Berlin")
    assert local(nightly, datetime(2026, 3, 27, 12, tzinfo=UTC), 3) == [
        "28. 02:30 +0100", "29. 03:00 +0200", "30. 02:30 +0200",
    ]  # fmt: skip


def test_a_time_that_the_clocks_show_twice_fires_once() -> None:
    nightly = Timetable("30 2 * * *", "Europe/Berlin")
    assert local(nightly, datetime(2026, 10, 23, 12, tzinfo=UTC), 3) == [
        "24. 02:30 +0200", "25. 02:30 +0200", "26. 02:30 +0100",
    ]  # fmt: skip


def test_an_interval_counts_seconds_through_a_change_of_the_clocks() -> None:
    every = Timetable(every_s=3600, starts_at=datetime(2026, 10, 24, 22, 30, tzinfo=UTC))
    found = list(islice(every.after(datetime(2026, 10, 24, 23, tzinfo=UTC)), 3))
    assert [after - before for before, after in pairwise(found)] == [timedelta(hours=1)] * 2
    assert found[0] == datetime(2026, 10, 24, 23, 30, tzinfo=UTC)


@pytest.mark.parametrize("times", [Timetable("*/7 3 * * 1-5", "Europe/Berlin"), Timetable(every_s=421)])
def test_the_last_time_and_the_next_have_none_between_them(times: Timetable) -> None:
    moment = datetime(2026, 5, 6, 1, 15, 30, tzinfo=UTC)
    last, following = times.last_until(moment), times.next_after(moment)
    assert last is not None
    assert following is not None
    assert last <= moment < following
    assert times.next_after(last) == following


@pytest.mark.parametrize(
    "text", ["", "* * * *", "60 * * * *", "0 0 30 2 *", "* * * * * *", "@daily", "x" * 200, "*/0 * * * *"]
)
def test_what_is_no_cron_expression_is_refused_in_words(text: str) -> None:
    assert cron_fault(text)


@pytest.mark.parametrize("name", ["", "Mars/Olympus", "../../etc/passwd", "/etc/localtime", "Europe/Berlin\0"])
def test_what_is_no_zone_is_refused_in_words(name: str) -> None:
    assert zone_fault(name)


NOW = datetime(2026, 1, 10, 12, 0, 30, tzinfo=UTC)


def a_schedule(catch_up: CatchUp, missed: timedelta) -> PipelineSchedule:
    due = (NOW - missed).replace(second=0)
    return PipelineSchedule(
        cron="* * * * *", zone="UTC", every_s=None, starts_at=due - timedelta(days=400), catch_up=catch_up, fires_at=due
    )


def test_who_is_in_time_fires_once_whatever_the_policy() -> None:
    for policy in CatchUp:
        due, upcoming = fires(a_schedule(policy, timedelta(seconds=30)), NOW)
        assert (due, upcoming) == ([NOW.replace(second=0)], NOW.replace(second=0) + timedelta(minutes=1))


def test_of_missed_times_all_are_caught_up_a_part_at_a_time_or_the_latest_or_none() -> None:
    everything, then = fires(a_schedule(CatchUp.ALL, timedelta(hours=5)), NOW)
    assert len(everything) == AT_ONCE
    assert then == everything[-1] + timedelta(minutes=1)
    assert len(set(everything)) == AT_ONCE
    latest, then = fires(a_schedule(CatchUp.LATEST, timedelta(days=300)), NOW)
    assert (latest, then) == ([NOW.replace(second=0)], NOW.replace(second=0) + timedelta(minutes=1))
    hourly = a_schedule(CatchUp.SKIP, timedelta(days=3))
    hourly.cron = "30 * * * *"
    assert fires(hourly, NOW) == ([], NOW.replace(minute=30, second=0))
