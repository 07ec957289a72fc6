"""Idempotency keys: the same POST sent twice has one effect and gets one answer, for a day.

The key is written with its answer at the end of the transaction that it guards. So a first request, nearly every one,
pays for one statement; a twin does its work in vain, waits at the key, is rolled back and given the first one's answer.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, mapped_column

from app.core.tables import Base
from app.core.uow import UnitOfWork
from trellis.errors import Conflict, IdempotencyKeyReused

KEPT = timedelta(hours=24)


class IdempotencyKey(Base):
    """One key of one actor, the request it was first used for, and the answer given."""

    __tablename__ = "idempotency_keys"

    actor_id: Mapped[UUID] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    request: Mapped[str]
    status: Mapped[int | None]
    body: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)


_KEEP = insert(IdempotencyKey).on_conflict_do_nothing().returning(IdempotencyKey.key)


class SecretAlreadyShown(Conflict):
    """The request was carried out before, and its answer held a secret that is shown once."""

    code = "secret_already_shown"
    title = "This was done already; its secret was shown once and can't be shown again"


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered the first time."""

    status: int
    body: Any


class KeyUsed(Conflict):
    """The key stands for a request that was carried out: this one must not be, the answer to that one holds."""

    code = "idempotency_key_used"


def keep(uow: UnitOfWork, key: str, request: str, answer: Answer, *, secret: bool) -> None:
    """Keep the answer to `request` (a digest of route and body) for a twin; one that holds a secret is not kept.

    A twin that is under way is waited for. Raises KeyUsed where one was carried out before.
    """
    if uow.actor.id is None:
        return
    body = None if secret else {"answer": answer.body}
    row = {"actor_id": uow.actor.id, "key": key, "request": request, "status": answer.status, "body": body}
    if uow.execute(_KEEP, row).first() is None:
        raise KeyUsed


def find_answer(uow: UnitOfWork, key: str, request: str) -> Answer | None:
    """The answer that the acting caller's `key` got before, if it was used.

    Raises: IdempotencyKeyReused if it stands for another request, SecretAlreadyShown if its answer was not kept.
    """
    mine = (IdempotencyKey.actor_id == uow.actor.id) & (IdempotencyKey.key == key)
    known = uow.session.execute(select(IdempotencyKey).where(mine)).scalar_one_or_none()
    if known is None:
        return None
    if known.request != request:
        raise IdempotencyKeyReused
    if known.body is None:
        raise SecretAlreadyShown
    return Answer(known.status or 200, known.body["answer"])


def forget_old(uow: UnitOfWork) -> None:
    """Drop the keys nobody may still be repeating."""
    uow.session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < uow.clock.now() - KEPT))
