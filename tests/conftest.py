"""Fixtures of all tests: one database server a test process, started by the first test that needs it."""

from collections.abc import Iterator

import pytest
from sqlalchemy import create_engine

from app.metadata import metadata
from tests.support.postgres import Postgres, running_postgres
from tests.support.stack import Stack
from tests.support.world import World, a_world


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A real PostgreSQL whose database `template_trellis` has all tables."""
    with running_postgres() as server:
        engine = create_engine(server.create("template_trellis"))
        metadata.create_all(engine)
        engine.dispose()
        yield server


@pytest.fixture(scope="session")
def _stack(postgres: Postgres) -> Iterator[Stack]:
    stack = Stack(postgres.create("trellis_test", template="template_trellis"))
    yield stack
    stack.close()


@pytest.fixture
def stack(_stack: Stack) -> Stack:
    """The application over an empty database."""
    _stack.clear()
    return _stack


@pytest.fixture
def world(stack: Stack) -> World:
    """The stack with one project, its people and a stranger in it."""
    return a_world(stack)
