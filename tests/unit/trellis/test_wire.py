import json
from dataclasses import replace

import pytest

from trellis.vocabulary import Cause, ExecutorKind, NetworkPolicy, ReplicaState, StopReason
from trellis.wire import GpuGrant, Heartbeat, Orders, ReplicaSpec, Report, Shipment, Stop, pack, unpack

SPEC = ReplicaSpec(
    replica_id="r1", job_id="j1", project_id="p1", job_name="train", attempt=1, fence=7, index=0, count=1,
    command=("python", "train.py"), script=None, script_name="", arguments=(), environment={"A": "1"},
    cpu_milli=1000, memory_bytes=2**30, gpus=(GpuGrant(0, "GPU-0", 500),), time_limit_s=None, grace_s=10,
    executor=ExecutorKind.PROCESS, network=NetworkPolicy.NONE,
)  # fmt: skip
REPORT = Report("r1", 7, 1, ReplicaState.FAILED, "2026-01-31T12:00:00+00:00", Cause.SIGNAL, None, 9, "killed", 1.5)
ORDERS = Orders(30.0, 5.0, (SPEC,), (Stop("r2", 3, StopReason.CANCELLED, 10),))


@pytest.mark.parametrize("value", [SPEC, REPORT, ORDERS, Shipment(reports=(REPORT,)), Heartbeat((), 3, 0, 0)])
def test_what_is_packed_is_json_and_unpacks_to_the_same(value: object) -> None:
    assert unpack(type(value), json.loads(json.dumps(pack(value)))) == value


def test_a_list_inside_another_value_is_packed_too() -> None:
    assert pack(ORDERS)["launch"][0]["gpus"] == [{"index": 0, "uuid": "GPU-0", "milli": 500}]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"fence": "7"}, "/fence must be of type int"),
        ({"fence": True}, "/fence must be of type int"),
        ({"fence": 7.0}, "/fence must be of type int"),
        ({"executor": "rocket"}, "/executor 'rocket' is not a valid"),
        ({"environment": {"A": 1}}, "/environment/A must be of type str"),
        ({"environment": []}, "/environment must be an object"),
        ({"gpus": "GPU-0"}, "/gpus must be a list"),
        ({"gpus": [{"index": 0, "uuid": "u"}]}, "/gpus/0 lacks a field"),
        ({"command": "python"}, "/command must be a list"),
        ({"surprise": 1}, "/surprise is not known here"),
    ],
)
def test_a_value_that_is_not_understood_is_refused_by_its_path(change: dict[str, object], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        unpack(ReplicaSpec, {**pack(SPEC), **change})


def test_a_missing_field_is_refused() -> None:
    packed = pack(SPEC)
    del packed["fence"]
    with pytest.raises(ValueError, match="lacks a field"):
        unpack(ReplicaSpec, packed)


@pytest.mark.parametrize("junk", [None, [], "x", 1])
def test_what_is_no_object_is_refused(junk: object) -> None:
    with pytest.raises(ValueError, match="/ must be an object"):
        unpack(ReplicaSpec, junk)


def test_a_whole_number_will_do_for_a_fractional_one() -> None:
    assert unpack(Report, {**pack(REPORT), "run_s": 2}) == replace(REPORT, run_s=2.0)
