"""Files that replicas keep: whether one may come in, and that it has."""

from dataclasses import dataclass
from uuid import UUID

from app.core.access import Permission
from app.core.settings import Settings
from app.core.uow import UnitOfWork
from app.jobs.models import Replica
from app.storage import artifacts
from app.storage.artifacts import Content, Label, Owner
from trellis.errors import StaleFence


@dataclass(frozen=True, slots=True)
class Offer:
    """A file that a node has of a replica, under the fence that it knows."""

    replica_id: UUID
    fence: str
    label: Label
    content: Content


def admit(uow: UnitOfWork, offer: Offer, settings: Settings) -> tuple[Owner, UUID | None]:
    """Whose file it is, and the id of the artifact where it is there already.

    Raises: NotFound, StaleFence, Invalid, QuotaExceeded.
    """
    owner = _owner(uow, offer)
    offer.label.check()
    offer.content.check()
    if same := artifacts.find_same(uow, owner, offer.label, offer.content.digest):
        return owner, same.id
    artifacts.hold_room(uow, owner, offer.content.size_bytes, settings)
    return owner, None


def keep(uow: UnitOfWork, offer: Offer, key: str) -> UUID:
    """Write down that the store has it under `key`; the artifact's id. Raises like `admit`, but for the room."""
    return artifacts.keep(uow, _owner(uow, offer), offer.label, offer.content, key).id


def _owner(uow: UnitOfWork, offer: Offer) -> Owner:
    uow.require(Permission.REPLICA_REPORT)
    replica = uow.get(Replica, offer.replica_id)
    if offer.fence != str(replica.fence):
        raise StaleFence(f"replica {replica.id} has another fence")
    return Owner(replica.project_id, replica.job_id, replica.id)
