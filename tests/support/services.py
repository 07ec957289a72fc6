"""One real PostgreSQL and one real Valkey for the whole test session, shared by all its xdist workers.

A pytest plugin, loaded by `tests/conftest.py`; tests take the fixture `services`.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
READY_S = 90.0
_FOLDER = pytest.StashKey[Path]()
_PROCESS = pytest.StashKey["subprocess.Popen[bytes]"]()


@dataclass(frozen=True, slots=True)
class Services:
    """Where the session's servers are; the database's role may create databases."""

    database_url: str
    broker_url: str


def pytest_configure(config: pytest.Config) -> None:
    """Start the servers beside the collection; a worker of xdist is told where they are."""
    worker: dict[str, Any] | None = getattr(config, "workerinput", None)
    if worker is not None:
        config.stash[_FOLDER] = Path(worker["services_folder"])
    elif not config.option.collectonly:
        folder = Path(tempfile.mkdtemp(prefix="trellis-test-"))
        config.stash[_FOLDER] = folder
        config.stash[_PROCESS] = subprocess.Popen(
            [sys.executable, "-m", "tests.support.servers", folder],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C ends the tests first
        )


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell an xdist worker, before it starts, where the servers are."""
    node.workerinput["services_folder"] = str(node.config.stash[_FOLDER])


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the servers with the session that started them."""
    if process := config.stash.get(_PROCESS, None):
        process.communicate(timeout=60)


@pytest.fixture(scope="session")
def services(pytestconfig: pytest.Config) -> Services:
    """The session's servers, once they answer."""
    file = pytestconfig.stash[_FOLDER] / "servers.json"
    wait_until(file.exists, READY_S, "PostgreSQL and Valkey for the tests")
    found = json.loads(file.read_text())
    if "error" in found:
        pytest.fail(found["error"], pytrace=False)
    return Services(found["database_url"], found["broker_url"])


def wait_until(condition: Callable[[], object], within_s: float, what: str) -> None:
    """Wait for a condition of another process; AssertionError names `what` when it does not come."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {within_s:.0f} s for {what}"
        time.sleep(0.02)
