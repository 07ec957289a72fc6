import json
import os
import stat
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import pytest

from app.cli.accounts import Account, current, may_enter
from app.cli.errors import StackError
from app.cli.home import FALLBACK, Home, choose_home, holder, only_one, open_home

STRANGER = Account("stranger", 54321, 54321)


def opened(path: Path) -> Home:
    return open_home(path, current(), current(), "0.1.0")


def test_a_home_is_made_with_its_folders_and_stamped(tmp_path: Path) -> None:
    home = opened(tmp_path / "home")
    assert json.loads((home.path / "stamp.json").read_text()) == {"layout": 1, "trellis": "0.1.0"}
    assert home.logs.is_dir()
    assert stat.S_IMODE(home.path.stat().st_mode) == 0o711


def test_a_home_of_an_older_trellis_is_taken_and_stamped_anew(tmp_path: Path) -> None:
    (tmp_path / "stamp.json").write_text('{"layout": 1, "trellis": "0.0.9"}')
    opened(tmp_path)
    assert json.loads((tmp_path / "stamp.json").read_text())["trellis"] == "0.1.0"


def test_a_home_of_a_newer_trellis_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    stamp = '{"layout": 2, "trellis": "3.0"}'
    (tmp_path / "stamp.json").write_text(stamp)
    with pytest.raises(StackError, match=r"last used by Trellis 3\.0.*TRELLIS_HOME"):
        opened(tmp_path)
    assert (tmp_path / "stamp.json").read_text() == stamp
    assert [file.name for file in tmp_path.iterdir()] == ["stamp.json"]


def test_a_damaged_stamp_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "stamp.json").write_text("{")
    with pytest.raises(StackError, match=r"stamp\.json is damaged"):
        opened(tmp_path)


def test_a_home_that_can_not_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StackError, match=r"can't be used: Not a directory\. Set TRELLIS_HOME"):
        opened(tmp_path / "file" / "home")


def test_a_full_disk_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=3 * 2**20))
    with pytest.raises(StackError, match="has 3 MiB left"):
        opened(tmp_path)


def test_a_home_that_the_servers_can_not_reach_is_a_sentence(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with pytest.raises(StackError, match=r"run as stranger.*can't reach"):
        open_home(tmp_path / "home", STRANGER, current(), "0.1.0")


def test_one_process_holds_a_home(tmp_path: Path) -> None:
    home = opened(tmp_path)
    assert holder(tmp_path) is None
    with only_one(home):
        assert holder(tmp_path) == os.getpid()
        with pytest.raises(StackError, match=rf"already runs on .* \(pid {os.getpid()}\)"), only_one(home):
            pass
    assert holder(tmp_path) is None
    with only_one(home):
        pass


def test_a_secret_is_made_once_and_private(tmp_path: Path) -> None:
    home = opened(tmp_path)
    first = home.secret("secret_key", current())
    assert len(first) >= 32
    assert home.secret("secret_key", current()) == first
    assert home.secret("other", current()) != first
    assert stat.S_IMODE((tmp_path / "secrets" / "secret_key").stat().st_mode) == 0o600


def test_a_private_port_is_remembered(tmp_path: Path) -> None:
    home = opened(tmp_path)
    assert home.port("postgres") == home.port("postgres")
    assert home.port("valkey", avoid=(home.port("postgres"),)) != home.port("postgres")


def test_home_is_what_the_environment_says_else_the_nearest_else_a_new_one_here() -> None:
    with TemporaryDirectory() as folder:
        here = Path(folder).resolve() / "deep" / "down"
        here.mkdir(parents=True)
        assert choose_home("/some/where", here, current()) == Path("/some/where")
        assert choose_home(None, here, current()) == here / ".trellis"
        stamp = Path(folder).resolve() / ".trellis" / "stamp.json"
        stamp.parent.mkdir()
        stamp.write_text("{}")
        assert choose_home(None, here, current()) == stamp.parent


def test_where_the_servers_account_can_not_come_the_home_is_a_system_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    assert choose_home(None, tmp_path, STRANGER) == FALLBACK


@pytest.mark.parametrize(
    ("mode", "account", "allowed"),
    [
        (0o711, STRANGER, True),
        (0o710, STRANGER, False),
        (0o700, STRANGER, False),
        (0o600, Account("root", 0, 0), True),
    ],
)
def test_who_may_enter_a_folder_is_read_from_its_bits(mode: int, account: Account, allowed: bool) -> None:
    with TemporaryDirectory() as folder:
        Path(folder).chmod(mode)
        assert may_enter(Path(folder), account) is allowed
