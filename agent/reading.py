"""Reading small files whole."""

import os
from pathlib import Path


def read_small(path: Path | str) -> bytes:
    """All that is in it, by four system calls where `Path.read_bytes` makes nine. Raises what `os.open` raises."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = b""
        while part := os.read(fd, 65536):  # /proc gives a long file in parts
            found += part
        return found
    finally:
        os.close(fd)
