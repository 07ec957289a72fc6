"""Idempotency keys: the same POST sent twice has one effect and gets one answer, for a day.

The key is claimed in the transaction of the request it guards: a twin waits for it to end, then finds the answer.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, select, update
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


class SecretAlreadyShown(Conflict):
    """The request was carried out before, and its answer held a secret that is shown once."""

    code = "secret_already_shown"
    title = "This was done already; its secret was shown once and can't be shown again"


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered the first time."""

    status: int
    body: Any


def claim(uow: UnitOfWork, key: str, request: str) -> Answer | None:
    """Claim `key` for this `request` (a digest of route and body), or return the answer it got before.

    Raises: IdempotencyKeyReused if it stands for another request.
    """
    if uow.actor.id is None:
        return None
    row = {"actor_id": uow.actor.id, "key": key, "request": request}
    fresh = insert(IdempotencyKey).values(row).on_conflict_do_nothing().returning(IdempotencyKey.key)
    if uow.session.execute(fresh).first():
        return None
    known = uow.session.execute(select(IdempotencyKey).where(_is(uow.actor.id, key))).scalar_one()
    if known.request != request:
        raise IdempotencyKeyReused
    if known.body is None:
        raise SecretAlreadyShown
    return Answer(known.status or 200, known.body["answer"])


def settle(uow: UnitOfWork, key: str, answer: Answer, *, secret: bool) -> None:
    """Keep the answer for a twin; one that holds a secret is not kept."""
    if uow.actor.id is None:
        return
    body = None if secret else {"answer": answer.body}
    uow.session.execute(update(IdempotencyKey).where(_is(uow.actor.id, key)).values(status=answer.status, body=body))


def forget_old(uow: UnitOfWork) -> None:
    """Drop the keys nobody may still be repeating."""
    uow.session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < uow.clock.now() - KEPT))


def _is(actor_id: UUID, key: str) -> Any:
    return (IdempotencyKey.actor_id == actor_id) & (IdempotencyKey.key == key)
