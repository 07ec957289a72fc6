"""Named pipes that say "look again": a poke carries at most a name, and may be lost.

A pipe and not a datagram socket: it holds a thousand pokes where many kernels queue ten datagrams, and its
path may be as long as the file system allows.
"""

import os
from contextlib import suppress
from pathlib import Path


def listen(path: Path) -> int:
    """A non-blocking descriptor to read pokes from; whoever listened there before may be dead or alive."""
    with suppress(FileExistsError):
        os.mkfifo(path, 0o600)
    # Held for writing too, or it would read as ended whenever the last sender closes.
    return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)


def drain(fd: int) -> bytes:
    """What has come so far; at most 64 KiB."""
    try:
        return os.read(fd, 65536)
    except BlockingIOError:
        return b""


def poke(path: Path, message: bytes = b"\n") -> bool:
    """Send without waiting. False if the listener is behind and it may be tried again; nobody there is True."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # no pipe, no reader, no directory: whoever comes later looks at the files first
        return True
    try:
        os.write(fd, message)
    except BlockingIOError:
        return False
    except BrokenPipeError:
        return True
    finally:
        os.close(fd)
    return True
