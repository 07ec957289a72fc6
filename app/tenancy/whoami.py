"""What an actor is told about itself."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select

from app.core.uow import UnitOfWork
from app.tenancy.models import Organisation, Project
from trellis.errors import Forbidden
from trellis.vocabulary import ActorKind, Role


@dataclass(frozen=True, slots=True)
class OwnProject:
    """A project and the actor's role in it."""

    id: UUID
    name: str
    organisation: str
    role: Role


@dataclass(frozen=True, slots=True)
class Whoami:
    """The actor, and the projects it is a member of."""

    kind: ActorKind
    id: UUID
    name: str
    platform_admin: bool
    projects: list[OwnProject]


def get_whoami(uow: UnitOfWork) -> Whoami:
    """Who calls. Raises Forbidden for a machine, which has no part in projects."""
    actor = uow.actor
    uow.checked = True  # it takes no right to be told who one is
    if actor.id is None or not actor.is_person:
        raise Forbidden("this is for people and service accounts")
    statement = (
        select(Project.id, Project.name, Organisation.name.label("organisation"))
        .join(Organisation, Organisation.id == Project.organisation_id)
        .where(Project.id.in_(actor.roles))
        .order_by(Organisation.name, Project.name)
    )
    rows = uow.session.execute(statement).all()
    projects = [OwnProject(row.id, row.name, row.organisation, actor.roles[row.id]) for row in rows]
    return Whoami(actor.kind, actor.id, actor.name, actor.platform_admin, projects)
