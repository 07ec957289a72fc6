"""Fields that refuse what would only be found out later."""

import math
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from marshmallow import Schema, ValidationError, fields

from app.http.schema import Amount, Integer, QueryInteger, Strict, Text, to_invalid
from trellis.units import LARGEST

AMOUNTS = [Amount("bytes"), Amount("milli"), Amount("seconds")]


@given(st.integers(0, LARGEST))
def test_whole_bytes_and_seconds_are_taken_as_they_are(amount: int) -> None:
    assert [Amount("bytes").deserialize(amount), Amount("seconds").deserialize(amount)] == [amount, amount]


@given(st.integers(0, 10**9))
def test_an_amount_with_a_unit_is_that_many_of_it(amount: int) -> None:
    assert Amount("bytes").deserialize(f"{amount}KiB") == amount * 1024
    assert Amount("milli").deserialize(f"{amount}m") == amount
    assert Amount("seconds").deserialize(f"{amount}m") == amount * 60


@given(st.one_of(st.integers(max_value=-1), st.integers(LARGEST + 1), st.booleans(), st.none().map(lambda _: [])))
def test_no_amount_is_negative_or_huge_or_a_boolean_or_a_list(amount: Any) -> None:
    for field in AMOUNTS:
        with pytest.raises(ValidationError):
            field.deserialize(amount)


@given(st.floats())
def test_a_fraction_is_an_amount_of_cpus_alone_and_then_a_finite_one(amount: float) -> None:
    for field in (Amount("bytes"), Amount("seconds")):
        with pytest.raises(ValidationError):
            field.deserialize(amount)
    if not (math.isfinite(amount) and amount >= 0):
        with pytest.raises(ValidationError):
            Amount("milli").deserialize(amount)


@given(st.text(max_size=50))
def test_text_is_an_amount_in_bounds_or_a_fault_and_never_a_crash(text: str) -> None:
    for field in AMOUNTS:
        with suppress(ValidationError):
            assert 0 <= field.deserialize(text) <= LARGEST


@pytest.mark.parametrize(
    "value", [True, False, "1", 1.0, 1.5, None, [], {}, 0, 11, float("nan"), float("inf"), 10**400]
)
def test_a_whole_number_within_bounds_is_nothing_else(value: Any) -> None:
    with pytest.raises(ValidationError):
        Integer(least=1, most=10).deserialize(value)


@pytest.mark.parametrize("value", ["", "x", "1.0", "٣", "+1", " 1", "1" * 21, "0", "11", "--1", "1_0"])
def test_a_parameter_of_the_address_is_digits_within_bounds(value: str) -> None:
    with pytest.raises(ValidationError):
        QueryInteger(least=1, most=10).deserialize(value)


@pytest.mark.parametrize("value", ["a\0b", "a\x1bb", "a\nb", "\ud800", 1, True, "x" * 201])
def test_text_holds_no_control_characters(value: Any) -> None:
    with pytest.raises(ValidationError):
        Text().deserialize(value)


def test_text_of_lines_may_hold_newlines() -> None:
    assert Text(lines=True).deserialize("a\n\tb") == "a\n\tb"


class Inner(Strict):
    """Nested."""

    number = Integer(least=1, most=2, required=True)


class Outer(Strict):
    """Nests."""

    inner = fields.Nested(Inner)
    many = fields.List(fields.Nested(Inner))
    labels = fields.Dict(fields.String(), Text(longest=1))


def test_every_fault_is_named_by_its_json_pointer() -> None:
    body = {"inner": {"number": 3}, "many": [{"number": 1}, {"x": 1}], "labels": {"a/b~c": "xx"}, "unknown": 1}
    assert sorted(field.pointer for field in faults_of(Outer(), body).fields) == [
        "/inner/number", "/labels/a~1b~0c", "/many/1/number", "/many/1/x", "/unknown",
    ]  # fmt: skip


def test_a_fault_says_what_to_do() -> None:
    assert [field.message for field in faults_of(Inner(), {}).fields] == ["is missing"]


def faults_of(schema: Schema, body: Any) -> Any:
    """The faults of a body."""
    with pytest.raises(ValidationError) as refused:
        schema.load(body)
    return to_invalid(refused.value)
