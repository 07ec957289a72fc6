"""The socket at which a job's metric points arrive."""

import os
import socket
from pathlib import Path


def listen(path: Path) -> socket.socket:
    """A non-blocking datagram socket at `path`, which the job's user may write to."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    # The kernel takes 107 bytes; through the directory's descriptor the name is short wherever it lies.
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    mask = os.umask(0)  # anyone may write: the directories above it decide who gets here
    try:
        listener.bind(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.umask(mask)
        os.close(folder)
    return listener
