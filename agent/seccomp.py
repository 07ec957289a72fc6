"""The system calls that a job can do without, refused by the kernel: less of it is within a job's reach.

What needs a capability is refused anyhow; here goes what does not: namespaces of its own, io_uring, BPF, performance
events, the kernel's keyrings, rare families of sockets, pushing input into a terminal. A call that is refused fails as
on a kernel without it, so that libraries fall back. Source: seccomp(2), and linux/audit.h, linux/filter.h.
"""

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000
# Where the call's number, the machine's name and the arguments' lower halves lie, on a little-endian machine.
_NUMBER, _MACHINE, _FIRST, _SECOND = 0, 4, 16, 24
_X32 = 0x40000000

_NAMESPACES = 0x7E020000  # CLONE_NEW*: cgroup, uts, ipc, user, pid, net; mount
_FAMILIES = (0, 1, 2, 10, 16)  # unspecified, unix, the two of the internet, netlink (getaddrinfo asks there)
_TERMINAL_INPUT = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX


class _Calls(NamedTuple):
    """The numbers of one machine's calls. `others` are those by which one process looks into another."""

    machine: int
    clone: int
    clone3: int
    socket: int
    ioctl: int
    refused: tuple[int, ...]
    others: tuple[int, ...]


# From number 425 on all machines agree: io_uring, open_tree, move_mount, fsopen, fsconfig, fsmount, fspick;
# mount_setattr, quotactl_fd.
_COMMON = (425, 426, 427, 428, 429, 430, 431, 432, 433, 442, 443)
_CALLS = {
    "x86_64": _Calls(
        0xC000003E, clone=56, clone3=435, socket=41, ioctl=16,
        refused=(
            103, 134, 154, 155, 156, 159, 161, 163, 164, 165, 166, 167, 168, 169, 172, 173, 174, 175, 176, 177, 178,
            179, 180, 212, 227, 246, 248, 249, 250, 272, 298, 300, 303, 304, 305, 308, 313, 320, 321, 323, *_COMMON,
        ),
        others=(101, 310, 311, 312, 438),
    ),
    "aarch64": _Calls(
        0xC00000B7, clone=220, clone3=435, socket=198, ioctl=29,
        refused=(
            18, 39, 40, 41, 42, 51, 60, 89, 97, 104, 105, 106, 112, 116, 142, 170, 171, 217, 218, 219, 224, 225, 241,
            262, 264, 265, 266, 268, 273, 280, 282, 294, *_COMMON,
        ),
        others=(117, 270, 271, 272, 438),
    ),
}  # fmt: skip


@cache
def filter_of(machine: str = "", *, own_processes: bool) -> bytes | None:
    """The filter for a machine (empty: this one) as the kernel takes it; None for one that we do not know.

    `own_processes`: a job sees no processes but its own, so it may look into them, as debuggers do.
    """
    calls = _CALLS.get(machine or platform.machine())
    if calls is None or sys.byteorder != "little":
        return None
    return b"".join(_instructions(calls, own_processes=own_processes))


def enforce(instructions: bytes) -> None:
    """Bind this process and all it will start. It must have forbidden new privileges before. Raises OSError."""
    kept = ctypes.create_string_buffer(instructions, len(instructions))
    program = struct.pack("HxxxxxxP", len(instructions) // 8, ctypes.addressof(kept))
    if _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, program, 0, 0) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"PR_SET_SECCOMP: {os.strerror(number)}")


def _instructions(calls: _Calls, *, own_processes: bool) -> Iterator[bytes]:
    yield _word(_LOAD, _MACHINE)
    yield _word(_EQUAL, calls.machine, skip=1)
    yield _refuse(errno.ENOSYS)  # a call of another machine's, as 32-bit programs make: its numbers mean other things
    yield _word(_LOAD, _NUMBER)
    yield _word(_AT_LEAST, _X32, skip_else=1)
    yield _refuse(errno.ENOSYS)
    for number in (*calls.refused, *(() if own_processes else calls.others)):
        yield _word(_EQUAL, number, skip_else=1)
        yield _refuse(errno.EPERM)
    # Its flags lie in memory, where a filter cannot look; the C library then falls back to clone.
    yield _word(_EQUAL, calls.clone3, skip_else=1)
    yield _refuse(errno.ENOSYS)
    yield from _on(calls.clone, [_word(_LOAD, _FIRST), _word(_ANY_BIT, _NAMESPACES, skip_else=1), _refuse(errno.EPERM)])
    yield from _on(calls.socket, [*_only(_FIRST, _FAMILIES), _refuse(errno.EAFNOSUPPORT)])
    yield from _on(calls.ioctl, list(_none_of(_SECOND, _TERMINAL_INPUT)))
    yield _word(_RETURN, _ALLOW)


def _on(number: int, block: list[bytes]) -> Iterator[bytes]:
    """These instructions for one call, which is allowed where they come to an end; the others skip them."""
    yield _word(_EQUAL, number, skip_else=len(block) + 1)
    yield from block
    yield _word(_RETURN, _ALLOW)


def _only(argument: int, values: tuple[int, ...]) -> Iterator[bytes]:
    yield _word(_LOAD, argument)
    for value in values:
        yield _word(_EQUAL, value, skip_else=1)
        yield _word(_RETURN, _ALLOW)


def _none_of(argument: int, values: tuple[int, ...]) -> Iterator[bytes]:
    yield _word(_LOAD, argument)
    for value in values:
        yield _word(_EQUAL, value, skip_else=1)
        yield _refuse(errno.EPERM)


def _refuse(number: int) -> bytes:
    return _word(_RETURN, _REFUSE | number)


def _word(code: int, value: int, skip: int = 0, skip_else: int = 0) -> bytes:
    """One instruction: how many to skip where a comparison holds, and where it does not."""
    return struct.pack("<HBBI", code, skip, skip_else, value)
