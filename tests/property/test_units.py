from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from trellis import units

AMOUNTS = st.integers(0, units.LARGEST)
PARSERS = (units.parse_bytes, units.parse_milli, units.parse_seconds)


@given(AMOUNTS)
def test_a_plain_number_of_base_units_is_itself(amount: int) -> None:
    assert units.parse_bytes(amount) == units.parse_bytes(str(amount)) == amount
    assert units.parse_milli(f"{amount}m") == amount
    assert units.parse_seconds(f"{amount}s") == amount


@given(st.integers(0, 10**9))
def test_thousandths_survive_being_written_as_a_number(milli: int) -> None:
    assert units.parse_milli(f"{milli // 1000}.{milli % 1000:03d}") == milli
    assert units.parse_milli(milli / 1000) == milli


@given(st.integers(0, 99_999), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_slurms_clock_is_read_in_every_form(days: int, hours: int, minutes: int, seconds: int) -> None:
    whole = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    assert units.parse_seconds(f"{days}-{hours:02d}:{minutes:02d}:{seconds:02d}") == whole
    assert units.parse_seconds(f"{hours}:{minutes:02d}:{seconds:02d}") == whole - days * 86400


@given(st.one_of(st.text(), st.floats(), st.integers(), st.booleans(), st.none()))
def test_whatever_comes_is_an_amount_in_bounds_or_a_value_error(junk: Any) -> None:
    for parse in PARSERS:
        try:
            amount = parse(junk)
        except ValueError:
            continue
        assert type(amount) is int
        assert 0 <= amount <= units.LARGEST


@given(AMOUNTS)
def test_every_amount_can_be_shown(amount: int) -> None:
    assert units.format_bytes(amount)
    assert units.format_seconds(amount)
