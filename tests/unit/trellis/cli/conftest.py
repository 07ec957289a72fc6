from pathlib import Path

import pytest

pytest.importorskip("typer", reason="the extra `cli` is not installed")

from tests.support.command_line import CommandLine  # after the check that it is there


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    return CommandLine(tmp_path, monkeypatch)
