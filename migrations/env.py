"""How Alembic reaches the database: by the settings, or by a connection that is handed in."""

import os
from typing import Any, Literal

from alembic import context
from sqlalchemy import Connection, create_engine

from app.core.db import normal_url
from app.core.tables import Word
from app.metadata import metadata


def render(kind: str, value: Any, _: object) -> str | Literal[False]:
    """A migration stands for itself: words of the vocabulary are text in it, whatever they come to be called."""
    return f"sa.String({value.impl.length})" if kind == "type" and isinstance(value, Word) else False


def migrate(connection: Connection) -> None:
    """Run what was asked for, each migration in a transaction of its own."""
    context.configure(
        connection=connection,
        target_metadata=metadata,
        compare_type=True,
        transaction_per_migration=True,
        render_item=render,
    )
    with context.begin_transaction():
        context.run_migrations()


if (given := context.config.attributes.get("connection")) is not None:
    migrate(given)
else:
    url = context.config.attributes.get("url") or os.environ["TRELLIS_DATABASE_URL"]
    with create_engine(normal_url(url)).connect() as connection:
        migrate(connection)
