"""One platform shared by all tests that leave it as they found it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.platform import Platform, running


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each test may have to start a platform or two, on a machine that may be busy."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(300))


@pytest.fixture(scope="session")
def platform() -> Iterator[Platform]:
    """A platform as `trellis up` starts it, with the strongest isolation that this machine has."""
    with running(TRELLIS_CPUS="8") as found:
        yield found
