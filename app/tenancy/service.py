"""Organisations and the projects below them."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import select

from app.core.access import Permission
from app.core.ids import read_id
from app.core.paging import Page, PageRequest, page
from app.core.uow import UnitOfWork
from app.tenancy.models import Membership, Organisation, Project
from trellis.errors import AlreadyExists, Field, Invalid
from trellis.vocabulary import ActorKind, Role

# Of several projects this one is meant by whoever names none.
DEFAULT_PROJECT = "default"


def create_organisation(uow: UnitOfWork, name: str) -> Organisation:
    """Make an organisation. Raises AlreadyExists for a name in use."""
    uow.require(Permission.ORGANISATION_WRITE)
    if uow.session.execute(select(Organisation.id).where(Organisation.name == name)).first():
        raise AlreadyExists(f"there is an organisation {name} already")
    organisation = Organisation(name=name)
    uow.session.add(organisation)
    uow.session.flush()
    uow.emit("organisation.created", organisation, name=name)
    return organisation


def list_organisations(uow: UnitOfWork, request: PageRequest) -> Page[Organisation]:
    """Those in which the actor has a project."""
    return page(uow, uow.visible(Organisation), Organisation, request)


def create_project(uow: UnitOfWork, name: str, organisation_id: UUID) -> Project:
    """Make a project; the person who makes it becomes its first administrator.

    Raises: Invalid for an unknown organisation, AlreadyExists for a name in use there.
    """
    uow.require(Permission.ORGANISATION_WRITE)
    if uow.session.get(Organisation, organisation_id) is None:
        raise Invalid(Field("/organisation_id", "is no organisation: GET /organisations lists them"))
    _refuse_taken_name(uow, name, organisation_id)
    project = Project(name=name, organisation_id=organisation_id)
    uow.session.add(project)
    uow.session.flush()
    if uow.actor.kind is ActorKind.USER and uow.actor.id is not None:
        uow.session.add(Membership(project_id=project.id, user_id=uow.actor.id, role=Role.PROJECT_ADMIN))
    uow.emit("project.created", project, name=name, organisation_id=str(organisation_id))
    return project


def list_projects(uow: UnitOfWork, request: PageRequest) -> Page[Project]:
    """The actor's; all of them to platform administrators."""
    return page(uow, uow.visible(Project), Project, request)


def change_project(uow: UnitOfWork, project_id: UUID, changes: Mapping[str, Any], version: int | None) -> Project:
    """Change a project's `name`, and the `hang_after_s` of its jobs. Raises AlreadyExists for a name in use, StaleVersion."""
    uow.require(Permission.PROJECT_WRITE, project_id)
    project = uow.get(Project, project_id, lock=True)
    uow.expect_version(project, version)
    before = {name: getattr(project, name) for name, value in changes.items() if getattr(project, name) != value}
    if "name" in before:
        _refuse_taken_name(uow, changes["name"], project.organisation_id)
    for name in before:
        setattr(project, name, changes[name])
    if before:
        project.version += 1
        uow.emit("project.changed", project, before=before, after={name: changes[name] for name in before})
    return project


def _refuse_taken_name(uow: UnitOfWork, name: str, organisation_id: UUID) -> None:
    taken = select(Project.id).where(Project.organisation_id == organisation_id, Project.name == name)
    if uow.session.execute(taken).first():
        raise AlreadyExists(f"there is a project {name} in that organisation already")


def find_project(uow: UnitOfWork, word: str, permission: Permission) -> Project:
    """The project of that id or name in which the actor holds `permission`; of no word, the only one there is, or
    of several the one called `default`, as for submissions.

    Raises: Invalid for what the actor can't see or where several match, Forbidden where the right is lacking.
    """
    statement = uow.visible(Project)
    if word:
        statement = statement.where(Project.id == project_id if (project_id := read_id(word)) else Project.name == word)
    elif not uow.actor.sees_all:
        statement = statement.where(Project.id.in_(uow.actor.projects_with(permission)))
    first = (Project.name != DEFAULT_PROJECT, Project.id)
    found = uow.session.execute(statement.order_by(*first).limit(2)).scalars().all()
    if not found:
        known = f"there is no project {word!r} that you can see" if word else "you may do this in none"
        raise Invalid(Field("/project", f"{known}: `trellis whoami` lists yours"))
    if len(found) > 1 and (word or found[0].name != DEFAULT_PROJECT):
        raise Invalid(Field("/project", "several projects match: give the id of one"))
    uow.require(permission, found[0].id)
    return found[0]
