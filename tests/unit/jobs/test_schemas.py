"""The shape of a submission: what is one, and which field is named where it is none."""

from typing import Any

import pytest
from marshmallow import ValidationError

from app.http.schema import to_invalid
from app.jobs.schemas import JobSubmitSchema
from app.jobs.spec import JobSpec
from scheduler.placement.mig import profiles
from scheduler.snapshot import Operator, Strategy
from trellis import vocabulary
from trellis.vocabulary import OnResize

ROLE = {"name": "a"}


def loaded(**body: Any) -> JobSpec:
    spec: JobSpec = JobSubmitSchema().load({"command": ["true"], **body})
    return spec


def faults(**body: Any) -> dict[str, str]:
    with pytest.raises(ValidationError) as caught:
        loaded(**body)
    return {field.pointer: field.message for field in to_invalid(caught.value).fields}


def test_one_model_of_gpu_or_several_are_called_by_their_short_names() -> None:
    assert loaded(resources={"gpus": 1, "gpu_type": "nvidia h100"}).resources.gpu_type == "H100"
    several = loaded(resources={"gpus": 1, "gpu_type": ["h100", "A100", "H100"]}).resources
    assert (several.gpu_type, several.gpu_types) == ("", ("A100", "H100"))
    assert loaded(resources={"gpus": 1, "gpu_type": ["H100"]}).resources.gpu_type == "H100"


def test_replicas_are_so_many_or_from_so_many_to_so_many() -> None:
    assert (loaded(replicas=3).replicas, loaded(replicas=3).max_replicas) == (3, None)
    assert (loaded(min_replicas=2, max_replicas=5).replicas, loaded(max_replicas=5).replicas) == (2, 1)
    (role,) = loaded(roles=[{"name": "a", "min_replicas": 2, "max_replicas": 5}]).roles
    assert (role.replicas, role.most) == (2, 5)


def test_a_job_of_roles_needs_no_command_where_each_has_its_own() -> None:
    spec = JobSubmitSchema().load({"roles": [{"name": "a", "command": ["x"]}, {"name": "b", "command": ["y"]}]})
    assert (spec.command, spec.default_name()) == (None, "x")


@pytest.mark.parametrize(
    ("body", "pointer", "message"),
    [
        ({"resources": {"gpus": 1, "gpu_type": []}}, "/resources/gpu_type", "length"),
        ({"resources": {"gpus": 1, "gpu_type": ["A"] * 17}}, "/resources/gpu_type", "length"),
        ({"resources": {"gpus": 1, "gpu_type": 3}}, "/resources/gpu_type", "must be text"),
        ({"resources": {"gpus": 1, "gpu_type": ["A", 3]}}, "/resources/gpu_type/1", "must be text"),
        ({"resources": {"mig_profile": "2g.21gb"}}, "/resources/mig_profile", "there are 1g.10gb"),
        ({"resources": {"mig_profile": "2g.20gb", "gpus": 1}}, "/resources/mig_profile", "give one of them"),
        ({"replicas": 2, "max_replicas": 3}, "/replicas", "min_replicas and max_replicas"),
        ({"min_replicas": 2}, "/max_replicas", "is missing"),
        ({"min_replicas": 3, "max_replicas": 2}, "/max_replicas", "less than min_replicas"),
        ({"roles": []}, "/roles", "length"),
        ({"roles": [ROLE] * 17}, "/roles", "length"),
        ({"roles": [ROLE, ROLE]}, "/roles", "names a twice"),
        ({"roles": [{"name": "A b"}]}, "/roles/0/name", "a-z"),
        ({"roles": [{"name": "a", "command": [" "]}]}, "/roles/0/command/0", "must name a program"),
        ({"roles": [{"name": "a", "replicas": 4000}, {"name": "b", "replicas": 97}]}, "/roles", "more than 4096"),
        ({"roles": [ROLE], "replicas": 2}, "/replicas", "by each of the roles"),
        ({"roles": [ROLE], "resources": {}}, "/resources", "by each of the roles"),
        ({"constraints": {"selector": [{"label": "a"}]}}, "/constraints/selector/0/values", "are missing"),
        (
            {"constraints": {"selector": [{"label": "a", "operator": "exists", "values": ["x"]}]}},
            "/constraints/selector/0/values",
            "asks for the label alone",
        ),
        (
            {"constraints": {"selector": [{"label": "a", "operator": "above", "values": ["x"]}]}},
            "/constraints/selector/0/values",
            "must be one number",
        ),
        (
            {"constraints": {"selector": [{"label": "pool", "values": ["x"]}]}},
            "/constraints/selector/0/label",
            "by `pool`",
        ),
        (
            {"constraints": {"selector": [{"label": "a b", "values": ["x"]}]}},
            "/constraints/selector/0/label",
            "must be",
        ),
        ({"constraints": {"affinity": [{"labels": {"app": "x"}}]}}, "/constraints/affinity/0/labels", "placement/app"),
        ({"constraints": {"affinity": [{"labels": {}}]}}, "/constraints/affinity/0/labels", "length"),
        ({"constraints": {"topology": {}}}, "/constraints/topology/level", "is missing"),
        ({"constraints": {"tolerates": ["=x"]}}, "/constraints/tolerates/0", "key of a taint"),
        ({"constraints": {"strategy": "best"}}, "/constraints/strategy", "must be one of"),
        ({"constraints": {"exclusive": "yes"}}, "/constraints/exclusive", "true or false"),
        ({"constraints": {"data": ["a b"]}}, "/constraints/data/0", "visible characters"),
        ({"constraints": {"node": "a"}}, "/constraints/node", "is not known here"),
        ({"preemptible": 1}, "/preemptible", "true or false"),
        ({"checkpointable": "true"}, "/checkpointable", "true or false"),
        ({"replicas": 2, "on_replica_failure": "shrink"}, "/on_replica_failure", "give min_replicas and max_replicas"),
        ({"on_replica_failure": "ignore"}, "/on_replica_failure", "must be one of"),
        ({"max_replicas": 3, "on_resize": "restart"}, "/on_resize", "give checkpoint"),
        ({"max_replicas": 3, "checkpoint": {"by": "all"}}, "/checkpoint/by", "fixed number"),
        ({"checkpoint": {"by": "rank1"}}, "/checkpoint/by", "must be one of"),
        ({"replicas": 2, "environment": {"RANK": "1"}}, "/environment/RANK", "set by the platform"),
        ({"max_replicas": 2, "environment": {"PET_NNODES": "1"}}, "/environment/PET_NNODES", "several replicas"),
        ({"replicas": 2, "environment": {"MASTER_ADDR": "evil"}}, "/environment/MASTER_ADDR", "set by the platform"),
        ({"replicas": 0}, "/replicas", "greater than or equal to 1"),
        ({"replicas": 4097}, "/replicas", "4096"),
        ({"replicas": "4"}, "/replicas", "whole number"),
        ({"replicas": 2.0}, "/replicas", "whole number"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_by_name_and_with_the_way_out(
    body: dict[str, Any], pointer: str, message: str
) -> None:
    found = faults(**body)
    assert pointer in found, found
    assert message.lower() in found[pointer].lower()


LISTS = {
    "selector": ({"label": "a", "operator": "exists"}, 32),
    "prefers": ({"label": "a", "operator": "exists"}, 32),
    "affinity": ({"labels": {"placement/a": "b"}}, 16),
    "anti_affinity": ({"labels": {"placement/a": "b"}}, 16),
    "tolerates": ("x", 32),
    "data": ("x", 100),
}


@pytest.mark.parametrize("name", LISTS)
def test_no_list_of_constraints_is_endless(name: str) -> None:
    one, most = LISTS[name]
    assert len(getattr(loaded(constraints={name: [one] * most}).constraints, name)) == most
    assert f"/constraints/{name}" in faults(constraints={name: [one] * (most + 1)})


def test_our_words_are_those_of_the_scheduler() -> None:
    assert [str(word) for word in vocabulary.TermOperator] == [str(word) for word in Operator]
    assert [str(word) for word in vocabulary.Strategy] == [str(word) for word in Strategy]
    assert "7g.80gb" in profiles()


def test_who_can_go_on_is_usually_begun_again_when_its_size_changes() -> None:
    assert loaded(max_replicas=3, checkpoint={}).on_resize is OnResize.RESTART
    assert loaded(max_replicas=3, checkpoint={}, on_resize="join").on_resize is OnResize.JOIN
    assert loaded(max_replicas=3).on_resize is OnResize.JOIN
    assert loaded(replicas=3, checkpoint={}).on_resize is OnResize.JOIN


def test_a_job_of_one_replica_may_set_the_variables_of_several() -> None:
    assert loaded(environment={"RANK": "0", "WORLD_SIZE": "1"}).environment == {"RANK": "0", "WORLD_SIZE": "1"}
