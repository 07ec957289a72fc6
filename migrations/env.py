"""How Alembic reaches the database: by the settings, or by a connection that is handed in."""

import os

from alembic import context
from sqlalchemy import Connection, create_engine

from app.core.db import normal_url
from app.metadata import metadata


def migrate(connection: Connection) -> None:
    """Run what was asked for, in one transaction."""
    context.configure(connection=connection, target_metadata=metadata, compare_type=True, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()


if (given := context.config.attributes.get("connection")) is not None:
    migrate(given)
else:
    url = context.config.attributes.get("url") or os.environ["TRELLIS_DATABASE_URL"]
    with create_engine(normal_url(url)).connect() as connection:
        migrate(connection)
