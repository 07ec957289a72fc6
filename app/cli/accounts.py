"""As whom our processes run: as ourselves, or, when we are root, as an account that may do nothing else."""

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

from app.cli.errors import StackError

UNPRIVILEGED = "nobody"


@dataclass(frozen=True, slots=True)
class Account:
    """A user and its group on this machine."""

    name: str
    uid: int
    gid: int


def current() -> Account:
    """Who runs this process."""
    uid = os.geteuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:  # containers run as numbers that no passwd entry names
        name = str(uid)
    return Account(name, uid, os.getegid())


def for_servers() -> Account:
    """Who PostgreSQL and Valkey run as: never root. Raises StackError when root finds no such account."""
    me = current()
    if me.uid != 0:
        return me
    try:
        entry = pwd.getpwnam(UNPRIVILEGED)
    except KeyError:
        raise StackError(
            f"PostgreSQL refuses to run as root, and this machine has no account {UNPRIVILEGED!r} to run it as. "
            "Start Trellis as an ordinary user."
        ) from None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def may_enter(path: Path, account: Account) -> bool:
    """Whether `account` may read or pass through `path` and every folder above it, by the permission bits."""
    real = path.resolve()
    return all(_may_pass(step, account) for step in (real, *real.parents) if step.exists())


def give(path: Path, account: Account) -> None:
    """Hand `path`, not what is below it, to `account`; without root it is ours already."""
    if os.geteuid() == 0:
        os.chown(path, account.uid, account.gid, follow_symlinks=False)


def give_all(folder: Path, account: Account) -> None:
    """Hand `folder` and all below it to `account`, if it is somebody else's."""
    if folder.stat().st_uid != account.uid:
        for path in (*folder.rglob("*"), folder):
            give(path, account)


def _may_pass(path: Path, account: Account) -> bool:
    if account.uid == 0:
        return True
    status = path.stat()
    wanted = stat.S_IXOTH if path.is_dir() else stat.S_IROTH
    if status.st_uid == account.uid:
        wanted <<= 6
    elif status.st_gid == account.gid:
        wanted <<= 3
    return bool(status.st_mode & wanted)
