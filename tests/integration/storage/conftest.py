"""A store of each test's own."""

from pathlib import Path

import pytest

from tests.support.stack import Stack
from trellis.stores.local import LocalStore


@pytest.fixture
def store(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
    """What the application keeps bytes in."""
    made = LocalStore(tmp_path / "store")
    monkeypatch.setitem(stack.app.extensions, "store", made)
    return made
