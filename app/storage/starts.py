"""What a job's first attempt goes on from, where the job names a checkpoint."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import or_, select

from app.core.uow import UnitOfWork
from app.storage.checkpoints import Place, Unreadable, closed, trusted
from app.storage.models import Checkpoint, CheckpointGrant, CheckpointOrigin
from trellis.wire import StoreSource

_ADVICE = "another project's must be shared with this one first (`trellis checkpoints share`)"


@dataclass(frozen=True, slots=True)
class Start:
    """The manifests to go on from, where these are if not in our own store, and where there are none, why not."""

    keys: tuple[str, ...] = ()
    source: StoreSource | None = None
    fault: str = ""


def fault_of(uow: UnitOfWork, checkpoint_id: UUID, project_id: UUID) -> str:
    """Why that project can't go on from that checkpoint; "" where it can, as far as can be said without the store."""
    _, _, fault = _find(uow, checkpoint_id, project_id)
    return fault


def start_from(uow: UnitOfWork, place: Place, checkpoint_id: UUID, project_id: UUID) -> Start:
    """How that project goes on from that checkpoint, now: a grant that was taken back and a ticket that ran out count."""
    key, origin, fault = _find(uow, checkpoint_id, project_id)
    if fault:
        return Start(fault=fault)
    if origin is None:
        return Start((key,))
    try:
        cluster = trusted(origin, place)
    except Unreadable as error:
        return Start(fault=f"checkpoint {checkpoint_id} can't be read: {error}")
    return Start((origin.key,), StoreSource(cluster.url, cluster.public_key))


def _find(uow: UnitOfWork, checkpoint_id: UUID, project_id: UUID) -> tuple[str, CheckpointOrigin | None, str]:
    """The manifest's key in our store, where it is from if from elsewhere, and why it may not be gone on from."""
    granted = select(CheckpointGrant.checkpoint_id).where(CheckpointGrant.project_id == project_id)
    allowed = or_(Checkpoint.project_id == project_id, Checkpoint.id.in_(granted))
    statement = select(Checkpoint.key, CheckpointOrigin).outerjoin(CheckpointOrigin)
    row = uow.session.execute(statement.where(Checkpoint.id == checkpoint_id, allowed)).one_or_none()
    if row is None:
        return "", None, f"there is no checkpoint {checkpoint_id} in this project; {_ADVICE}"
    why = closed(row.CheckpointOrigin, uow.clock.now()) if row.CheckpointOrigin else ""
    return row.key, row.CheckpointOrigin, f"checkpoint {checkpoint_id} can't be read: {why}" if why else ""
