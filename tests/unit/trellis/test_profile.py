import json
import os
import stat
from pathlib import Path

import pytest

from trellis import profile
from trellis.profile import DEFAULT_URL, Profile, read, resolve, write
from trellis.settings import SettingsError

SAVED = Profile("https://saved.test", "tk_saved", "k1")
LOCAL = Profile("http://127.0.0.1:8420", "tk_local")


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path / "home")}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(profile, "MACHINE_HOME", tmp_path / "var")
    (tmp_path / "work" / ".trellis").mkdir(parents=True)
    return tmp_path / "work"


def save(env: dict[str, str]) -> None:
    write(profile.user_file(env), SAVED)


def put_local(here: Path) -> None:
    (here / ".trellis" / "client.json").write_text(json.dumps({"url": LOCAL.url, "api_key": LOCAL.api_key}))


def test_with_nothing_said_it_is_this_machine_and_nobody(env: dict[str, str], here: Path) -> None:
    assert resolve(env, here) == Profile(DEFAULT_URL)


def test_arguments_go_over_environment_over_login_over_directory(env: dict[str, str], here: Path) -> None:
    put_local(here)
    assert resolve(env, here) == LOCAL
    save(env)
    assert resolve(env, here) == SAVED
    env |= {"TRELLIS_URL": "https://env.test", "TRELLIS_API_KEY": "tk_env"}
    assert resolve(env, here) == Profile("https://env.test", "tk_env")
    assert resolve(env, here, "https://arg.test", "tk_arg") == Profile("https://arg.test", "tk_arg")


def test_a_key_from_the_environment_goes_to_the_url_that_the_user_signed_in_to(env: dict[str, str], here: Path) -> None:
    save(env)
    assert resolve({**env, "TRELLIS_API_KEY": "tk_env"}, here) == Profile(SAVED.url, "tk_env")


def test_a_saved_key_never_goes_to_another_url(env: dict[str, str], here: Path) -> None:
    save(env)
    put_local(here)
    assert resolve({**env, "TRELLIS_URL": "https://evil.test"}, here) == Profile("https://evil.test")
    assert resolve(env, here, url="https://saved.test/") == SAVED


def test_a_directory_never_gets_the_callers_own_key_or_password(env: dict[str, str], here: Path) -> None:
    put_local(here)
    assert resolve({**env, "TRELLIS_API_KEY": "tk_env"}, here) == Profile(DEFAULT_URL, "tk_env")
    assert resolve(env, here, has_password=True) == Profile(DEFAULT_URL)


def test_what_a_stack_left_is_found_in_its_home(env: dict[str, str], here: Path, tmp_path: Path) -> None:
    (tmp_path / "var").mkdir()
    write(tmp_path / "var" / "client.json", LOCAL)
    assert resolve(env, here) == LOCAL
    put_local(here)
    write(tmp_path / "other" / "client.json", SAVED)
    assert resolve({**env, "TRELLIS_HOME": str(tmp_path / "other")}, here) == SAVED
    assert resolve({**env, "TRELLIS_HOME": str(tmp_path / "empty")}, here) == Profile(DEFAULT_URL)


def test_a_stack_is_found_from_a_folder_below_it(env: dict[str, str], here: Path) -> None:
    put_local(here)
    (here / "deep" / "down").mkdir(parents=True)
    assert resolve(env, here / "deep" / "down") == LOCAL


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_that_a_stranger_left_is_not_taken(
    env: dict[str, str], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_local(here)
    os.chown(here / ".trellis" / "client.json", 4242, 4242)
    assert resolve(env, here) == Profile(DEFAULT_URL)
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    assert resolve(env, here) == LOCAL


def test_a_key_may_stand_in_a_file_that_the_environment_names(env: dict[str, str], here: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("tk_file\n")
    assert resolve({**env, "TRELLIS_API_KEY_FILE": str(tmp_path / "key")}, here).api_key == "tk_file"
    with pytest.raises(SettingsError, match="TRELLIS_API_KEY_FILE names"):
        resolve({**env, "TRELLIS_API_KEY_FILE": "/nowhere"}, here)


def test_the_file_is_for_its_owner_alone_and_replaced_as_a_whole(tmp_path: Path) -> None:
    file = tmp_path / "config" / "trellis" / "config.json"
    write(file, LOCAL)
    file.chmod(0o644)
    write(file, SAVED)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert read(file) == SAVED
    assert [path.name for path in file.parent.iterdir()] == ["config.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '"x"', "\x00"])
def test_a_damaged_file_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(SettingsError, match="is damaged: delete it"):
        read(tmp_path / "config.json")


def test_the_place_follows_the_desktops_convention() -> None:
    assert profile.user_file({"XDG_CONFIG_HOME": "/x"}) == Path("/x/trellis/config.json")
    assert profile.user_file({"HOME": "/home/ada"}) == Path("/home/ada/.config/trellis/config.json")
