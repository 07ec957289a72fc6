"""The figures by which schedules are compared, worked by hand from their definitions."""

import pytest

from scheduler.simulator.report import bounded_slowdown, jain, percentile, start_checksum
from scheduler.simulator.run import Outcome, Span
from scheduler.simulator.workload import Work
from tests.support.clusters import a_class


def a_span(submitted_at: float, started_at: float, ended_at: float) -> Span:
    """A job's only stay."""
    job_class = a_class()
    work = Work("j", submitted_at, job_class, ended_at - started_at, "u")
    return Span(work, started_at, ended_at, (), Outcome.FINISHED)


@pytest.mark.parametrize(
    ("submitted_at", "started_at", "ended_at", "expected"),
    [
        # (wait + run) / run
        (0, 100, 200, 2.0),
        (50, 50, 200, 1.0),
        (0, 90, 100, 10.0),
        # What runs a second counts as ten: (100 + 1) / 10, not 101.
        (0, 100, 101, 10.1),
        # Never below one: nobody is served faster than at once.
        (0, 0, 2, 1.0),
        (0, 3, 4, 1.0),
        (0, 100, 100, 10.0),
    ],
)
def test_a_bounded_slowdown_is_the_time_from_submission_to_end_for_the_time_it_ran(
    submitted_at: float, started_at: float, ended_at: float, expected: float
) -> None:
    """Feitelson et al., Theory and Practice in Parallel Job Scheduling, JSSPP 1997, with a threshold of ten seconds."""
    assert bounded_slowdown(a_span(submitted_at, started_at, ended_at)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("amounts", "expected"),
    [
        ([5, 5, 5, 5], 1.0),
        # One of n has it all: 1/n. One of four has nothing: three quarters.
        ([8, 0, 0, 0], 0.25),
        ([4, 4, 4, 0], 0.75),
        # 20 dollars among 100 people, each of 20 has one: the example of the report is 0.2.
        ([1] * 20 + [0] * 80, 0.2),
        ([], 1.0),
        ([0, 0], 1.0),
    ],
)
def test_the_index_of_fairness_is_that_of_jain(amounts: list[float], expected: float) -> None:
    """Jain, Chiu and Hawe, A Quantitative Measure of Fairness, DEC TR-301, 1984."""
    assert jain(amounts) == pytest.approx(expected)


def test_a_percentile_is_the_value_that_so_many_lie_before() -> None:
    assert [percentile(range(100), percent) for percent in (0, 50, 99, 100)] == [0, 50, 99, 99]
    assert percentile([7], 99) == 7


def test_the_checksum_tells_schedules_apart_that_differ_in_who_starts_when() -> None:
    assert start_checksum([10, 20, 30]) == 10 + 40 + 90
    assert start_checksum([20, 10, 30]) != start_checksum([10, 20, 30])
    assert start_checksum([2**61]) == 1
