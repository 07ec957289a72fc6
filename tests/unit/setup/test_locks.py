import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LOCKS = sorted(path.name for path in (ROOT / "requirements").glob("*.txt"))
PIN = re.compile(r"[a-z0-9][a-z0-9.-]*(\[[a-z,]+\])?==\S+( ; .+)? \\")
HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_file_holds_pins_and_hashes_and_no_address(name: str) -> None:
    lines = (ROOT / "requirements" / name).read_text().splitlines()
    assert not [line for line in lines if not PIN.fullmatch(line) and not HASH.fullmatch(line)]


def test_images_get_the_versions_that_were_tested() -> None:
    tested = pins("dev.txt")
    for name in ("server.txt", "node.txt"):
        assert pins(name).items() <= tested.items()


def test_what_pyproject_asks_for_is_locked() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    wanted = {re.split(r"[\[<>=]", line)[0] for lines in extras.values() for line in lines} - {"trellis"}
    assert wanted <= pins("dev.txt").keys() | pins("spark.txt").keys()


def pins(name: str) -> dict[str, str]:
    text = (ROOT / "requirements" / name).read_text()
    return dict(re.findall(r"^([a-z0-9.-]+)(?:\[[a-z,]+\])?==(\S+)", text, re.MULTILINE))
