import os
from pathlib import Path

import psutil
import pytest

from app.cli import state, status


def test_a_service_that_ends_while_one_looks_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(process: psutil.Process, *, recursive: bool = False) -> list[psutil.Process]:
        assert recursive
        raise psutil.NoSuchProcess(process.pid)

    monkeypatch.setattr(psutil.Process, "children", ended)
    process = psutil.Process()
    entry = state.Entry(
        name="api",
        state="running",
        account="",
        url="",
        restarts=0,
        reason="",
        stop_signal=15,
        log="",
        pid=process.pid,
        began=0.0,
    )
    monkeypatch.setattr(state, "process_of", lambda _: process)
    monkeypatch.setattr(state, "read", lambda _: state.StackState(entries=(entry,)))
    (row,) = status.look(tmp_path).services
    assert (row.name, row.pid) == ("api", os.getpid())
