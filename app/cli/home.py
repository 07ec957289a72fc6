"""The folder in which one stack lives: what is in it, who may use it, and which version wrote it."""

import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.cli.accounts import Account, give, give_all, may_enter
from app.cli.errors import StackError
from app.cli.files import make_folder, write_private
from app.cli.ports import free_port

LAYOUT = 1  # grows when an older Trellis could not use the folder any more
FALLBACK = Path("/var/lib/trellis")
LEAST_FREE_BYTES = 512 * 2**20


@dataclass(frozen=True, slots=True)
class Home:
    """A folder that `open_home` found usable."""

    path: Path

    @property
    def logs(self) -> Path:
        """One file a service."""
        return self.path / "logs"

    @property
    def state(self) -> Path:
        """What runs, as its supervisor last saw it."""
        return self.path / "state.json"

    @property
    def client(self) -> Path:
        """The URL and key with which commands on this machine sign in."""
        return self.path / "client.json"

    @property
    def server(self) -> Path:
        """What the control plane's processes may write to; all else here is the supervisor's."""
        return self.path / "server"

    def node(self, name: str) -> Path:
        """Where a node of this stack keeps its jobs."""
        return self.path / "nodes" / name

    def secret(self, name: str, owner: Account) -> str:
        """The secret of that name, made at random the first time, readable by `owner` alone."""
        path = self.path / "secrets" / name
        if not path.exists():
            self.keep_secret(name, secrets.token_hex(32), owner)
        give(path, owner)
        return path.read_text().strip()

    def keep_secret(self, name: str, text: str, owner: Account) -> Path:
        """Write a secret down where `owner` alone can read it."""
        # Owners differ from file to file: all may pass through the folder, none may list it.
        folder = make_folder(self.path / "secrets", mode=0o711)
        return write_private(folder / name, text, owner)

    def port(self, name: str, avoid: tuple[int, ...] = ()) -> int:
        """The private port of a server: the one it had, if that is still free."""
        file = self.path / "ports.json"
        known: dict[str, int] = json.loads(file.read_text()) if file.exists() else {}
        port = free_port(known.get(name), avoid)
        write_private(file, json.dumps(known | {name: port}))
        return port


def choose_home(env_home: str | None, directory: Path, account: Account) -> Path:
    """The folder meant by `TRELLIS_HOME`, else the nearest `.trellis` from `directory` upwards, else a new one there.

    Root's own folders are closed to the account that the servers run as: then it is `/var/lib/trellis`.
    """
    if env_home:
        return Path(env_home).expanduser().absolute()
    for folder in (directory, *directory.parents):
        if (folder / ".trellis" / "stamp.json").exists():
            return folder / ".trellis"
    return directory / ".trellis" if may_enter(directory, account) else FALLBACK


def open_home(path: Path, servers: Account, services: Account, version: str) -> Home:
    """Make the folder, or take it as an older or equal Trellis left it.

    Raises: StackError when it can't be used: closed, full, or from a newer Trellis.
    """
    try:
        # Passable for the accounts that servers and services run as; only we may put something here.
        make_folder(path, mode=0o711)
        _check_stamp(path / "stamp.json", version)
        for folder in ("logs", "nodes"):
            make_folder(path / folder, mode=0o700)
        make_folder(path / "bin", mode=0o755)
        # The services' account changes with the Python that they run on.
        give_all(make_folder(path / "server"), services)
    except OSError as error:
        raise StackError(
            f"{path} can't be used: {error.strerror}. Set TRELLIS_HOME to a folder you may write to."
        ) from error
    _check_room(path)
    if not may_enter(path, servers):
        raise StackError(
            f"The servers run as {servers.name}, and that account can't reach {path}. "
            f"Set TRELLIS_HOME to a folder outside of your own, such as {FALLBACK}, or start Trellis as yourself."
        )
    return Home(path)


@contextmanager
def only_one(home: Home) -> Iterator[None]:
    """Hold the home for this process. Raises StackError that names the one that holds it."""
    descriptor = os.open(home.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StackError(
                f"Trellis already runs on {home.path} (pid {file.read().strip() or 'unknown'}). `trellis status` shows it "
                "and `trellis down` stops it; for a second one set TRELLIS_HOME to another folder."
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def holder(path: Path) -> int | None:
    """The pid of the stack that holds the home at `path`, or None."""
    lock = path / "lock"
    if not lock.exists():
        return None
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            text = file.read().strip()
            return int(text) if text.isdigit() else None
    return None


def _check_stamp(file: Path, version: str) -> None:
    stamp: dict[str, Any] = {}
    if file.exists():
        try:
            stamp = json.loads(file.read_text())
        except ValueError as error:
            raise StackError(
                f"{file} is damaged. Restore it from a backup, or set TRELLIS_HOME to a new folder."
            ) from error
    if int(stamp.get("layout", 0)) > LAYOUT:
        raise StackError(
            f"{file.parent} was last used by Trellis {stamp.get('trellis', 'of a newer kind')}, which is newer than this "
            f"one ({version}). Upgrade this installation (`git pull`, `make setup`), or set TRELLIS_HOME to a new folder."
        )
    if stamp != {"layout": LAYOUT, "trellis": version}:
        write_private(file, json.dumps({"layout": LAYOUT, "trellis": version}))


def _check_room(path: Path) -> None:
    free = shutil.disk_usage(path).free
    if free < LEAST_FREE_BYTES:
        raise StackError(
            f"The disk of {path} has {free // 2**20} MiB left, and the database needs {LEAST_FREE_BYTES // 2**20}. "
            "Free some, or set TRELLIS_HOME to a folder on another disk."
        )
