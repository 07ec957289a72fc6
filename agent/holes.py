"""The disk under a file that is written to: giving back its front, and keeping room for its end."""

import ctypes
import os
from pathlib import Path

# See fallocate(2).
_KEEP_SIZE, _PUNCH_HOLE = 0x01, 0x02
_BLOCK = 4096
_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def reserve(fd: int, size: int) -> bool:
    """Keep disk for the first `size` bytes of a file, which stays as long as it is; False where that can't be."""
    return bool(_libc.fallocate(fd, _KEEP_SIZE, 0, size) == 0)


def free_front(path: Path, end: int) -> bool:
    """Give back the disk under the blocks before byte `end`, but for the last whole one; they read as zeros then.

    False where that can't be. What is left begins before the last line does, for whoever goes on behind that.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        whole = end - end % _BLOCK - _BLOCK
        return whole > 0 and _libc.fallocate(fd, _KEEP_SIZE | _PUNCH_HOLE, 0, whole) == 0
    finally:
        os.close(fd)
