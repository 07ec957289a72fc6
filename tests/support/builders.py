"""Rows that are valid by default; say only what the test is about. None of these stores anything."""

from itertools import count
from typing import Any

from app.core.crypto import hash_password
from app.core.ids import new_id
from app.queues.models import Queue
from app.resources.models import Pool
from app.tenancy.models import ApiKey, Membership, Organisation, Project, ServiceAccount, User
from trellis.vocabulary import QueueState, Role

PASSWORD = "correct horse battery"
_PASSWORD_HASH = hash_password(PASSWORD)
_numbers = count(1)


def _name(noun: str) -> str:
    return f"{noun}-{next(_numbers)}"


def a_user(**values: Any) -> User:
    """A person whose password is PASSWORD."""
    defaults = {"username": _name("user"), "password_hash": _PASSWORD_HASH, "platform_admin": False, "token_version": 1}
    return User(**{"id": new_id(), "version": 1} | defaults | values)


def an_admin(**values: Any) -> User:
    """A platform administrator."""
    return a_user(**{"platform_admin": True} | values)


def an_organisation(**values: Any) -> Organisation:
    """An organisation."""
    return Organisation(**{"id": new_id(), "version": 1, "name": _name("organisation")} | values)


def a_project(organisation: Organisation, **values: Any) -> Project:
    """A project of that organisation."""
    defaults = {"id": new_id(), "version": 1, "name": _name("project"), "organisation_id": organisation.id}
    return Project(**defaults | values)


def a_membership(project: Project, user: User, role: Role = Role.MEMBER) -> Membership:
    """That user's role in that project."""
    return Membership(id=new_id(), version=1, project_id=project.id, user_id=user.id, role=role)


def a_service_account(project: Project, **values: Any) -> ServiceAccount:
    """A program of that project."""
    defaults = {"id": new_id(), "version": 1, "project_id": project.id, "name": _name("robot"), "role": Role.MEMBER}
    return ServiceAccount(**defaults | values)


def an_api_key(user: User, **values: Any) -> ApiKey:
    """A key of that user whose secret nobody knows."""
    defaults = {"id": new_id(), "version": 1, "name": _name("key"), "prefix": "trk_12345678", "user_id": user.id}
    return ApiKey(**{"digest": new_id().bytes} | defaults | values)


def a_pool(**values: Any) -> Pool:
    """A pool of its own."""
    defaults: dict[str, Any] = {
        "name": _name("pool"), "weight": 1, "nominal": {}, "lends": {}, "borrows": {},
        "cpu_overcommit_milli": 1000, "memory_overcommit_milli": 1000,
    }  # fmt: skip
    return Pool(**{"id": new_id(), "version": 1} | defaults | values)


def a_queue(project: Project | None = None, **values: Any) -> Queue:
    """A queue of that project, or one that all share."""
    defaults: dict[str, Any] = {"name": _name("queue"), "state": QueueState.OPEN, "weight": 1, "policy": "", "most": {}}
    return Queue(**{"id": new_id(), "version": 1, "project_id": project and project.id} | defaults | values)
