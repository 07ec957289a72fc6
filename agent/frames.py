"""JSON in frames of a four-byte length, over a stream socket."""

import json
import socket
from typing import Any

TAKE_UP = "take_up"
"""In place of a spec: the name of a replica whose supervisor died, and which is to have another."""


def send(stream: socket.socket, value: Any) -> None:
    """Send one frame. Raises OSError if the other end is gone."""
    block = json.dumps(value).encode()
    stream.sendall(len(block).to_bytes(4, "big") + block)


def receive(stream: socket.socket) -> Any:
    """The next frame; None if the other end hung up."""
    length = _receive_exactly(stream, 4)
    block = _receive_exactly(stream, int.from_bytes(length, "big")) if length else None
    return json.loads(block) if block else None


def _receive_exactly(stream: socket.socket, length: int) -> bytes | None:
    parts = []
    while length:
        part = stream.recv(min(length, 1 << 20))
        if not part:
            return None
        parts.append(part)
        length -= len(part)
    return b"".join(parts)
