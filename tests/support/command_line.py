"""Runs `trellis` in the process, against the fake API."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.support.fake_api import URL, FakeApi
from trellis.cli.context import Here
from trellis.cli.root import app


class CommandLine:
    """One person's terminal: an API, a home, a working directory."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.api, self.home, self.work = FakeApi(), home, home / "work"
        self.work.mkdir()
        monkeypatch.chdir(self.work)
        for name in ("XDG_CONFIG_HOME", "TRELLIS_API_KEY_FILE", "TRELLIS_HOME"):
            monkeypatch.delenv(name, raising=False)
        for name, value in {"HOME": str(home), "TRELLIS_URL": URL, "TRELLIS_API_KEY": "tk", "COLUMNS": "100"}.items():
            monkeypatch.setenv(name, value)

    def run(self, *words: str, typed: str | None = None) -> Any:
        """The result: `exit_code`, `stdout`, `stderr`."""
        return CliRunner().invoke(app, list(words), input=typed, obj=Here(http=self.api), prog_name="trellis")
