"""Which bodies are JSON, and which are only taken for it by generous readers."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.http.strict_json import DEEPEST, loads
from trellis.errors import Invalid

LEAVES = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=10)
VALUES = st.recursive(
    LEAVES | TEXT, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=20
)


@given(VALUES)
def test_what_json_can_say_is_read_as_it_was_written(value: object) -> None:
    assert loads(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "line 1, column 1"),
        (b'{"a": 1,}', "column"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "-Infinity"),
        (b'{"a": 1e999}', "too large"),
        (b'{"a": 1, "a": 2}', "'a' stands twice"),
        (b'{"b": {"a": 1, "a": 2}}', "'a' stands twice"),
        (b"\xff\xfe{}", "not UTF-8: byte 0"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b"[" * 100_000, "nested deeper"),
        (b"[" * (DEEPEST + 1) + b"]" * (DEEPEST + 1), "nested deeper"),
        (b'{"a":' * (DEEPEST + 1) + b"1" + b"}" * (DEEPEST + 1), "nested deeper"),
        (b"1" * 5000, "too long"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"\\ud800": 1}', "surrogate"),
        (b'["\\u0000"]', "NUL"),
    ],
)
def test_a_body_that_is_not_json_is_refused_with_the_place(body: bytes, says: str) -> None:
    with pytest.raises(Invalid) as refused:
        loads(body)
    assert says in refused.value.detail
    assert refused.value.fields[0].pointer == ""


def test_the_deepest_body_that_is_allowed_is_read() -> None:
    assert loads(b"[" * DEEPEST + b"]" * DEEPEST)
