"""Fixtures of all tests: real servers for the session, and over them an application with an empty database."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from app.metadata import metadata
from tests.support.databases import create_database
from tests.support.services import Services
from tests.support.stack import Stack
from tests.support.stage_runs import Workbench
from tests.support.world import World, a_world

pytest_plugins = ["tests.support.services", "tests.support.engine"]


def pytest_collection_finish() -> None:
    """Set aside what collecting made, modules above all: it stays, and is not to be looked through for garbage again."""
    gc.freeze()


def pytest_unconfigure() -> None:
    """Give it back: libraries that count what they made at the end call what is set aside a leak."""
    gc.unfreeze()


@pytest.fixture(scope="session")
def _stack(services: Services, worker_id: str) -> Iterator[Stack]:
    url = create_database(services.database_url, f"trellis_{worker_id}")
    engine = create_engine(url)
    metadata.create_all(engine)
    engine.dispose()
    stack = Stack(url)
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


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    """A folder in which stages of pipelines run."""
    return Workbench(tmp_path)
