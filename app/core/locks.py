"""Advisory locks of the database, by name: who else must wait while one process does a thing."""

import hashlib
from collections.abc import Callable
from functools import cache

from sqlalchemy import BigInteger, bindparam, case, func, select
from sqlalchemy.exc import DBAPIError

from app.core.uow import UnitOfWork

_NUMBER = bindparam("number", type_=BigInteger)
_TRY = select(func.pg_try_advisory_lock(_NUMBER))
_GIVE_BACK = select(func.pg_advisory_unlock(_NUMBER))
_WAIT_IN_UNIT = select(func.pg_advisory_xact_lock(_NUMBER))
_IS_FREE = select(case((func.pg_try_advisory_lock(_NUMBER), func.pg_advisory_unlock(_NUMBER)), else_=False))


@cache
def lock_number(name: str) -> int:
    """The 63-bit number PostgreSQL knows a name's lock by."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) >> 1


def try_lock(uow: UnitOfWork, name: str) -> bool:
    """Take the lock until the unit ends, or say at once that somebody holds it."""
    return bool(uow.session.execute(select(func.pg_try_advisory_xact_lock(lock_number(name)))).scalar_one())


def wait_lock(uow: UnitOfWork, name: str) -> None:
    """Take the lock until the unit ends, waiting for whoever holds it."""
    uow.execute(_WAIT_IN_UNIT, {"number": lock_number(name)})


def is_awaited(uow: UnitOfWork, name: str) -> bool:
    """Whether somebody waits for the turn of that name, who will see everything that is committed by now."""
    # Tried and given back in one statement: the lock itself says it, and nobody is kept from it.
    return not uow.execute(_IS_FREE, {"number": lock_number(f"{name}/waiting")}).scalar_one()


def take_turn(uow: UnitOfWork, name: str, rest: Callable[[], None]) -> bool:
    """Take turns, with at most one waiting: False where somebody waits already, whose turn will see everything
    that is committed by now. Otherwise waits for the running turn to end, then for `rest`, and holds the turn
    until the unit ends.
    """
    waiting, running = ({"number": lock_number(f"{name}/{part}")} for part in ("waiting", "running"))
    if not uow.execute(_TRY, waiting).scalar_one():
        return False
    try:
        uow.execute(_WAIT_IN_UNIT, running)
        rest()
        uow.execute(_GIVE_BACK, waiting)
    except DBAPIError:
        # This lock belongs to the connection, not to the transaction: it must not go back to the pool with it.
        uow.session.connection().invalidate()
        raise
    return True
