"""One thing said in two ways is one thing to the scheduler; what it must not look at is no part of it."""

from typing import Any
from uuid import UUID

import pytest

from app.jobs.asks import asks_of, class_key
from app.jobs.schemas import JobSubmitSchema
from app.jobs.spec import JobSpec


def key(**body: Any) -> str:
    spec: JobSpec = JobSubmitSchema().load({"command": ["true"], **body})
    return class_key(spec, (UUID(int=1), UUID(int=2), None), asks_of(spec, None).stored())


def term(**said: Any) -> dict[str, Any]:
    return {"constraints": {"selector": [said]}}


EQUAL: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"constraints": {"labels": {"zone": "a"}}}, term(label="zone", values=["a"])),
    (term(label="zone", values=["a", "b"]), term(label="zone", values=["b", "a", "a"])),
    ({"constraints": {"tolerates": ["x", "y"]}}, {"constraints": {"tolerates": ["y", "x", "y"]}}),
    ({"constraints": {}}, {}),
    (
        {"constraints": {"topology": {"level": "rack"}}},
        {"constraints": {"topology": {"level": "rack", "required": False}}},
    ),
    ({"roles": [{"name": "a", "resources": {"cpus": 2}}]}, {"resources": {"cpus": 2}}),
    ({"roles": [{"name": "a"}, {"name": "b"}]}, {"roles": [{"name": "x"}, {"name": "y", "command": ["other"]}]}),
    ({"min_replicas": 2, "max_replicas": 2}, {"replicas": 2}),
    ({"labels": {"trial": "1"}}, {"labels": {"trial": "2"}}),
    ({"deadline": "2099-01-01T00:00:00Z"}, {}),
]
DIFFERENT: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"labels": {"placement/app": "1"}}, {"labels": {"placement/app": "2"}}),
    ({"preemptible": False}, {}),
    ({"checkpointable": True}, {}),
    ({"max_replicas": 2}, {}),
    ({"constraints": {"exclusive": True}}, {}),
    ({"constraints": {"spot": False}}, {}),
    ({"resources": {"mig_profile": "1g.10gb"}}, {"resources": {"mig_profile": "2g.20gb"}}),
    ({"roles": [{"name": "a"}, {"name": "b"}]}, {"replicas": 2}),
    ({"resources": {"gpus": 1, "gpu_type": ["A", "B"]}}, {"resources": {"gpus": 1}}),
]


@pytest.mark.parametrize(("one", "other"), EQUAL, ids=str)
def test_what_is_said_in_another_way_is_the_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert key(**one) == key(**other)


@pytest.mark.parametrize(("one", "other"), DIFFERENT, ids=str)
def test_what_the_scheduler_tells_apart_has_keys_of_its_own(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert key(**one) != key(**other)


def test_a_plain_job_stores_nothing_of_it() -> None:
    spec: JobSpec = JobSubmitSchema().load({"command": ["true"], "resources": {"gpus": 2, "gpu_type": "A100"}})
    assert asks_of(spec, None).stored() is None
    assert not spec.stored().keys() & {"roles", "constraints", "max_replicas", "preemptible", "checkpointable"}
