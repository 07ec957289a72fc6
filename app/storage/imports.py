"""Checkpoints across clusters: handed out by a ticket, and made one's own by one."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import select

from app.core.access import Permission
from app.core.ids import new_id
from app.core.paging import Page, PageRequest, page
from app.core.uow import UnitOfWork
from app.storage import tickets
from app.storage.checkpoints import Place
from app.storage.clusters import Cluster
from app.storage.models import Checkpoint, CheckpointOrigin
from app.storage.tickets import Ticket
from app.tenancy.service import find_project
from trellis.errors import Conflict, Field, Invalid, Unavailable
from trellis.stores.manifests import Manifest, fetch_signed
from trellis.stores.urls import require_sign
from trellis.units import LARGEST
from trellis.vocabulary import SaveReason
from trellis.wire import unpack

SHORTEST_S, LONGEST_S = 60, 90 * 86_400


class NotExportable(Conflict):
    """It is damaged, or not this cluster's to hand out."""

    code = "not_exportable"
    title = "The checkpoint can't be handed out"


class CheckpointGone(Conflict):
    """The other cluster does not hold any more what the ticket is for, or not as it was."""

    code = "checkpoint_gone"
    title = "The other cluster's checkpoint is gone or damaged"


@dataclass(frozen=True, slots=True)
class Found:
    """A checkpoint of another cluster as it was found there."""

    ticket: Ticket
    cluster: Cluster
    manifest: Manifest


def export(uow: UnitOfWork, place: Place, checkpoint_id: UUID, for_s: int) -> dict[str, Any]:
    """A ticket for a checkpoint; until it runs out no retention removes that. Takes a project's administrator.

    Raises: NotExportable.
    """
    checkpoint = uow.get(Checkpoint, checkpoint_id, lock=True)
    uow.require(Permission.PROJECT_WRITE, checkpoint.project_id)
    if checkpoint.job_id is None:
        raise NotExportable("it was imported: have the cluster that it is from hand it out")
    if checkpoint.damaged_at is not None:
        raise NotExportable("it is damaged: hand out the one before it")
    now = uow.clock.now()
    until = now + timedelta(seconds=for_s)
    ticket = Ticket(
        id=str(new_id()), cluster=place.public_key, store=place.url, key=checkpoint.key, checkpoint_id=str(checkpoint.id),
        project_id=str(checkpoint.project_id), issued_at=now.isoformat(), until=until.isoformat(),
    )  # fmt: skip
    checkpoint.exported_until = max(until, checkpoint.exported_until or until)
    uow.emit("checkpoint.exported", checkpoint, ticket=ticket.id, until=ticket.until)
    return {"ticket": tickets.issue(ticket, place.key), "until": until}


def open_import(uow: UnitOfWork, place: Place, text: str, project: str) -> tuple[UUID, Ticket, Cluster]:
    """Whose import it is, what the ticket says, and the cluster that issued it.

    Raises: Invalid for what is no ticket, has run out, or is of a cluster that is not trusted here; Forbidden.
    """
    project_id = find_project(uow, project, Permission.JOB_WRITE).id
    ticket = tickets.read(text)
    if ticket.cluster == place.public_key:
        raise _fault("is this cluster's own: `trellis checkpoints share` lets another project go on from it")
    cluster = place.clusters.get(ticket.cluster)
    if cluster is None:
        key = ticket.cluster[:16]
        raise _fault(f"is of a cluster that is not trusted here (its key begins with {key}): the operator must name it")
    if ticket.ends_at <= uow.clock.now():
        raise _fault(f"ran out at {ticket.until}: have another one issued")
    return project_id, ticket, cluster


def look_up(ticket: Ticket, cluster: Cluster) -> Found:
    """Read the manifest where the ticket says it is, of the store that the operator named. No transaction is to be open.

    Raises: CheckpointGone; Unavailable where the store can't be reached.
    """
    try:
        require_sign(cluster.store, cluster.url)  # what is away is not gone
        manifest = fetch_signed(cluster.store, ticket.key, cluster.public_key)
    except FileNotFoundError as error:
        raise CheckpointGone(f"cluster {cluster.name} has removed it") from error
    except OSError as error:
        raise Unavailable(f"the store of cluster {cluster.name} can't be reached from here: {error}") from error
    except Invalid as error:
        why = error.fields[0].message
        raise CheckpointGone(f"its manifest in the store of cluster {cluster.name} {why}") from error
    if manifest.about.get("id") != ticket.checkpoint_id:
        raise CheckpointGone(f"cluster {cluster.name} has another checkpoint where the ticket's should be")
    return Found(ticket, cluster, manifest)


def record_import(uow: UnitOfWork, project_id: UUID, found: Found) -> Checkpoint:
    """Make it a checkpoint of the project. The same one again is the same row, for as long as the later ticket counts."""
    uow.require(Permission.JOB_WRITE, project_id)
    ticket = found.ticket
    known = select(Checkpoint, CheckpointOrigin).join(CheckpointOrigin).where(
        CheckpointOrigin.project_id == project_id, CheckpointOrigin.public_key == ticket.cluster,
        CheckpointOrigin.key == ticket.key,
    )  # fmt: skip
    row = uow.session.execute(known.with_for_update()).one_or_none()
    if row is not None:
        checkpoint, origin = row
        if origin.until < ticket.ends_at:
            origin.until = ticket.ends_at
            _tell(uow, checkpoint, found)
        checkpoint.damaged_at = None  # it was read anew
        return checkpoint
    checkpoint = _new_row(uow, project_id, found.manifest)
    uow.session.add(checkpoint)
    uow.session.flush()
    uow.session.add(
        CheckpointOrigin(
            checkpoint_id=checkpoint.id, project_id=project_id, public_key=ticket.cluster, key=ticket.key,
            until=ticket.ends_at,
        )
    )  # fmt: skip
    uow.session.flush()
    _tell(uow, checkpoint, found)
    return checkpoint


def _tell(uow: UnitOfWork, checkpoint: Checkpoint, found: Found) -> None:
    uow.emit(
        "checkpoint.imported", checkpoint, cluster=found.cluster.name, ticket=found.ticket.id,
        from_project=found.ticket.project_id, from_checkpoint=found.ticket.checkpoint_id, until=found.ticket.until,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _About:
    """What a manifest says of the save that made it."""

    replica_index: int
    attempt: int
    step: int | None
    metrics: dict[str, float]
    reason: SaveReason


def _new_row(uow: UnitOfWork, project_id: UUID, manifest: Manifest) -> Checkpoint:
    """Of what its manifest says of it. Raises CheckpointGone for a manifest that no release of ours has written."""
    identity = new_id()
    try:
        said = unpack(_About, {name: manifest.about.get(name) for name in _About.__slots__})
        if any(not 0 <= abs(number) <= LARGEST for number in (said.replica_index, said.attempt, said.step or 0)):
            raise ValueError("a number is out of range")
    except ValueError as error:
        raise CheckpointGone(f"its manifest does not say what this release must know of it: {error}") from error
    return Checkpoint(
        id=identity, project_id=project_id, job_id=None, replica_index=said.replica_index, attempt=said.attempt, fence=0,
        reason=said.reason, at_step=said.step, metrics=said.metrics, files=len(manifest.files),
        size_bytes=manifest.size_bytes, new_bytes=0, stored_bytes=0, key=f"imports/{identity}",
        created_at=uow.clock.now(),
    )  # fmt: skip


def list_imports(uow: UnitOfWork, project: str, wanted: PageRequest) -> Page[Checkpoint]:
    """What was imported into one's projects, or into that one."""
    statement = uow.visible(Checkpoint).where(Checkpoint.job_id.is_(None))
    if project:
        statement = statement.where(Checkpoint.project_id == find_project(uow, project, Permission.JOB_READ).id)
    return page(uow, statement, Checkpoint, wanted)


def _fault(message: str) -> Invalid:
    return Invalid(Field("/ticket", message))
