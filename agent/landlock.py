"""Landlock by its system calls: a process gives up every file, and TCP, but for what it names first."""

import ctypes
import os
import stat
import sys
from collections.abc import Iterable

_libc = ctypes.CDLL(None, use_errno=True)
# The same numbers on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_QUESTION = 1
_PATH_BENEATH = 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_TRUNCATE, _IOCTL_DEVICE = 1 << 14, 1 << 15
_FOR_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEVICE
_ALL_TCP = 3
_ALL_SCOPES = 3
# How many file rights each version knows; later ones know no more.
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def abi() -> int:
    """The version the running kernel offers; 0 where it has none or it is switched off."""
    return max(0, int(_libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_QUESTION)))


class Ruleset:
    """What will be allowed. Nothing is, until `allow_`; nothing is refused, until `enforce`."""

    def __init__(self, version: int, *, deny_tcp: bool) -> None:
        """`version` is what `abi` said. TCP can be denied from version 4 on; below, `deny_tcp` has no effect."""
        self._rights = (1 << _RIGHTS[min(version, 5)]) - 1
        network = _ALL_TCP if deny_tcp and version >= 4 else 0
        scopes = _ALL_SCOPES if version >= 6 else 0
        fields = [self._rights] + [network] * (version >= 4) + [scopes] * (version >= 6)
        attributes = (ctypes.c_uint64 * len(fields))(*fields)
        size = ctypes.c_size_t(ctypes.sizeof(attributes))
        self._fd = _checked(_libc.syscall(_CREATE_RULESET, attributes, size, 0), "landlock_create_ruleset")

    def allow_reading(self, paths: Iterable[str]) -> None:
        """Read and execute whatever is below each of `paths`; those that do not exist are passed over."""
        self._allow(paths, _EXECUTE | _READ_FILE | _READ_DIR)

    def allow_listing(self, paths: Iterable[str]) -> None:
        """Read names, no contents, below each of `paths`; those that do not exist are passed over."""
        self._allow(paths, _READ_DIR)

    def allow_everything(self, paths: Iterable[str]) -> None:
        """Do anything below each of `paths`; those that do not exist are passed over."""
        self._allow(paths, self._rights)

    def enforce(self) -> None:
        """Bind this process and all it will start. It must have forbidden new privileges before."""
        _checked(_libc.syscall(_RESTRICT_SELF, self._fd, 0), "landlock_restrict_self")
        os.close(self._fd)

    def _allow(self, paths: Iterable[str], rights: int) -> None:
        for path in paths:
            try:
                fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                self._add(fd, rights)
            finally:
                os.close(fd)

    def _add(self, fd: int, rights: int) -> None:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            rights &= _FOR_FILES
        # struct landlock_path_beneath_attr is packed: eight bytes of rights, four of descriptor.
        rule = (rights & self._rights).to_bytes(8, sys.byteorder) + fd.to_bytes(4, sys.byteorder)
        _checked(_libc.syscall(_ADD_RULE, self._fd, _PATH_BENEATH, rule, 0), "landlock_add_rule")
