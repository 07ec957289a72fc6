"""What an integration test works with: real rows, real units of work, races, and a client of the API."""

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker
from werkzeug.datastructures import Headers

from app.core.access import SYSTEM, Actor
from app.core.crypto import Keyring
from app.core.events import Event
from app.core.settings import Settings
from app.core.tables import Base
from app.core.uow import UnitOfWork, run
from app.factory import create_app
from app.http.transaction import TransactionalFlask
from app.scheduling.cycle import Outcome, run_cycle
from app.scheduling.mirror import Mirror
from app.tenancy import actors
from app.tenancy.models import User
from app.tenancy.sessions import SignIns
from app.tenancy.tokens import AccessTokens
from trellis.errors import TrellisError

R = TypeVar("R")
Row = TypeVar("Row", bound=Base)
SECRET_KEY = "the secret key of the tests, long enough"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the API said."""

    status: int
    json: Any
    headers: Headers
    text: str


class Caller:
    """Flask's test client, with one credential and paths below /api/v1."""

    def __init__(self, app: TransactionalFlask, credential: str | None) -> None:
        self._client = app.test_client()
        self.credential = credential
        self.headers = {"Authorization": f"Bearer {credential}"} if credential else {}

    def get(self, path: str, **options: Any) -> Answer:
        """GET; `query_string={...}` for parameters."""
        return self.call("GET", path, **options)

    def post(self, path: str, body: Any = None, **options: Any) -> Answer:
        """POST a JSON body."""
        return self.call("POST", path, json={} if body is None else body, **options)

    def put(self, path: str, body: Any = None, **options: Any) -> Answer:
        """PUT a JSON body."""
        return self.call("PUT", path, json={} if body is None else body, **options)

    def patch(self, path: str, body: Any, **options: Any) -> Answer:
        """PATCH with a JSON body."""
        return self.call("PATCH", path, json=body, **options)

    def delete(self, path: str, **options: Any) -> Answer:
        """DELETE."""
        return self.call("DELETE", path, **options)

    def call(self, method: str, path: str, headers: Mapping[str, str] | None = None, **options: Any) -> Answer:
        """Any method; `headers` are added to the credential's."""
        address = path if path.startswith(("/api/", "/v1/", "/healthz", "/docs")) else f"/api/v1{path}"
        response = self._client.open(address, method=method, headers={**self.headers, **(headers or {})}, **options)
        text = response.get_data().decode(errors="replace")  # some answers are no text
        return Answer(response.status_code, response.get_json(silent=True), response.headers, text)


class Stack:
    """One database with all tables, and the application over it."""

    def __init__(self, database_url: str, secret_key: str = SECRET_KEY) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="trellis-store-")
        self.store_path = Path(self._folder.name) / "store"
        self.settings = Settings(
            database_url, "redis://127.0.0.1:1/0", secret_key, database_pool=80, store_url=self.store_path.as_uri()
        )
        self.app = create_app(self.settings)
        self.sessions: sessionmaker[Session] = self.app.extensions["sessions"]
        self.keyring: Keyring = self.app.extensions["keyring"]
        self.mirror = Mirror()

    def cycle(self, uow: UnitOfWork) -> Outcome:
        """A scheduling cycle as a worker would run it that has run all others of this test."""
        return run_cycle(uow, self.mirror)

    def run(self, act: Callable[[UnitOfWork], R], actor: Actor = SYSTEM) -> R:
        """Act in a unit of work of its own, and commit."""
        return run(self.sessions, actor, act)

    def add(self, row: Row) -> Row:
        """Store a row that a builder made."""
        self.run(lambda uow: uow.session.add(row))
        return row

    def race(self, act: Callable[[UnitOfWork], R], times: int, actor: Actor = SYSTEM) -> "list[R | Exception]":
        """Act in so many units at the same moment; what each returned or raised."""
        start = threading.Barrier(times)

        def attempt(_: int) -> R | Exception:
            start.wait(30)
            try:
                return self.run(act, actor)
            except (TrellisError, DBAPIError) as error:
                return error

        with ThreadPoolExecutor(times) as pool:
            return list(pool.map(attempt, range(times)))

    def actor(self, user: User) -> Actor:
        """The user as the actor of a unit, with the roles they hold now."""
        return self.run(lambda uow: actors.of_user(uow, user.id))

    def client(self, user: User | None = None, *, credential: str | None = None) -> Caller:
        """A caller signed in as `user`, or with a raw `credential`, or nobody."""
        if user is not None:
            credential = self.run(lambda uow: AccessTokens(self.keyring).issue(user, uow.clock.now()))
        return Caller(self.app, credential)

    def events_of(self, subject_id: UUID) -> list[str]:
        """The kinds of events about a subject, in order."""
        kinds = select(Event.kind).where(Event.subject_id == subject_id).order_by(Event.id)
        return self.run(lambda uow: list(uow.session.execute(kinds).scalars()))

    def dump(self) -> str:
        """Every row of every table as text."""
        tables = [f'SELECT to_jsonb(t)::text AS row FROM "{table.name}" t' for table in Base.metadata.sorted_tables]
        rows = text(f"{' UNION ALL '.join(tables)} ORDER BY row")
        return self.run(lambda uow: "\n".join(uow.session.execute(rows).scalars()))

    def wait_until(self, holds: Callable[[], bool], within_s: float = 10.0) -> None:
        """Ask again and again until it holds."""
        deadline = time.monotonic() + within_s
        while not holds():
            assert time.monotonic() < deadline, "it did not come true in time"
            time.sleep(0.02)

    def clear(self) -> None:
        """Empty all tables and the store, and forget who tried to sign in."""
        for kept in ("packs", "manifests", "artifacts"):
            shutil.rmtree(self.store_path / kept, ignore_errors=True)
        self.app.extensions["sign_ins"] = SignIns(self.keyring)
        self.mirror = Mirror()
        self.run(_empty)

    def close(self) -> None:
        """Let go of the connections."""
        self.app.extensions["engine"].dispose()
        self._folder.cleanup()


def _empty(uow: UnitOfWork) -> None:
    """Delete all rows, which takes a moment where there are few; what has grown large is truncated instead."""
    names = [table.name for table in reversed(Base.metadata.sorted_tables)]
    large = text("SELECT relname FROM pg_class WHERE relname = ANY(:names) AND pg_relation_size(oid) > 1048576")
    grown = list(uow.session.execute(large, {"names": names}).scalars())
    if grown:
        uow.session.execute(text("TRUNCATE {} CASCADE".format(", ".join(f'"{name}"' for name in grown))))
    uow.session.execute(text("; ".join(f'DELETE FROM "{name}"' for name in names)))
