"""Getting the image that a replica is to run in, beside whoever waits for it."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from threading import Thread
from typing import Any

from agent.containers.engine import Answer, Engine, EngineError, EngineGone
from trellis.vocabulary import PullPolicy
from trellis.wire import Container

SAY_EVERY_S = 5.0


class Fetching:
    """One thread. `done` once the image is there, or `fault` says why it will not come; `told` are words on the way.

    `fd` can be read whenever there is something new.
    """

    def __init__(self, engine: Engine, wanted: Container) -> None:
        self.done = False
        self.fault = ""
        self._engine = engine
        self._wanted = wanted
        self._said: list[str] = []
        self._socket: socket.socket | None = None
        self._abandoned = False
        self.fd, self._told = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._thread = Thread(target=self._run, name="fetching", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def told(self) -> Iterator[str]:
        """What is new, each once."""
        with suppress(BlockingIOError):
            os.read(self.fd, 4096)
        while self._said:
            yield self._said.pop(0)

    def close(self) -> None:
        """End, whether it is there or not."""
        self._abandoned = True
        with suppress(OSError):
            if self._socket is not None:
                self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        os.close(self.fd)
        os.close(self._told)

    def _run(self) -> None:
        try:
            self._get()
        except (EngineError, EngineGone, ValueError) as error:
            self.fault = f"the image {self._wanted.image} can't be had: {error}"
        self.done = True
        os.write(self._told, b"\n")

    def _get(self) -> None:
        reference, policy = self._wanted.image, self._wanted.pull
        if policy is PullPolicy.ALWAYS or (self._engine.image(reference) is None and policy is PullPolicy.MISSING):
            self._pull(*split(reference))
        found = self._engine.image(reference)
        if found is None:
            asked = ", and it is to be pulled never" if policy is PullPolicy.NEVER else ""
            raise EngineError(f"this node does not have it{asked}")
        self._say(f"image {reference} is {found['Id']}")

    def _pull(self, name: str, tag: str) -> None:
        self._say(f"pulling the image {self._wanted.image}")
        answer = self._engine.pull(name, tag, self._connected)
        try:
            _hear(answer, self._say)
        finally:
            self._socket = None
            answer.close()

    def _connected(self, line: socket.socket) -> None:
        self._socket = line
        if self._abandoned:  # before there was anything to shut down
            line.shutdown(socket.SHUT_RDWR)

    def _say(self, words: str) -> None:
        self._said.append(words)
        with suppress(BlockingIOError):
            os.write(self._told, b"\n")


def split(reference: str) -> tuple[str, str]:
    """A reference's name, and its digest, or else its tag: the latest, where it names neither."""
    name, at, digest = reference.partition("@")
    last = name.rpartition("/")[2]
    tagged, colon, tag = name.rpartition(":") if ":" in last else (name, "", "")
    plain = tagged if colon else name
    return plain, digest if at else tag or "latest"


def _hear(answer: Answer, say: Callable[[str], None]) -> None:
    """Say now and then how far it is. Raises EngineError with what the engine says went wrong."""
    layers: dict[str, tuple[int, int]] = {}
    said_at = time.monotonic()
    for line in answer.lines():
        if fault := line.get("error"):
            raise EngineError(" ".join(str(fault).split())[:2000])
        _note(layers, line)
        if layers and time.monotonic() >= said_at + SAY_EVERY_S:
            said_at = time.monotonic()
            say(_progress(layers))


def _note(layers: dict[str, tuple[int, int]], line: dict[str, Any]) -> None:
    detail, layer = line.get("progressDetail") or {}, str(line.get("id", ""))
    if layer and detail.get("total"):
        layers[layer] = int(detail.get("current", 0)), int(detail["total"])


def _progress(layers: dict[str, tuple[int, int]]) -> str:
    here, all_of_it = (sum(amounts) for amounts in zip(*layers.values(), strict=True))
    whole = sum(current >= total for current, total in layers.values())
    return f"pulled {whole} of {len(layers)} layers, {here >> 20} of {all_of_it >> 20} MiB"
