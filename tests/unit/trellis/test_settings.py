from dataclasses import dataclass
from pathlib import Path

import pytest

from trellis.settings import SettingsError, load, names


@dataclass(frozen=True)
class Wiring:
    secret_key: str
    port: int = 8420
    ratio: float = 0.5
    loud: bool = False
    home: Path = Path(".trellis")


def test_environment_goes_over_file_and_file_over_default(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('secret_key = "from file"\nport = 1\nloud = true\n')
    found = load(Wiring, {"TRELLIS_PORT": "2"}, file)
    assert found == Wiring("from file", 2, 0.5, True)


def test_a_secret_may_stand_in_a_file_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("hush\n")
    assert load(Wiring, {"TRELLIS_SECRET_KEY_FILE": str(file)}).secret_key == "hush"


def test_a_secret_file_that_is_not_there_is_named() -> None:
    with pytest.raises(SettingsError, match="TRELLIS_SECRET_KEY_FILE names /nowhere, which can't be read"):
        load(Wiring, {"TRELLIS_SECRET_KEY_FILE": "/nowhere"})


def test_a_setting_without_default_must_be_there() -> None:
    with pytest.raises(SettingsError, match="TRELLIS_SECRET_KEY is not set"):
        load(Wiring, {})


@pytest.mark.parametrize(("name", "text"), [("PORT", "many"), ("RATIO", "half"), ("LOUD", "yes, please")])
def test_a_setting_of_the_wrong_type_is_named(name: str, text: str) -> None:
    with pytest.raises(SettingsError, match=f"TRELLIS_{name} must be of type"):
        load(Wiring, {"TRELLIS_SECRET_KEY": "x", f"TRELLIS_{name}": text})


def test_every_type_is_read() -> None:
    env = {"TRELLIS_SECRET_KEY": "x", "TRELLIS_RATIO": "1.5", "TRELLIS_LOUD": "1", "TRELLIS_HOME": "/srv"}
    assert load(Wiring, env) == Wiring("x", 8420, 1.5, True, Path("/srv"))


def test_the_names_of_all_variables_can_be_listed() -> None:
    assert len(names(Wiring)) == 2 * 5
    assert {"TRELLIS_SECRET_KEY", "TRELLIS_SECRET_KEY_FILE", "TRELLIS_HOME"} <= names(Wiring)
