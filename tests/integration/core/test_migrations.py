"""The migrations make what the models say, and can be undone."""

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import CheckConstraint, create_engine, inspect

from app.cli.bootstrap import migrate, migration_config
from app.metadata import metadata
from tests.support.databases import create_database
from tests.support.services import Services


@pytest.fixture
def empty_database(services: Services, worker_id: str) -> str:
    return create_database(services.database_url, f"migrations_{worker_id}")


def test_migrating_an_empty_database_gives_what_the_models_say(empty_database: str) -> None:
    migrate(empty_database)
    with create_engine(empty_database).connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        made = inspect(connection)
        checks = {check["name"] for table in metadata.tables for check in made.get_check_constraints(table)}
    declared = {
        str(constraint.name)
        for table in metadata.tables.values()
        for constraint in table.constraints
        if isinstance(constraint, CheckConstraint)
    }
    assert checks == declared


def test_migrations_go_down_to_nothing_and_up_again(empty_database: str) -> None:
    migrate(empty_database)
    command.downgrade(migration_config(empty_database), "base")
    engine = create_engine(empty_database)
    assert set(inspect(engine).get_table_names()) <= {"alembic_version"}
    engine.dispose()
    migrate(empty_database)
