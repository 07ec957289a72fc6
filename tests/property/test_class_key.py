"""Two jobs have one class key if the scheduler sees no difference between them, and only then."""

from types import SimpleNamespace
from typing import Any
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from app.jobs.asks import Asks, asks_of, class_key, count
from app.jobs.schemas import JobSubmitSchema
from app.jobs.spec import JobSpec
from app.scheduling.classes import job_class_of

PROJECTS = [UUID(int=number) for number in range(2)]
few = st.sampled_from
GPUS: Any = few(
    [{}, {"gpus": 1}, {"gpus": 1, "gpu_type": "A100"}, {"gpus": 1, "gpu_type": ["A100"]},
     {"gpus": 1, "gpu_type": ["H100", "A100"]}, {"gpus": 1, "gpu_type": ["A100", "H100"]}, {"mig_profile": "1g.10gb"}]
)  # fmt: skip
RESOURCES = st.builds(lambda cpus, gpus: {"cpus": cpus, **gpus}, few([1, "1000m", 2]), GPUS)
COUNTS: Any = few([{}, {"replicas": 1}, {"replicas": 2}, {"max_replicas": 2}, {"min_replicas": 2, "max_replicas": 2}])
ROLES = st.lists(
    st.builds(lambda each, many: {"resources": each, **many}, RESOURCES, COUNTS), min_size=1, max_size=2
).map(lambda roles: [{"name": f"r{number}", **role} for number, role in enumerate(roles)])
TERMS = st.lists(
    few([
        {"label": "zone", "values": ["a"]}, {"label": "zone", "values": ["a", "b"]}, {"label": "zone", "values": ["b", "a"]},
        {"label": "zone", "operator": "exists"}, {"label": "zone", "operator": "not_in", "values": ["a"]},
    ]),
    max_size=2,
)  # fmt: skip
NEAR = st.lists(few([{"labels": {"placement/a": "1"}}, {"labels": {"placement/a": "1"}, "level": "rack"}]), max_size=2)
CONSTRAINTS = st.fixed_dictionaries(
    {},
    optional={
        "selector": TERMS, "labels": few([{}, {"zone": "a"}]), "tolerates": st.lists(few(["x", "x=1"]), max_size=2),
        "exclusive": st.booleans(), "affinity": NEAR, "anti_affinity": NEAR, "spot": st.booleans(),
        "strategy": few(["fit", "pack"]), "topology": few([{"level": "rack"}, {"level": "rack", "required": True}]),
        "min_isolation": few(["basic", "landlock"]), "data": st.lists(few(["d", "e"]), max_size=2),
        "prefers": st.lists(few([{"label": "a", "operator": "exists"}, {"label": "a", "operator": "exists", "weight": 2}]), max_size=2),
    },
)  # fmt: skip
OTHERS = st.fixed_dictionaries(
    {},
    optional={
        "constraints": CONSTRAINTS, "preemptible": st.booleans(), "checkpointable": st.booleans(),
        "labels": few([{"team": "x"}, {"placement/a": "1"}, {"placement/a": "2", "team": "y"}]), "priority": few([0, 1]),
        "time_limit": few([60, "1m"]), "name": few(["one", "other"]), "deadline": few(["2099-01-01T00:00:00Z"]),
    },
)  # fmt: skip
BODIES = st.builds(
    lambda shape, others: {"command": ["true"], **shape, **others},
    st.one_of(
        st.builds(lambda each, many: {"resources": each, **many}, RESOURCES, COUNTS),
        ROLES.map(lambda roles: {"roles": roles}),
    ),
    OTHERS,
)


def row_of(body: dict[str, Any], project_id: UUID) -> Any:
    spec: JobSpec = JobSubmitSchema().load(body)
    asks, each = asks_of(spec, None).stored(), spec.largest()
    place = (project_id, UUID(int=9), None)
    return SimpleNamespace(
        class_key=class_key(spec, place, asks), asks=asks, project_id=project_id, queue_id=UUID(int=9), actor_id=None,
        priority=spec.priority, time_limit_s=spec.time_limit_s, replicas=count(spec), cpu_milli=each.cpu_milli,
        memory_bytes=each.memory_bytes, gpu_milli=each.gpu_milli, gpu_model=each.gpu_type,
    )  # fmt: skip


@given(BODIES, BODIES, few(PROJECTS))
def test_keys_are_equal_where_classes_are_and_nowhere_else(
    one: dict[str, Any], other: dict[str, Any], project: UUID
) -> None:
    first, second = row_of(one, PROJECTS[0]), row_of(other, project)
    assert (first.class_key == second.class_key) == (job_class_of(first) == job_class_of(second))


@given(BODIES)
def test_what_is_stored_of_wishes_is_what_is_read(body: dict[str, Any]) -> None:
    spec: JobSpec = JobSubmitSchema().load(body)
    asks = asks_of(spec, None)
    assert Asks.read(asks.stored()) == asks
