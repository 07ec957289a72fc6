"""DEF-2: a device is never given twice, however many claim it at once and whichever way they come."""

from collections.abc import Callable
from uuid import UUID

import pytest
from sqlalchemy import insert, select, text, update
from sqlalchemy.exc import IntegrityError

from app.core.ids import new_id
from app.core.uow import UnitOfWork
from app.resources.allocations import Grant, grant, lock_node, lock_nodes, release
from app.resources.models import Allocation, AllocationGpu, AllocationSlot, Gpu, Node
from app.scheduling.cycle import Outcome
from tests.support.fake_node import FakeNode, a_description
from tests.support.stack import Stack
from tests.support.world import World
from trellis import wire
from trellis.errors import CapacityTaken


def a_claim(stack: Stack, world: World, milli: int = 1000, cpu_milli: int = 0) -> tuple[Node, Grant]:
    node = stack.run(lambda uow: uow.session.execute(select(Node)).scalar_one())
    gpu = stack.run(lambda uow: uow.session.execute(select(Gpu).order_by(Gpu.index.desc()).limit(1)).scalar_one())
    claim = Grant(new_id(), node.id, world.project.id, new_id(), "claim", cpu_milli, 0, {gpu.id: milli})
    return node, claim


def claiming(node: Node, claim: Grant) -> Callable[[UnitOfWork], str]:
    def act(uow: UnitOfWork) -> str:
        mine = Grant(new_id(), *(getattr(claim, name) for name in Grant.__slots__[1:]))
        grant(uow, [mine], lock_nodes(uow, [node.id]))
        return "granted"

    return act


def test_of_64_claims_on_the_last_gpu_exactly_one_wins(stack: Stack, world: World) -> None:
    FakeNode.join(stack, world, a_description(gpus=1))
    outcomes = stack.race(claiming(*a_claim(stack, world)), times=64)
    names = [outcome if isinstance(outcome, str) else type(outcome).__name__ for outcome in outcomes]
    assert names.count("granted") == 1
    assert set(names) <= {"granted", "CapacityTaken", "Unavailable"}  # who waits too long is asked to come again


def test_shares_of_one_device_never_exceed_it(stack: Stack, world: World) -> None:
    FakeNode.join(stack, world, a_description(gpus=1))
    outcomes = stack.race(claiming(*a_claim(stack, world, milli=300)), times=16)
    assert outcomes.count("granted") == 3
    assert stack.run(lambda uow: uow.session.execute(select(Gpu.milli_used)).scalar_one()) == 900


def test_cpus_are_not_given_twice_either(stack: Stack, world: World) -> None:
    FakeNode.join(stack, world, a_description(cpus=2, gpus=1))
    node, claim = a_claim(stack, world, milli=1, cpu_milli=1500)
    outcomes = stack.race(claiming(node, claim), times=8)
    assert outcomes.count("granted") == 1


def test_the_schema_itself_refuses_a_second_whole_claim(stack: Stack, world: World) -> None:
    FakeNode.join(stack, world, a_description(gpus=1))
    node, claim = a_claim(stack, world)
    (gpu_id,) = claim.gpus

    def twice(uow: UnitOfWork) -> None:
        for _ in range(2):
            row = {"id": new_id(), "node_id": node.id, "project_id": world.project.id, "job_id": new_id(),
                   "holder_name": "x", "cpu_milli": 0, "memory_bytes": 0}  # fmt: skip
            uow.session.execute(insert(Allocation), row)
            held = {"allocation_id": row["id"], "gpu_id": gpu_id, "milli": 1000, "live": True}
            uow.session.execute(insert(AllocationGpu), held)

    with pytest.raises(IntegrityError):
        stack.run(twice)
    with pytest.raises(IntegrityError):
        stack.run(lambda uow: uow.session.execute(update(Gpu).values(milli_used=1001)))
    with pytest.raises(IntegrityError):
        stack.run(lambda uow: uow.session.execute(update(Node).values(cpu_milli_used=-1)))


def test_releasing_twice_gives_back_once(stack: Stack, world: World) -> None:
    FakeNode.join(stack, world, a_description(gpus=1))
    node, claim = a_claim(stack, world, cpu_milli=1000)
    stack.run(lambda uow: grant(uow, [claim], lock_nodes(uow, [node.id])))

    def give_back(uow: UnitOfWork) -> None:
        lock_node(uow, node.id)
        release(uow, [claim.replica_id], node.id)

    stack.race(give_back, times=8)
    used = stack.run(lambda uow: uow.session.execute(select(Node.cpu_milli_used, Gpu.milli_used)).one())
    assert tuple(used) == (0, 0)


def test_two_schedulers_at_once_start_each_job_once(stack: Stack, world: World) -> None:
    FakeNode.join(stack, world, a_description(cpus=64, gpus=8))
    member = stack.client(world.member)
    jobs = [{"command": ["true"], "resources": {"gpus": 1}}] * 12
    assert member.post("/jobs/batch", {"jobs": jobs}).status == 201
    outcomes = stack.race(stack.cycle, times=6)
    assert sum(outcome.started for outcome in outcomes if isinstance(outcome, Outcome)) == 8
    held = stack.run(
        lambda uow: uow.session.execute(
            text("SELECT count(*), count(DISTINCT gpu_id) FROM allocation_gpus WHERE live")
        ).one()
    )
    assert tuple(held) == (8, 8)


def a_partitioned_node(stack: Stack, world: World) -> Node:
    devices = (wire.GpuDescription(0, "GPU-0", "NVIDIA A100-SXM4-80GB", 80 << 30, partitioned=True),)
    FakeNode.join(stack, world, a_description(devices=devices))
    return stack.run(lambda uow: uow.session.execute(select(Node)).scalar_one())


def a_slice(world: World, node: Node, gpu_id: UUID, *slots: int) -> Grant:
    return Grant(new_id(), node.id, world.project.id, new_id(), "slice", 0, 0, {}, slots={gpu_id: slots})


def test_of_16_claims_on_slices_that_overlap_exactly_one_wins(stack: Stack, world: World) -> None:
    node = a_partitioned_node(stack, world)
    gpu_id = stack.run(lambda uow: uow.session.execute(select(Gpu.id)).scalar_one())
    starts = iter(range(16))

    def act(uow: UnitOfWork) -> str:
        first = next(starts) % 2 * 2  # slots 0 to 3, or 2 to 5
        grant(uow, [a_slice(world, node, gpu_id, *range(first, first + 4))], lock_nodes(uow, [node.id]))
        return "granted"

    outcomes = stack.race(act, times=16)
    names = [outcome if isinstance(outcome, str) else type(outcome).__name__ for outcome in outcomes]
    assert names.count("granted") == 1
    assert set(names) <= {"granted", "CapacityTaken", "Unavailable"}
    slots = stack.run(lambda uow: uow.session.execute(select(AllocationSlot.slot)).scalars().all())
    assert len(slots) == 4


def test_the_schema_itself_keeps_slices_apart_and_a_partitioned_device_whole_from_nobody(
    stack: Stack, world: World
) -> None:
    node = a_partitioned_node(stack, world)
    gpu_id = stack.run(lambda uow: uow.session.execute(select(Gpu.id)).scalar_one())

    def twice(uow: UnitOfWork) -> None:
        for _ in range(2):
            row = {"id": new_id(), "node_id": node.id, "project_id": world.project.id, "job_id": new_id(),
                   "holder_name": "x", "cpu_milli": 0, "memory_bytes": 0}  # fmt: skip
            uow.session.execute(insert(Allocation), row)
            uow.session.execute(insert(AllocationSlot), {"allocation_id": row["id"], "gpu_id": gpu_id, "slot": 3})

    with pytest.raises(IntegrityError):
        stack.run(twice)
    with pytest.raises(IntegrityError):
        stack.run(lambda uow: uow.session.execute(update(Gpu).values(milli_used=1000)))


def test_a_slice_that_is_given_back_is_free_for_the_next(stack: Stack, world: World) -> None:
    node = a_partitioned_node(stack, world)
    gpu_id = stack.run(lambda uow: uow.session.execute(select(Gpu.id)).scalar_one())
    first, second = (a_slice(world, node, gpu_id, 0, 1) for _ in range(2))

    def held(claim: Grant) -> Callable[[UnitOfWork], None]:
        return lambda uow: grant(uow, [claim], lock_nodes(uow, [node.id]))

    stack.run(held(first))
    with pytest.raises(CapacityTaken):
        stack.run(held(second))
    stack.run(lambda uow: release(uow, [first.replica_id], node.id))
    stack.run(held(second))


def test_of_many_who_want_a_node_for_themselves_one_gets_it_and_nobody_else_a_part(stack: Stack, world: World) -> None:
    FakeNode.join(stack, world)
    node = stack.run(lambda uow: uow.session.execute(select(Node)).scalar_one())
    turns = iter(range(16))

    def act(uow: UnitOfWork) -> bool:
        alone = next(turns) % 2 == 0
        claim = Grant(new_id(), node.id, world.project.id, new_id(), "x", 100, 0, {}, exclusive=alone)
        grant(uow, [claim], lock_nodes(uow, [node.id]))
        return alone

    granted = [outcome for outcome in stack.race(act, times=16) if isinstance(outcome, bool)]
    assert granted == [True] or not any(granted)


def test_a_node_is_free_for_others_when_the_last_replica_that_had_it_alone_has_left(stack: Stack, world: World) -> None:
    FakeNode.join(stack, world)
    node = stack.run(lambda uow: uow.session.execute(select(Node)).scalar_one())
    job_id = new_id()
    mine = [Grant(new_id(), node.id, world.project.id, job_id, "x", 100, 0, {}, exclusive=True) for _ in range(2)]
    other = Grant(new_id(), node.id, world.project.id, new_id(), "y", 100, 0, {})

    def granting(*claims: Grant) -> Callable[[UnitOfWork], None]:
        return lambda uow: grant(uow, claims, lock_nodes(uow, [node.id]))

    stack.run(granting(*mine))
    stack.run(lambda uow: release(uow, [mine[0].replica_id], node.id))
    with pytest.raises(CapacityTaken):
        stack.run(granting(other))
    stack.run(lambda uow: release(uow, [mine[1].replica_id], node.id))
    stack.run(granting(other))
