"""The socket at which a job's metric points arrive."""

import os
import secrets
import socket
from contextlib import suppress
from pathlib import Path


def new_name() -> str:
    """What to call a job's socket.

    All jobs of a node may be one user, and Landlock does not keep a process from a socket: the name, which the
    job learns from its environment and nobody else can guess or list, keeps its neighbours from telling lies for it.
    """
    return f"metrics-{secrets.token_hex(16)}.sock"


def listen(folder_path: Path, name: str) -> socket.socket:
    """A non-blocking datagram socket of that name in that directory, which the job's user may write to."""
    with suppress(FileNotFoundError):
        os.unlink(f"{folder_path}/{name}")  # of a supervisor that died
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    # The kernel takes 107 bytes; through the directory's descriptor the name is short wherever it lies.
    folder = os.open(folder_path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    mask = os.umask(0)  # anyone may write: the directories above it decide who gets here
    try:
        listener.bind(f"/proc/self/fd/{folder}/{name}")
    finally:
        os.umask(mask)
        os.close(folder)
    return listener
