"""Advisory locks of the database, by name: who else must wait while one process does a thing."""

import hashlib
from collections.abc import Callable

from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError

from app.core.uow import UnitOfWork


def lock_number(name: str) -> int:
    """The 63-bit number PostgreSQL knows a name's lock by."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) >> 1


def try_lock(uow: UnitOfWork, name: str) -> bool:
    """Take the lock until the unit ends, or say at once that somebody holds it."""
    return bool(uow.session.execute(select(func.pg_try_advisory_xact_lock(lock_number(name)))).scalar_one())


def wait_lock(uow: UnitOfWork, name: str) -> None:
    """Take the lock until the unit ends, waiting for whoever holds it."""
    uow.session.execute(select(func.pg_advisory_xact_lock(lock_number(name))))


def take_turn(uow: UnitOfWork, name: str, rest: Callable[[], None]) -> bool:
    """Take turns, with at most one waiting: False where somebody waits already, whose turn will see everything
    that is committed by now. Otherwise waits for the running turn to end, then for `rest`, and holds the turn
    until the unit ends.
    """
    waiting, running = lock_number(f"{name}/waiting"), lock_number(f"{name}/running")
    execute = uow.session.execute
    if not execute(select(func.pg_try_advisory_lock(waiting))).scalar_one():
        return False
    try:
        execute(select(func.pg_advisory_xact_lock(running)))
        rest()
        execute(select(func.pg_advisory_unlock(waiting)))
    except DBAPIError:
        # This lock belongs to the connection, not to the transaction: it must not go back to the pool with it.
        uow.session.connection().invalidate()
        raise
    return True
