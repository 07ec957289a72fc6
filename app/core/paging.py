"""Pages by keyset: a signed cursor says after which row the next page begins, at any depth for the same cost."""

import base64
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, or_
from sqlalchemy.orm import InstrumentedAttribute

from app.core.tables import Entity
from app.core.uow import UnitOfWork
from trellis.errors import Field, Invalid

E = TypeVar("E", bound=Entity)
T = TypeVar("T")
LARGEST_PAGE = 500


@dataclass(frozen=True, slots=True)
class Sort:
    """One way to order rows of a model: a column (never null), then the id, so that the order is total."""

    column: InstrumentedAttribute[Any]
    descending: bool


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which page: how many rows, after which, in which order; `scope` ties the cursor to its list and filters."""

    limit: int
    cursor: str | None
    sort: Sort
    scope: str
    key: bytes


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Rows, and the cursor of the next page or None."""

    items: Sequence[T]
    next_cursor: str | None


def page(uow: UnitOfWork, statement: Select[E], model: type[E], request: PageRequest) -> "Page[E]":
    """Run `statement` for one page. Raises Invalid for a cursor that is not of this list."""
    column, ident = request.sort.column, model.id
    if request.cursor:
        value, row_id = _read(request)
        statement = statement.where(_after(request.sort, value, ident, row_id))
    order = [column.desc(), ident.desc()] if request.sort.descending else [column.asc(), ident.asc()]
    rows = uow.session.execute(statement.order_by(*order).limit(request.limit + 1)).scalars().all()
    more = len(rows) > request.limit
    rows = rows[: request.limit]
    cursor = _write(request, getattr(rows[-1], column.key), rows[-1].id) if more else None
    return Page(rows, cursor)


def _after(sort: Sort, value: Any, ident: Any, row_id: UUID) -> ColumnElement[bool]:
    if sort.descending:
        return or_(sort.column < value, and_(sort.column == value, ident < row_id))
    return or_(sort.column > value, and_(sort.column == value, ident > row_id))


def _write(request: PageRequest, value: Any, row_id: UUID) -> str:
    kind = "t" if isinstance(value, datetime) else "v"
    body = json.dumps([kind, value.isoformat() if isinstance(value, datetime) else value, str(row_id)]).encode()
    return base64.urlsafe_b64encode(_seal(request, body) + body).decode().rstrip("=")


def _read(request: PageRequest) -> tuple[Any, UUID]:
    cursor = request.cursor or ""
    try:
        raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    except ValueError:
        raw = b""
    seal, body = raw[:16], raw[16:]
    if not hmac.compare_digest(seal, _seal(request, body)):
        raise Invalid(Field("/cursor", "is not a cursor of this list with these filters: start again without it"))
    kind, value, row_id = json.loads(body)
    return datetime.fromisoformat(value) if kind == "t" else value, UUID(row_id)


def _seal(request: PageRequest, body: bytes) -> bytes:
    return hmac.digest(request.key, request.scope.encode() + b"\0" + body, "sha256")[:16]
