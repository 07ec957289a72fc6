"""What is held or claimed without a job: allocations for now, reservations for later."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import select

from app.core.access import Permission
from app.core.amounts import Amounts
from app.core.ids import new_id
from app.core.locks import wait_lock
from app.core.uow import UnitOfWork
from app.jobs.parking import make_way
from app.resources.allocations import Grant, Lease, grant, lock_nodes
from app.resources.candidates import Part, list_candidates
from app.resources.models import Allocation, Node, Reservation
from app.resources.nodes import gpus_of
from app.resources.reservations import TURN, Booking, Claimed, check_window, keep_reservation
from app.resources.windows import Window, free_over
from app.scheduling.placing import choose_places
from app.tenancy import quotas
from app.tenancy.service import find_project
from trellis.errors import CapacityTaken
from trellis.vocabulary import LIVING_NODE_STATES, NodeState

TRIES = 3


@dataclass(frozen=True, slots=True)
class AllocationSpec:
    """A part of one node to be held now, for `ttl_s`; `project` is a name or an id."""

    part: Part
    project: str = ""
    name: str = ""
    ttl_s: int = 3600


@dataclass(frozen=True, slots=True)
class ReservationSpec:
    """`count` parts to be claimed over [starts_at, ends_at); without `starts_at` from now on."""

    part: Part
    ends_at: datetime
    starts_at: datetime | None = None
    project: str = ""
    name: str = ""
    count: int = 1


def allocate(uow: UnitOfWork, spec: AllocationSpec) -> Allocation:
    """Hold a part of one node for a project, outside the queues, until it is given back or its time is over.

    Raises: CapacityTaken that says how much is free, Invalid for an unknown project or pool.
    """
    project = find_project(uow, spec.project, Permission.ALLOCATION_WRITE)
    quotas.require_room(uow, project.id, spec.part.amounts)  # projects' locks come before nodes'
    expires_at = uow.clock.now() + timedelta(seconds=spec.ttl_s)
    window = Window(uow.clock.now(), expires_at)
    (place,) = _take(uow, spec.part, 1, window, for_project=project.id)
    quotas.require_room(uow, project.id, _sum([place]))
    device = {gpu.index: gpu.id for gpu in gpus_of(uow, [place.node.id])[place.node.id]}
    lease = Lease(uow.actor.id, uow.actor.name, expires_at, spec.part.exclusive)
    held = {device[index]: milli for index, milli in place.gpus}
    claim = Grant(
        new_id(), place.node.id, project.id, None, spec.name, place.cpu_milli, place.memory_bytes, held, lease
    )
    grant(uow, [claim], {place.node.id: place.node})
    make_way(uow, [place.node], {})
    allocation = uow.session.execute(select(Allocation).where(Allocation.id == claim.replica_id)).scalar_one()
    uow.emit("allocation.granted", allocation, name=spec.name, node=place.node.name, expires_at=expires_at.isoformat())
    return allocation


def reserve(uow: UnitOfWork, spec: ReservationSpec) -> Reservation:
    """Claim parts of nodes for one project over a window; only what is sure to be free then can be had.

    Raises: Invalid for a window that is none, CapacityTaken that says how much is free.
    """
    project = find_project(uow, spec.project, Permission.RESERVATION_WRITE)
    window = Window(spec.starts_at or uow.clock.now(), spec.ends_at)
    check_window(uow, window)
    quotas.require_within(uow, project.id, spec.part.amounts * spec.count)
    places = _take(uow, spec.part, spec.count, window)
    quotas.require_within(uow, project.id, _sum(places))
    return keep_reservation(uow, Booking(project.id, spec.name), window, places)


def _sum(places: Sequence[Claimed]) -> Amounts:
    gpu_milli = sum(milli for place in places for _, milli in place.gpus)
    return Amounts(sum(p.cpu_milli for p in places), sum(p.memory_bytes for p in places), gpu_milli)


def _take(
    uow: UnitOfWork, part: Part, count: int, window: Window, for_project: UUID | None = None
) -> Sequence[Claimed]:
    """Choose, lock the nodes, look again: a cycle may have been there meanwhile. What is returned is free and locked."""
    # A node that is silent or cordoned now may serve later; what is wanted now needs one that is ready.
    states = LIVING_NODE_STATES if for_project is None else {NodeState.READY}

    def choose(nodes: Sequence[Node]) -> Sequence[Claimed]:
        return choose_places(nodes, free_over(uow, nodes, window, for_project), part, count)

    choose(list_candidates(uow, part, states))  # whoever can have nothing needs no turn to hear so
    wait_lock(uow, TURN)
    for _ in range(TRIES):
        places = choose(list_candidates(uow, part, states))
        locked = lock_nodes(uow, {place.node.id for place in places})
        try:
            return choose([node for node in locked.values() if node.state in states])
        except CapacityTaken:
            continue
    raise CapacityTaken("others took what was free meanwhile: try again")
