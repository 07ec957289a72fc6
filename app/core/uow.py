"""The unit of work: the one door to rows, rights, states and events.

A request, a task or a command opens one, hands it to the rules, and it commits once at the end.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from enum import StrEnum
from typing import Any, LiteralString, TypeVar
from uuid import UUID

import psycopg
from psycopg import errors as pg
from sqlalchemy import CursorResult, Executable, Select, func, insert, select
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session, sessionmaker

from app.core.access import SYSTEM, Actor, Permission
from app.core.events import ANNOUNCED, JOB_CHANNEL, KINDS, WAKE_CHANNEL
from app.core.states import MACHINES
from app.core.tables import Base, Entity
from trellis.errors import Forbidden, IllegalTransition, NotFound, StaleVersion, Unavailable
from trellis.vocabulary import ActorKind

E = TypeVar("E", bound=Entity)
R = TypeVar("R")
ATTEMPTS = 3
_NOW = select(func.clock_timestamp())
# All events of a unit and all it wakes in one round trip, whatever their number: this runs at the end of every unit.
_TELL = """
    WITH told AS (
        INSERT INTO events (kind, at, actor_kind, actor_id, actor_name, project_id, subject_type, subject_id, job_id,
                            data, sent_at)
        SELECT kind, at, actor_kind, actor_id, actor_name, project_id, subject_type, subject_id, job_id, data, sent_at
        FROM jsonb_to_recordset(%(events)s::jsonb) AS event(
            kind text, at timestamptz, actor_kind text, actor_id uuid, actor_name text, project_id uuid,
            subject_type text, subject_id uuid, job_id uuid, data jsonb, sent_at timestamptz)
    )
    SELECT pg_notify(pair ->> 0, pair ->> 1) FROM jsonb_array_elements(%(wake)s::jsonb) AS pair
"""


_ECHO = """
    INSERT INTO events (kind, at, actor_kind, actor_id, actor_name, project_id, subject_type, subject_id, job_id,
                        data, sent_at)
    SELECT kind, at, actor_kind, actor_id, actor_name, project_id, subject_type, like_it, like_it, data, sent_at
    FROM unnest(%(ids)s::uuid[]) WITH ORDINALITY AS echo(like_it, place)
    CROSS JOIN jsonb_array_elements(%(events)s::jsonb) WITH ORDINALITY AS told(event, number)
    CROSS JOIN jsonb_to_record(told.event) AS event(
        kind text, at timestamptz, actor_kind text, actor_id uuid, actor_name text, project_id uuid,
        subject_type text, data jsonb, sent_at timestamptz)
    ORDER BY echo.place, told.number
"""


class Clock:
    """The database's clock, read once a unit: every stamp of one unit is the same, whoever's host it runs on."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._now: datetime | None = None

    def now(self) -> datetime:
        """The moment this unit first asked, aware, UTC."""
        if self._now is None:
            self._now = self._session.connection().execute(_NOW).scalar_one()
        return self._now

    def set(self, now: datetime) -> None:
        """Spare a round trip: a statement that ran in this transaction brought the time along."""
        self._now = now


class UnitOfWork:
    """Session, clock and actor; `get`, `visible`, `execute`, `insert`, `require`, `emit`, `move`."""

    def __init__(self, session: Session, actor: Actor) -> None:
        self.session = session
        self.clock = Clock(session)
        self.actor = actor
        self.checked = actor is SYSTEM  # has any right been checked? The edge refuses a request that checked none
        self._events: list[dict[str, Any]] = []
        self._touched_jobs: set[UUID] = set()

    def get(self, model: type[E], id: UUID, *, lock: bool = False) -> E:  # noqa: A002  # the field's word
        """The row with that id. Raises NotFound where there is none or it is not the actor's to see."""
        statement = self.visible(model).where(model.id == id)
        if lock:
            statement = statement.with_for_update(key_share=True).execution_options(populate_existing=True)
        row = self.session.execute(statement).scalar_one_or_none()
        if row is None:
            raise NotFound(f"there is no {_noun(model)} {id}")
        return row

    def visible(self, model: type[E]) -> Select[E]:
        """A select of the rows of `model` that the actor may see; counts as a check of its read permission.

        Raises: Forbidden for a node, where the model is not for nodes.
        """
        self.checked = True
        if self.actor.kind is ActorKind.NODE and not model.seen_by_nodes:
            raise Forbidden("this is not for nodes")
        return select(model).where(model.visible_to(self.actor))

    def projects_with(self, permission: Permission) -> list[UUID] | None:
        """The projects in which the actor holds that right, None for all: `visible` for a statement that is made once.

        Counts as a check of it. Raises: Forbidden for a node.
        """
        self.checked = True
        if self.actor.kind is ActorKind.NODE:
            raise Forbidden("this is not for nodes")
        return None if self.actor.sees_all else self.actor.projects_with(permission)

    def execute(
        self, statement: Executable, values: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None
    ) -> CursorResult[*tuple[Any, ...]]:
        """Run a statement that brings columns, not entities: past the session, which costs more than the database does.

        On a busy path the statement is made once, by its module, with `bindparam` in place of what varies: making one
        costs as much again. Its lists are arrays (`= ANY`), so that it is the same text whatever their length.
        """
        return self.session.connection().execute(statement, values)

    def insert(self, rows: Sequence[Base]) -> None:
        """Store new rows of one kind that this unit changes no more, in one statement, past the session."""
        names = {name for row in rows for name in row.__dict__ if not name.startswith("_")}
        if rows:
            values = [{name: row.__dict__.get(name) for name in names} for row in rows]
            self.execute(insert(type(rows[0])), values)

    def copy(self, statement: LiteralString, types: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Store rows by a `COPY ... FROM STDIN (FORMAT BINARY)`, at half of what an INSERT costs; `types` as PostgreSQL names them.

        Raises: Unavailable for a connection that is lost.
        """
        driver: Any = self.session.connection().connection.driver_connection
        try:
            with driver.cursor() as cursor, cursor.copy(statement) as copied:
                copied.set_types(types)
                for row in rows:
                    copied.write_row(row)
        except psycopg.OperationalError as error:
            raise Unavailable("the database does not answer") from error

    def require(self, permission: Permission, project_id: UUID | None = None) -> None:
        """Raises NotFound if the actor has no part in the project, Forbidden if it lacks the right there."""
        self.checked = True
        if self.actor.holds(permission, project_id):
            return
        if project_id is not None and project_id not in self.actor.roles:
            raise NotFound(f"there is no project {project_id}")
        raise Forbidden(f"this takes the permission {permission}")

    def expect_version(self, row: Entity, version: int | None) -> None:
        """Raises StaleVersion if the caller read another version than the (locked) row has."""
        if version is not None and row.version != version:
            raise StaleVersion(f"version {version} was expected, {row.version} is there")

    def emit(self, kind: str, subject: Entity, **data: Any) -> None:
        """Record that something happened to `subject`, in this transaction."""
        if kind not in KINDS:
            raise ValueError(f"event kind {kind!r} is not in app/core/events.py")
        job_id = subject.id if subject.__tablename__ == "jobs" else getattr(subject, "job_id", None)
        data |= {name: str(value) for name in subject.told if (value := getattr(subject, name)) is not None}
        now = self.clock.now().isoformat()
        self._events.append(
            {
                "kind": kind,
                "at": now,
                "actor_kind": self.actor.kind,
                "actor_id": _text(self.actor.id),
                "actor_name": self.actor.name,
                "project_id": _text(getattr(subject, "project_id", None)),
                "subject_type": _noun(type(subject)),
                "subject_id": _text(subject.id),
                "job_id": _text(job_id),
                "data": data,
                "sent_at": None if kind in ANNOUNCED else now,
            }
        )

    def echo(self, job: Entity, ids: Sequence[UUID]) -> None:
        """What this unit told of a new job so far holds for the jobs of these ids as well."""
        told = [event for event in self._events if event["subject_id"] == str(job.id)]
        if told and ids:
            values = {"ids": list(ids), "events": json.dumps(told)}
            self.session.connection().exec_driver_sql(_ECHO, values)

    def move(self, subject: Any, state: StrEnum, **data: Any) -> None:
        """Change a state by its table: stamp the time, bump the version, emit `<noun>.<state>`.

        Raises: IllegalTransition where the table has no such move.
        """
        noun = _noun(type(subject))
        machine = MACHINES[noun]
        before = subject.state
        if not machine.allows(before, state):
            raise IllegalTransition(f"{noun} {subject.id} is {before}, which can't become {state}")
        subject.state = state
        subject.version += 1
        if column := machine.stamp(before, state):
            setattr(subject, column, self.clock.now())
        self.emit(f"{noun}.{state}", subject, before=str(before), after=str(state), **data)
        if noun == "job" and state in machine.ends:
            self.touch_job(subject.id)

    def touch_job(self, job_id: UUID) -> None:
        """Wake whoever follows this job, once the commit is through."""
        self._touched_jobs.add(job_id)

    def flush(self) -> None:
        """Send rows and events to the database; still undone by a rollback."""
        self.session.flush()
        wake = [(JOB_CHANNEL, str(job_id)) for job_id in self._touched_jobs]
        if any(event["sent_at"] is None for event in self._events):
            wake.append((WAKE_CHANNEL, ""))
        if self._events or wake:
            told = {"events": json.dumps(self._events), "wake": json.dumps(wake)}
            self.session.connection().exec_driver_sql(_TELL, told)
        self._events.clear()
        self._touched_jobs.clear()

    def commit(self) -> None:
        """Flush and commit; called by `run` alone."""
        self.flush()
        self.session.commit()


def run(sessions: sessionmaker[Session], actor: Actor, act: Callable[[UnitOfWork], R]) -> R:
    """Open a unit, act, commit. A deadlock, a serialisation failure or a lost connection re-runs the whole.

    Raises: what `act` raises, after rolling back; Unavailable when the database does not answer.
    """
    for attempt in range(ATTEMPTS):
        with sessions() as session:
            uow = UnitOfWork(session, actor)
            try:
                result = act(uow)
                uow.commit()
            except PoolTimeout as error:
                raise Unavailable("every database connection is in use") from error
            except DBAPIError as error:
                _roll_back(session)
                if not _is_passing(error):
                    raise
                if attempt == ATTEMPTS - 1:
                    raise Unavailable("the database does not answer") from error
            else:
                return result
    raise AssertionError("unreachable")


def _roll_back(session: Session) -> None:
    with suppress(DBAPIError):  # the connection may be gone, and with it the transaction
        session.rollback()


def _is_passing(error: DBAPIError) -> bool:
    transient = (
        pg.DeadlockDetected,
        pg.SerializationFailure,
        pg.LockNotAvailable,
        pg.AdminShutdown,
        pg.CannotConnectNow,
    )
    return error.connection_invalidated or isinstance(error, OperationalError) or isinstance(error.orig, transient)


def _text(id: UUID | None) -> str | None:  # noqa: A002  # the field's word
    return None if id is None else str(id)


def _noun(model: type[Any]) -> str:
    name = str(model.__tablename__)
    return f"{name[:-3]}y" if name.endswith("ies") else name.removesuffix("s")
