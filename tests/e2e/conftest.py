"""One platform shared by all tests that leave it as they found it."""

from collections.abc import Iterator

import pytest

from tests.support.platform import Platform, running


@pytest.fixture(scope="session")
def platform() -> Iterator[Platform]:
    """A platform as `trellis up` starts it, with the strongest isolation that this machine has."""
    with running(TRELLIS_CPUS="8") as found:
        yield found
