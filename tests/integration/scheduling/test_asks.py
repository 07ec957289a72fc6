"""What a job asks beyond amounts, submitted over HTTP, decides where real rows say that it runs."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, text

from app.jobs.dependencies import release_dependents_of
from app.jobs.models import Job, Replica
from app.resources.models import Allocation, AllocationSlot, Node
from app.scheduling.mirror import Mirror
from app.scheduling.popular import popular_shapes
from tests.support.fake_node import FakeNode, a_description
from tests.support.stack import Caller, Stack
from tests.support.world import World
from trellis import wire
from trellis.vocabulary import Isolation

SMALL = {"cpus": 1, "memory": "1GiB"}


@pytest.fixture
def member(stack: Stack, world: World) -> Caller:
    return stack.client(world.member)


@pytest.fixture
def admin(stack: Stack, world: World) -> Caller:
    return stack.client(world.admin)


def submit(caller: Caller, **body: Any) -> str:
    roles = "roles" in body
    answer = caller.post("/jobs", {"command": ["true"], **({} if roles else {"resources": SMALL}), **body})
    assert answer.status == 201, answer.text
    return str(answer.json["id"])


def join(stack: Stack, world: World, name: str, cpus: int = 8, gpus: int = 0, **values: Any) -> FakeNode:
    return FakeNode.join(stack, world, a_description(name, cpus=cpus, gpus=gpus, **values))


def say(admin: Caller, node: FakeNode, **traits: Any) -> None:
    answer = admin.patch(f"/resources/nodes/{node.welcome.node_id}", traits)
    assert answer.status == 200, answer.text


def places(stack: Stack, job_id: str) -> list[str]:
    live = select(Replica.node_name).where(Replica.job_id == UUID(job_id), Replica.ended_at.is_(None))
    return stack.run(lambda uow: sorted(uow.session.execute(live).scalars()))


def placed(stack: Stack, caller: Caller, **body: Any) -> list[str]:
    job_id = submit(caller, **body)
    stack.run(stack.cycle)
    return places(stack, job_id)


def specs(stack: Stack, node: FakeNode) -> list[wire.ReplicaSpec]:
    live = (
        select(Replica.id, Replica.fence).where(Replica.node_id == UUID(node.welcome.node_id)).order_by(Replica.index)
    )
    rows = stack.run(lambda uow: [(str(row.id), row.fence) for row in uow.session.execute(live)])
    return node.specs(*rows)


def why(caller: Caller, job_id: str) -> str:
    return str(caller.get(f"/jobs/{job_id}").json["why"])


def test_one_of_several_models_of_gpu_will_do_and_no_other(stack: Stack, world: World, member: Caller) -> None:
    for number, model in enumerate(["L4", "A100"]):
        devices = (wire.GpuDescription(0, f"GPU-{number}", f"NVIDIA {model}", 1 << 30),)
        join(stack, world, model.lower(), devices=devices)
    wish = {**SMALL, "gpus": 1, "gpu_type": ["h100", "a100"]}
    assert placed(stack, member, resources=wish) == ["a100"]
    waiting = submit(member, resources=wish)
    stack.run(stack.cycle)
    assert places(stack, waiting) == []
    assert member.get(f"/jobs/{waiting}").json["resources"]["gpu_types"] == ["A100", "H100"]


@pytest.mark.parametrize(
    "said",
    [
        {"labels": {"disk": "fast"}},
        {"selector": [{"label": "disk", "values": ["fast", "faster"]}]},
        {"selector": [{"label": "disk", "operator": "not_in", "values": ["slow"]}]},
        {
            "selector": [
                {"label": "disk", "operator": "exists"},
                {"label": "cores", "operator": "above", "values": ["8"]},
            ]
        },
        {"selector": [{"label": "cores", "operator": "above", "values": ["31"]}]},
        {"selector": [{"label": "zone", "values": ["north"]}]},
        {"labels": {"zone": "north"}},
        {"labels": {"name": "b"}},
        {"prefers": [{"label": "disk", "values": ["fast"], "weight": 50}]},
        {"pool": "special"},
        {"spot": False},
        {"min_isolation": "landlock"},
        {"data": ["imagenet"]},
        {"strategy": "cheap"},
    ],
    ids=str,
)
def test_a_job_runs_where_its_constraints_send_it(
    stack: Stack, world: World, member: Caller, admin: Caller, said: Mapping[str, Any]
) -> None:
    pools = ({"name": "all"}, {"name": "common", "parent": "all"}, {"name": "special", "parent": "all"})
    assert {admin.post("/resources/pools", pool).status for pool in pools} == {201}
    assert admin.patch(f"/queues/{world.shared_queue.id}", {"pool": "all"}).status == 200
    one = join(stack, world, "a")
    other = join(stack, world, "b", isolation=Isolation.LANDLOCK)
    say(
        admin, one, labels={"disk": "slow", "cores": "8"}, domains={"zone": "south"}, spot=True, usd_per_hour=3,
        pool="common",
    )  # fmt: skip
    say(
        admin, other, labels={"disk": "fast", "cores": "32"}, domains={"zone": "north"}, pool="special",
        caches=["imagenet"], usd_per_hour=1,
    )  # fmt: skip
    assert placed(stack, member, constraints=said) == ["b"]


def test_a_tainted_node_takes_those_who_tolerate_it(stack: Stack, world: World, member: Caller, admin: Caller) -> None:
    node = join(stack, world, "a")
    say(admin, node, taints=[{"key": "reserved", "value": "vision"}])
    kept_off = submit(member)
    wrong = submit(member, constraints={"tolerates": ["reserved=speech"]})
    assert placed(stack, member, constraints={"tolerates": ["reserved"]}) == ["a"]
    assert placed(stack, member, constraints={"tolerates": ["reserved=vision"]}) == ["a"]
    assert (places(stack, kept_off), places(stack, wrong)) == ([], [])
    assert "reserved" in why(member, kept_off)


@pytest.mark.parametrize("kept", [True, False])
def test_replicas_apart_are_on_nodes_of_their_own_and_near_ones_together(
    stack: Stack, world: World, member: Caller, kept: bool
) -> None:
    for name in "abc":
        join(stack, world, name)
    web = {"placement/app": "web"}
    apart = placed(stack, member, replicas=2, labels=web, constraints={"anti_affinity": [{"labels": web}]})
    assert len(set(apart)) == 2
    if not kept:
        stack.mirror = Mirror()  # as after a restart
    third = placed(stack, member, labels=web, constraints={"anti_affinity": [{"labels": web}]})
    assert sorted({*apart, *third}) == ["a", "b", "c"]
    near = placed(stack, member, constraints={"affinity": [{"labels": web}], "labels": {"name": third[0]}})
    assert near == third
    nobody = submit(member, constraints={"affinity": [{"labels": {"placement/app": "db"}}]})
    stack.run(stack.cycle)
    assert places(stack, nobody) == []


@pytest.mark.parametrize("kept", [True, False])
def test_who_is_exclusive_is_alone_for_as_long_as_it_runs(
    stack: Stack, world: World, member: Caller, kept: bool
) -> None:
    node = join(stack, world, "a")
    assert placed(stack, member, replicas=2, constraints={"exclusive": True}) == ["a", "a"]
    if not kept:
        stack.mirror = Mirror()
    other = submit(member)
    stack.run(stack.cycle)
    assert places(stack, other) == []
    assert stack.client(world.project_admin).post("/resources/allocate", {}).status == 409
    for spec in specs(stack, node):
        node.succeed(spec)
    assert stack.run(lambda uow: uow.session.execute(select(Node.exclusive_for)).scalar_one()) is None
    stack.run(stack.cycle)
    assert places(stack, other) == ["a"]
    alone = submit(member, constraints={"exclusive": True})
    stack.run(stack.cycle)
    assert places(stack, alone) == []


def test_all_replicas_are_in_one_domain_where_that_is_required(
    stack: Stack, world: World, member: Caller, admin: Caller
) -> None:
    for name, rack in (("a", "r1"), ("b", "r2"), ("c", "r2")):
        say(admin, join(stack, world, name, cpus=2), domains={"rack": rack})
    pair = {"replicas": 2, "resources": {"cpus": 2, "memory": "1GiB"}}
    assert placed(stack, member, **pair, constraints={"topology": {"level": "rack", "required": True}}) == ["b", "c"]
    again = submit(member, **pair, constraints={"topology": {"level": "rack", "required": True}})
    stack.run(stack.cycle)
    assert places(stack, again) == []


def test_a_gang_of_two_roles_starts_whole_each_with_its_own_command_and_amounts(
    stack: Stack, world: World, member: Caller
) -> None:
    nodes = [join(stack, world, "big", cpus=8, gpus=2), join(stack, world, "small", cpus=2)]
    roles = [
        {"name": "driver", "resources": {"cpus": 2, "memory": "2GiB"}, "command": ["drive"]},
        {"name": "worker", "replicas": 2, "resources": {"cpus": 4, "memory": "8GiB", "gpus": 1}},
    ]
    job = submit(member, roles=roles, command=["work"])
    stack.run(stack.cycle)
    assert places(stack, job) == ["big", "big", "small"]
    seen = {spec.index: spec for node in nodes for spec in specs(stack, node)}
    said = [
        (s.role, s.count, s.command, s.cpu_milli, s.memory_bytes >> 30, len(s.gpus)) for _, s in sorted(seen.items())
    ]
    worker = ("worker", 3, ("work",), 4000, 8, 1)
    assert said == [("driver", 3, ("drive",), 2000, 2, 0), worker, worker]
    held = select(Allocation.cpu_milli).order_by(Allocation.cpu_milli)
    assert stack.run(lambda uow: list(uow.session.execute(held).scalars())) == [2000, 4000, 4000]
    shown = member.get(f"/jobs/{job}?verbose=true").json
    assert [(role["name"], role["min_replicas"]) for role in shown["roles"]] == [("driver", 1), ("worker", 2)]
    assert {one["role"] for one in shown["attempts"][0]["replicas"]} == {"driver", "worker"}
    kept, fresh = stack.mirror, Mirror()
    stack.run(lambda uow: _same_books(uow, kept, fresh))


def _same_books(uow: Any, kept: Mirror, fresh: Mirror) -> None:
    with kept.lent(uow) as one, fresh.lent(uow) as other:
        assert {name: grants for _, name, grants in one.releases()} == {
            name: grants for _, name, grants in other.releases()
        }


def test_a_gang_of_roles_that_does_not_fit_whole_does_not_start(stack: Stack, world: World, member: Caller) -> None:
    join(stack, world, "a", cpus=4)
    job = submit(member, roles=[{"name": "one", "resources": {"cpus": 3}}, {"name": "two", "resources": {"cpus": 2}}])
    stack.run(stack.cycle)
    assert places(stack, job) == []


def test_a_job_from_two_to_four_replicas_starts_with_as_many_as_there_is_room_for(
    stack: Stack, world: World, member: Caller
) -> None:
    node = join(stack, world, "a", cpus=3)
    job = submit(member, min_replicas=2, max_replicas=4)
    stack.run(stack.cycle)
    assert places(stack, job) == ["a"] * 3
    assert {spec.count for spec in specs(stack, node)} == {3}
    shown = member.get(f"/jobs/{job}").json
    assert (shown["replicas"], shown["max_replicas"]) == (2, 4)
    alone = submit(member, min_replicas=2, max_replicas=4)
    stack.run(stack.cycle)
    assert places(stack, alone) == []


def partitioned(name: str, devices: int = 1) -> tuple[wire.GpuDescription, ...]:
    return tuple(
        wire.GpuDescription(i, f"GPU-{name}-{i}", "NVIDIA H100 80GB HBM3", 80 << 30, partitioned=True)
        for i in range(devices)
    )


@pytest.mark.parametrize("kept", [True, False])
def test_slices_of_a_partitioned_device_are_given_once_and_given_back(
    stack: Stack, world: World, member: Caller, kept: bool
) -> None:
    node = FakeNode.join(stack, world, a_description("a", devices=partitioned("a")))
    wish = {**SMALL, "mig_profile": "3g.40gb"}
    jobs = []
    for _ in range(3):
        jobs.append(submit(member, resources=wish))
        stack.run(stack.cycle)
        if not kept:
            stack.mirror = Mirror()
    assert [places(stack, job) for job in jobs] == [["a"], ["a"], []]
    given = [piece for spec in specs(stack, node) for piece in spec.slices]
    assert sorted(piece.start for piece in given) == [0, 4]
    assert {(piece.uuid, piece.profile) for piece in given} == {("GPU-a-0", "3g.40gb")}
    (device,) = member.get("/resources/nodes").json["items"][0]["gpus"]
    assert (device["partitioned"], device["slots_used"]) == (True, list(range(8)))
    whole = submit(member, resources={**SMALL, "gpus": 1})
    stack.run(stack.cycle)
    assert places(stack, whole) == []
    node.succeed(specs(stack, node)[0])
    live = select(AllocationSlot).where(AllocationSlot.live)
    assert len(stack.run(lambda uow: uow.session.execute(live).all())) == 4
    stack.run(stack.cycle)
    assert places(stack, jobs[2]) == ["a"]


def test_of_a_device_that_is_cut_already_only_those_slices_are_given(
    stack: Stack, world: World, member: Caller
) -> None:
    cut = (wire.SliceDescription("1g.10gb", 5), wire.SliceDescription("3g.40gb", 0))
    (device,) = partitioned("a")
    devices = (replace(device, slices=cut),)
    node = FakeNode.join(stack, world, a_description("a", devices=devices))
    small, second, other = (
        submit(member, resources={**SMALL, "mig_profile": profile}) for profile in ("1g.10gb", "1g.10gb", "2g.20gb")
    )
    stack.run(stack.cycle)
    assert sorted(map(len, (places(stack, small), places(stack, second)))) == [0, 1]
    assert places(stack, other) == []
    ((piece,),) = (spec.slices for spec in specs(stack, node))
    assert (piece.profile, piece.start) == ("1g.10gb", 5)


def test_a_retried_job_asks_for_the_same(stack: Stack, world: World, member: Caller, admin: Caller) -> None:
    assert admin.post("/resources/pools", {"name": "special"}).status == 201
    body = {
        "roles": [
            {"name": "a", "min_replicas": 1, "max_replicas": 3, "resources": {"gpus": 1, "gpu_type": ["A100", "H100"]}},
            {"name": "b", "resources": {"mig_profile": "1g.10gb"}, "command": ["other"]},
        ],
        "constraints": {
            "pool": "special", "labels": {"zone": "north"}, "tolerates": ["x"], "exclusive": True, "strategy": "pack",
            "topology": {"level": "rack"}, "anti_affinity": [{"labels": {"placement/a": "b"}, "level": "rack"}],
            "prefers": [{"label": "disk", "operator": "exists", "weight": 3}],
        },
        "preemptible": False, "checkpointable": True, "deadline": "2099-01-01T00:00:00Z",
    }  # fmt: skip
    first = submit(member, **body)
    member.patch(f"/jobs/{first}/status", {"action": "cancel"})
    again = member.patch(f"/jobs/{first}/status", {"action": "retry"}).json
    shown = member.get(f"/jobs/{first}").json
    for name in ("roles", "constraints", "preemptible", "checkpointable", "max_replicas", "resources", "deadline"):
        assert again[name] == shown[name]
    assert shown["constraints"]["pool"] == "special"

    def rows(uow: Any) -> list[Job]:
        return list(uow.session.execute(select(Job)).scalars())

    one, two = stack.run(rows)
    assert (one.asks, one.class_key, one.spec) == (two.asks, two.class_key, two.spec)


def test_who_waits_for_others_lends_them_its_rank(stack: Stack, world: World, member: Caller) -> None:
    join(stack, world, "a", cpus=1)
    stack.run(stack.cycle)
    earlier, needed = submit(member, priority=1), submit(member)
    submit(member, priority=9, depends_on=[{"job": needed}])
    stack.run(stack.cycle)
    assert (places(stack, needed), places(stack, earlier)) == (["a"], [])


def test_what_was_lent_is_over_when_the_lender_is_gone(stack: Stack, world: World, member: Caller) -> None:
    node = join(stack, world, "a", cpus=1)
    submit(member, priority=10)
    stack.run(stack.cycle)
    other, low = submit(member, priority=1), submit(member)
    urgent = submit(member, priority=9, depends_on=[{"job": low}])
    stack.run(stack.cycle)
    assert stack.mirror._lenders == {low, urgent}
    member.patch(f"/jobs/{urgent}/status", {"action": "cancel"})
    node.succeed(specs(stack, node)[0])
    stack.run(stack.cycle)
    assert (places(stack, other), places(stack, low)) == (["a"], [])
    assert not stack.mirror._lenders


def test_the_lender_waits_like_anybody_once_its_turn_has_come(stack: Stack, world: World, member: Caller) -> None:
    node = join(stack, world, "a", cpus=1)
    stack.run(stack.cycle)
    needed = submit(member)
    waiting = submit(member, depends_on=[{"job": needed}])
    stack.run(stack.cycle)
    node.succeed(specs(stack, node)[0])
    stack.run(lambda uow: release_dependents_of(uow, [UUID(needed)]))
    stack.run(stack.cycle)
    assert places(stack, waiting) == ["a"]


def test_jobs_are_ranked_by_their_deadlines_where_the_policy_says_so(
    stack: Stack, world: World, member: Caller, admin: Caller
) -> None:
    assert admin.put("/scheduling/policy", {"primary_policy": "deadline"}).status == 200
    later = submit(member)
    came_at = datetime.fromisoformat(member.get(f"/jobs/{later}").json["submitted_at"])
    sooner = submit(member, deadline=(came_at + timedelta(hours=1)).isoformat())
    join(stack, world, "a", cpus=1)
    stack.run(stack.cycle)
    assert (places(stack, sooner), places(stack, later)) == (["a"], [])


@pytest.mark.parametrize("used", [True, False])
def test_who_ran_short_before_is_expected_to_again_where_predictions_are_used(
    stack: Stack, world: World, member: Caller, admin: Caller, used: bool
) -> None:
    policy = {"backfill": {"use_predictions": used, "order": "shortest"}}
    assert admin.put("/scheduling/policy", policy).status == 200
    node = join(stack, world, "a")
    first = submit(member)
    stack.run(stack.cycle)
    node.succeed(specs(stack, node)[0])
    ran = text("UPDATE jobs SET started_at = ended_at - interval '90 seconds' WHERE id = :id")
    stack.run(lambda uow: uow.session.execute(ran, {"id": first}))
    job = submit(member, time_limit="1h", resources={"cpus": 64})
    stack.run(stack.cycle)

    def expected(uow: Any) -> float | None:
        with stack.mirror.lent(uow) as planner:
            waits = planner.find_pending(job)
            assert waits is not None
            return waits.expected_s

    assert stack.run(expected) == (90 if used else None)


def test_what_was_asked_for_most_lately_is_what_room_ought_to_be_good_for(
    stack: Stack, world: World, member: Caller
) -> None:
    for _ in range(3):
        submit(member, resources={**SMALL, "gpus": 2, "gpu_type": "A100"})
    submit(member, roles=[{"name": "a", "replicas": 2, "resources": {**SMALL, "gpus": 1}}, {"name": "b"}])
    submit(member)
    shapes = stack.run(popular_shapes)
    assert [(shape.request.gpu_milli, shape.request.gpu_models, shape.weight) for shape in shapes] == [
        (2000, ("A100",), 3.0), (1000, (), 2.0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "could"),
    [
        ({"resources": {"cpus": 8}}, True),
        ({"resources": {"cpus": 9}}, False),
        ({"resources": {"cpus": 8}, "replicas": 2}, True),
        ({"resources": {"cpus": 8}, "replicas": 3}, False),
        (
            {"resources": {"cpus": 1}, "replicas": 2, "constraints": {"topology": {"level": "rack", "required": True}}},
            True,
        ),
        (
            {"resources": {"cpus": 8}, "replicas": 2, "constraints": {"topology": {"level": "rack", "required": True}}},
            False,
        ),
        ({"constraints": {"labels": {"zone": "nowhere"}}}, False),
        ({"constraints": {"affinity": [{"labels": {"placement/app": "db"}}]}}, True),
        ({"resources": {"mig_profile": "1g.10gb"}}, False),
    ],
    ids=str,
)
def test_a_dry_run_says_whether_it_could_ever_start(
    stack: Stack, world: World, member: Caller, admin: Caller, body: Mapping[str, Any], could: bool
) -> None:
    for name in ("r1", "r2"):
        say(admin, join(stack, world, name), domains={"rack": name})
    submit(member, replicas=2, resources={"cpus": 8, "memory": "1GiB"})
    stack.run(stack.cycle)  # what runs there now is no matter
    before = stack.dump()
    answer = member.post("/jobs", {"command": ["true"], "dry_run": True, **body})
    assert (answer.status, answer.json["could_start"], bool(answer.json["why"])) == (200, could, not could)
    assert stack.dump() == before


def test_a_device_that_is_partitioned_and_cut_into_nothing_is_given_to_nobody(
    stack: Stack, world: World, member: Caller
) -> None:
    (device,) = partitioned("a")
    FakeNode.join(stack, world, a_description("a", devices=(replace(device, slices=()),)))
    for wish in ({"mig_profile": "1g.10gb"}, {"gpus": 1}):
        job = submit(member, resources={**SMALL, **wish})
        stack.run(stack.cycle)
        assert places(stack, job) == []


def test_claims_outside_the_queues_tolerate_taints_in_the_same_words(stack: Stack, world: World, admin: Caller) -> None:
    say(admin, join(stack, world, "a"), taints=[{"key": "reserved", "value": "vision"}])
    chief = stack.client(world.project_admin)
    said = [
        chief.post("/resources/allocate", {"tolerates": [word]}).status
        for word in ("reserved=speech", "reserved=vision")
    ]
    assert said == [409, 201]
