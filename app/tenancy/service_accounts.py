"""Programs with a role in one project."""

from uuid import UUID

from sqlalchemy import select

from app.core.access import Permission
from app.core.paging import Page, PageRequest, page
from app.core.uow import UnitOfWork
from app.tenancy.models import ServiceAccount
from trellis.errors import AlreadyExists, NotFound
from trellis.vocabulary import Role


def create_service_account(uow: UnitOfWork, project_id: UUID, name: str, role: Role) -> ServiceAccount:
    """Make one. Raises AlreadyExists for a name in use."""
    uow.require(Permission.MEMBER_WRITE, project_id)
    taken = select(ServiceAccount.id).where(
        ServiceAccount.project_id == project_id, ServiceAccount.name == name, ServiceAccount.removed_at.is_(None)
    )
    if uow.session.execute(taken).first():
        raise AlreadyExists(f"there is a service account {name} in this project already")
    account = ServiceAccount(project_id=project_id, name=name, role=role)
    uow.session.add(account)
    uow.session.flush()
    uow.emit("service_account.created", account, name=name, role=role)
    return account


def list_service_accounts(uow: UnitOfWork, project_id: UUID, request: PageRequest) -> Page[ServiceAccount]:
    """Those of a project that are not removed, to its members."""
    uow.require(Permission.PROJECT_READ, project_id)
    mine = ServiceAccount.project_id == project_id
    statement = uow.visible(ServiceAccount).where(mine, ServiceAccount.removed_at.is_(None))
    return page(uow, statement, ServiceAccount, request)


def get_service_account(uow: UnitOfWork, account_id: UUID) -> ServiceAccount:
    """One that is not removed. Raises NotFound."""
    account = uow.get(ServiceAccount, account_id)
    if account.removed_at is not None:
        raise NotFound(f"there is no service account {account_id}")
    return account


def remove_service_account(uow: UnitOfWork, account_id: UUID) -> None:
    """Remove it; its keys are void from the next request on. Doing so twice is no fault."""
    account = uow.get(ServiceAccount, account_id, lock=True)
    uow.require(Permission.MEMBER_WRITE, account.project_id)
    if account.removed_at is None:
        account.removed_at = uow.clock.now()
        account.version += 1
        uow.emit("service_account.removed", account, name=account.name)
