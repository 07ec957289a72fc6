"""A node that can be cut off from everything: it lives in a network namespace, behind one cable that can be pulled.

What listens on the host's loopback is passed on to the namespace's, under the same ports, so that addresses stay true.
`python -m tests.support.island LISTEN PORT HOST PORT` is one such passage.
"""

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psutil
import pytest

from tests.support.platform import Platform
from tests.support.services import wait_until


@dataclass(frozen=True, slots=True)
class Island:
    """The node's name, and the host's end of its cable."""

    node: str
    cable: str

    def cut(self) -> None:
        """Pull the cable: connections stay open, and nothing passes."""
        _ip("link", "set", self.cable, "down")

    def mend(self) -> None:
        """Plug it in again."""
        _ip("link", "set", self.cable, "up")


@contextmanager
def island(platform: Platform, node: str) -> Iterator[Island]:
    """One more node like `node-1`, cut off at will; skips the test where namespaces can't be made."""
    name = f"trl{os.getpid() % 100_000}"
    ours, theirs = f"10.203.{os.getpid() % 250}.1", f"10.203.{os.getpid() % 250}.2"
    ip = shutil.which("ip")
    if ip is None or subprocess.run([ip, "netns", "add", name], capture_output=True, check=False).returncode:
        pytest.skip("this process can make no network namespace")
    within = [ip, "netns", "exec", name]
    try:
        _ip("link", "add", name, "type", "veth", "peer", "name", "cable", "netns", name)
        for words in (["addr", "add", f"{ours}/30", "dev", name], ["link", "set", name, "up"]):
            _ip(*words)
        cables = [
            ["addr", "add", f"{theirs}/30", "dev", "cable"],
            ["link", "set", "cable", "up"],
            ["link", "set", "lo", "up"],
        ]
        for words in cables:
            _ip("-n", name, *words)
        broker = platform.broker_url.rpartition(":")[2].partition("/")[0]
        for port in (str(platform.port), broker):
            _pass_on(platform, [], ours, port, "127.0.0.1", port)
            _pass_on(platform, within, "127.0.0.1", port, ours, port)
        first = psutil.Process(platform.pid("node-1"))
        home = platform.home / "nodes" / node
        argv = [word.replace("node-1", node) for word in first.cmdline()]
        environment = {
            key: text.replace(str(platform.home / "nodes/node-1"), str(home)) for key, text in first.environ().items()
        }
        process = platform.spawn(*within, *argv, environment=environment, log=node)
        log = platform.folder / node
        wait_until(lambda: process.poll() is not None or " ready." in log.read_text(), 60, f"{node} to be ready")
        assert process.poll() is None, log.read_text()
        yield Island(node, name)
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=False)
        subprocess.run(["ip", "link", "delete", name], capture_output=True, check=False)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def _pass_on(platform: Platform, within: list[str], *words: str) -> None:
    log = f"passage-{words[0]}-{words[1]}"
    platform.spawn(*within, sys.executable, "-m", "tests.support.island", *words, environment=platform.env, log=log)
    wait_until(lambda: "open" in (platform.folder / log).read_text(), 30, "a passage to be open")


def _copy(source: socket.socket, aim: socket.socket) -> None:
    with suppress(OSError):
        while block := source.recv(65536):
            aim.sendall(block)
    with suppress(OSError):
        aim.shutdown(socket.SHUT_WR)


def _pass(caller: socket.socket, aim: tuple[str, int]) -> None:
    with caller:
        try:
            called = socket.create_connection(aim)
        except OSError:
            return
        with called:
            back = threading.Thread(target=_copy, args=(called, caller), daemon=True)
            back.start()
            _copy(caller, called)
            back.join()


def _main(listen: str, port: str, host: str, to_port: str) -> None:
    with socket.create_server((listen, int(port)), backlog=64) as server:
        os.write(1, b"open\n")
        while True:
            caller, _ = server.accept()
            threading.Thread(target=_pass, args=(caller, (host, int(to_port))), daemon=True).start()


if __name__ == "__main__":
    _main(*sys.argv[1:])
