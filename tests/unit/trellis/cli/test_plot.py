"""Curves of dots."""

import pytest

from trellis.cli.plot import curve


def test_a_rising_line_rises_from_the_lower_left_to_the_upper_right() -> None:
    top, bottom = curve([0, 1, 2, 3, 4, 5, 6, 7], 4, 2)
    assert (top[0], bottom[-1]) == ("\u2800", "\u2800")
    assert bottom[0] != "\u2800"
    assert top[-1] != "\u2800"


def test_what_does_not_change_is_one_level_line() -> None:
    lines = curve([5.0] * 8, 4, 3)
    drawn = [line for line in lines if set(line) != {"\u2800"}]
    assert len(drawn) == 1
    assert len(set(drawn[0])) == 1


def test_a_gap_stays_empty() -> None:
    (line,) = curve([1, 1, None, None, None, None, 1, 1], 4, 1)
    assert (line[1], line[2]) == ("\u2800", "\u2800")
    assert "\u2800" not in (line[0], line[3])


@pytest.mark.parametrize("count", [1, 2, 7, 1000])
def test_any_number_of_values_fills_the_width(count: int) -> None:
    lines = curve(list(range(count)), 10, 2)
    assert [len(line) for line in lines] == [10, 10]
    assert all(any(line[x] != "\u2800" for line in lines) for x in range(10))


def test_a_steep_curve_stays_one_line() -> None:
    lines = curve([0, 100], 1, 4)
    assert all(line != "\u2800" for line in lines)


def test_nothing_can_not_be_drawn() -> None:
    with pytest.raises(ValueError, match="empty"):
        curve([None, None], 3, 1)
