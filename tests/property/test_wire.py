import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trellis.wire import Heartbeat, NodeDescription, Orders, Receipt, ReplicaSpec, Shipment, Welcome, pack, unpack

KINDS = [Heartbeat, NodeDescription, Orders, Receipt, ReplicaSpec, Shipment, Welcome]
# What JSON can carry: no lone surrogates, no NaN (which equals nothing, itself least of all).
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
st.register_type_strategy(str, TEXT)
st.register_type_strategy(float, st.floats(allow_nan=False, allow_infinity=False))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_every_value_comes_back_from_json_as_it_was(kind: type, data: st.DataObject) -> None:
    value = data.draw(st.from_type(kind))
    assert unpack(kind, json.loads(json.dumps(pack(value)))) == value


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40)
@given(junk=JSON)
def test_junk_is_a_value_error_and_nothing_else(kind: type, junk: Any) -> None:
    try:
        unpack(kind, junk)
    except ValueError:
        return
    assert isinstance(junk, dict)
