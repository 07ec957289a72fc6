"""One platform shared by all tests that leave it as they found it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.engine import why_not
from tests.support.platform import Platform, running


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each test may have to start a platform or two, on a machine that may be busy.

    Those that share one run on one worker (`--dist loadgroup`), so that there is one; else a file's stay together.
    """
    for item in items:
        if isinstance(item, pytest.Function) and item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(300))
            shares = "platform" in item.fixturenames and not hasattr(item.module, "platform")
            item.add_marker(pytest.mark.xdist_group("shared" if shares else item.path.stem))


@pytest.fixture(scope="session")
def platform(request: pytest.FixtureRequest) -> Iterator[Platform]:
    """A platform as `trellis up` starts it, with the strongest isolation and the containers that this machine has."""
    socket = "none" if why_not() else request.getfixturevalue("container_engine").socket
    with running(TRELLIS_CPUS="8", TRELLIS_CONTAINER_SOCKET=socket) as found:
        yield found
