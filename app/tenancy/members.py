"""Who has which role in a project."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import func, select

from app.core.access import Permission
from app.core.paging import Page, PageRequest, page
from app.core.uow import UnitOfWork
from app.tenancy.models import Membership, Project, User
from trellis.errors import Conflict, NotFound
from trellis.vocabulary import Role


@dataclass(frozen=True, slots=True)
class Member:
    """A user and their role."""

    user_id: UUID
    username: str
    role: Role
    version: int


def list_members(uow: UnitOfWork, project_id: UUID, request: PageRequest) -> Page[Member]:
    """Everybody in the project, to its members."""
    uow.require(Permission.PROJECT_READ, project_id)
    found = page(uow, uow.visible(Membership).where(Membership.project_id == project_id), Membership, request)
    people = select(User.id, User.username).where(User.id.in_([row.user_id for row in found.items]))
    names = {row.id: row.username for row in uow.session.execute(people)}
    return Page([_member(row, names[row.user_id]) for row in found.items], found.next_cursor)


def set_member(uow: UnitOfWork, project_id: UUID, user_id: UUID, role: Role) -> Member:
    """Give a user a role in a project, in place of the one they may have had.

    Raises: NotFound for an unknown user; Conflict if the project would be left without an administrator.
    """
    project = _lock(uow, project_id)
    user = uow.session.get(User, user_id)
    if user is None:
        raise NotFound(f"there is no user {user_id}")
    membership = _find(uow, project_id, user_id)
    before = membership.role if membership else None
    if membership is None:
        membership = Membership(project_id=project_id, user_id=user_id, role=role)
        uow.session.add(membership)
    elif membership.role is not role:
        if role is not Role.PROJECT_ADMIN:
            _keep_an_admin(uow, membership)
        membership.role = role
        membership.version += 1
    uow.session.flush()
    if before is not role:
        uow.emit("member.set", project, user_id=str(user_id), before=before, after=role)
    return _member(membership, user.username)


def remove_member(uow: UnitOfWork, project_id: UUID, user_id: UUID) -> None:
    """Take a user out of a project. Raises NotFound, and Conflict for the last administrator."""
    project = _lock(uow, project_id)
    membership = _find(uow, project_id, user_id)
    if membership is None:
        raise NotFound(f"user {user_id} is no member of this project")
    _keep_an_admin(uow, membership)
    uow.session.delete(membership)
    uow.emit("member.removed", project, user_id=str(user_id), before=membership.role)


def _lock(uow: UnitOfWork, project_id: UUID) -> Project:
    # Every change of a project's members waits its turn here, so that a count of administrators stays true.
    uow.require(Permission.MEMBER_WRITE, project_id)
    return uow.get(Project, project_id, lock=True)


def _find(uow: UnitOfWork, project_id: UUID, user_id: UUID) -> Membership | None:
    statement = select(Membership).where(Membership.project_id == project_id, Membership.user_id == user_id)
    return uow.session.execute(statement).scalar_one_or_none()


def _keep_an_admin(uow: UnitOfWork, leaving: Membership) -> None:
    if leaving.role is not Role.PROJECT_ADMIN or uow.actor.sees_all:
        return
    admins = select(func.count()).where(
        Membership.project_id == leaving.project_id, Membership.role == Role.PROJECT_ADMIN
    )
    if uow.session.execute(admins).scalar_one() <= 1:
        raise Conflict("this is the project's last administrator: name another one first")


def _member(membership: Membership, username: str) -> Member:
    return Member(membership.user_id, username, membership.role, membership.version)
