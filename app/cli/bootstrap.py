"""Brings the database to the present schema and hands out what the first start needs.

Run as a process of its own (`python -m app.cli.bootstrap`), so that the supervisor, which lives as long as the stack,
never loads the platform. Reads one JSON object from standard input and writes one to standard output: neither
passwords nor tokens are ever arguments.
"""

import json
import os
import sys
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from sqlalchemy import select

import migrations
from app.admin.bootstrap import ensure_admin
from app.cli.grants import ADMIN, Grant, Wish
from app.core.access import SYSTEM
from app.core.crypto import Keyring
from app.core.db import libpq_url, make_engine, make_sessions
from app.core.locks import lock_number
from app.core.settings import Settings
from app.core.uow import UnitOfWork, run
from app.resources.nodes import create_join_token
from app.tenancy import actors
from app.tenancy.api_keys import ApiKeySpec, create_own_key
from app.tenancy.models import User
from trellis.errors import Unavailable
from trellis.settings import load

JOIN_S = 86_400


def bootstrap(wish: Wish, settings: Settings) -> Grant:
    """All steps in order; each is safe to repeat."""
    migrate(settings.database_url)
    engine = make_engine(settings)
    try:
        return run(make_sessions(engine), SYSTEM, lambda uow: _grant(uow, Keyring(settings.secret_key), wish))
    finally:
        engine.dispose()


def migrate(database_url: str) -> None:
    """Bring the schema to the newest revision; several at once wait for each other. Raises Unavailable."""
    config = migration_config(database_url)
    try:
        connection = psycopg.connect(libpq_url(database_url), autocommit=True)
    except psycopg.OperationalError as error:
        raise Unavailable(f"the database does not answer: {error}") from error
    with closing(connection) as guard:
        guard.execute("SELECT pg_advisory_lock(%s)", (lock_number("migrations"),))
        command.upgrade(config, "head")


def migration_config(database_url: str) -> Config:
    """Alembic, pointed at our scripts and that database."""
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.attributes["url"] = database_url
    return config


def _grant(uow: UnitOfWork, keyring: Keyring, wish: Wish) -> Grant:
    password = ensure_admin(uow, ADMIN)
    return Grant(
        password=password,
        api_key=_admin_api_key(uow, keyring) if wish.client_key else None,
        join_tokens={name: create_join_token(uow, keyring, name, JOIN_S)[1] for name in wish.nodes},
    )


def _admin_api_key(uow: UnitOfWork, keyring: Keyring) -> str:
    """A new API key of the administrator for the commands on this machine."""
    first = select(User.id).where(User.platform_admin, User.disabled_at.is_(None)).order_by(User.created_at).limit(1)
    uow.actor = actors.of_user(uow, uow.session.execute(first).scalar_one())
    return create_own_key(uow, keyring, ApiKeySpec("this machine")).key


def main() -> None:
    """Entry of the process."""
    asked = json.load(sys.stdin)
    wish = Wish(tuple(asked["nodes"]), bool(asked["client_key"]))
    grant = bootstrap(wish, load(Settings, os.environ))
    json.dump(asdict(grant), sys.stdout)


if __name__ == "__main__":
    main()
