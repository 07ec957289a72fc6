"""What an empty platform begins with: an organisation, a project, a queue and somebody to administer them."""

import secrets

from sqlalchemy import select, text

from app.core.locks import wait_lock
from app.core.uow import UnitOfWork
from app.queues.models import Queue
from app.queues.service import DEFAULT_QUEUE, QueueSpec, create_queue
from app.tenancy.members import set_member
from app.tenancy.models import Organisation, Project, User
from app.tenancy.service import create_organisation, create_project
from app.tenancy.users import UserSpec, create_user
from trellis.vocabulary import Role

DEFAULT_ORGANISATION = "default"
DEFAULT_PROJECT = "default"


def ensure_admin(uow: UnitOfWork, username: str, password: str | None = None) -> str | None:
    """Make what is missing of the first organisation, project, queue and administrator.

    Returns: the administrator's password (made up where none is given), or None where there was one already.
    Raises: AlreadyExists if `username` is somebody who is no administrator.
    """
    wait_lock(uow, "bootstrap")  # two processes that start at once make one of each
    project = _ensure_project(uow)
    if not uow.session.execute(select(Queue.id).where(Queue.project_id.is_(None)).limit(1)).first():
        create_queue(uow, QueueSpec(DEFAULT_QUEUE))
    # Too small for autovacuum ever to look at, and without figures of theirs each submission is planned anew.
    uow.execute(text("ANALYZE projects, queues"))
    if uow.session.execute(select(User.id).where(User.platform_admin, User.disabled_at.is_(None)).limit(1)).first():
        return None
    password = password or secrets.token_urlsafe(15)
    user = create_user(uow, UserSpec(username, password, platform_admin=True))
    set_member(uow, project.id, user.id, Role.PROJECT_ADMIN)
    return password


def _ensure_project(uow: UnitOfWork) -> Project:
    project = uow.session.execute(
        select(Project).order_by(Project.created_at, Project.id).limit(1)
    ).scalar_one_or_none()
    if project is not None:
        return project
    statement = select(Organisation).where(Organisation.name == DEFAULT_ORGANISATION)
    organisation = uow.session.execute(statement).scalar_one_or_none()
    return create_project(uow, DEFAULT_PROJECT, (organisation or create_organisation(uow, DEFAULT_ORGANISATION)).id)
