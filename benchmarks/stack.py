"""A stack of its own to measure: real processes, a home in a temporary folder, free ports of the loopback."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from app.cli.ports import free_port
from app.core.db import libpq_url
from trellis import Client

ROOT = Path(__file__).parents[1]
TRELLIS = (sys.executable, "-c", "from trellis.cli import main; main()")
NODES, SLOTS = 4, 32
UP_S, DOWN_S = 120.0, 60.0


class BenchError(Exception):
    """A measurement could not be made; the message says why."""


@dataclass(frozen=True, slots=True)
class Stack:
    """A home and two ports; `up` and `down` are the commands that a person would type."""

    home: Path
    port: int
    flower_port: int
    nodes: int = NODES

    def up(self) -> float:
        """Start it in the background; the seconds until all of it was ready. Raises BenchError."""
        return self._run(
            UP_S, "up", "--detach", "--no-example", "--nodes", str(self.nodes),
            "--profile", f"cpu_cores={SLOTS // self.nodes},memory_gb=64",
            "--port", str(self.port), "--flower-port", str(self.flower_port),
        )  # fmt: skip

    def down(self) -> float:
        """Stop it; the seconds that took. Raises BenchError."""
        return self._run(DOWN_S + 30, "down", "--timeout", str(DOWN_S))

    def client(self) -> Client:
        """A client with a connection of its own, signed in with the key of this machine."""
        login = json.loads((self.home / "client.json").read_text())
        return Client(login["url"], login["api_key"])

    def database(self) -> psycopg.Connection:
        """A connection for watching, which costs the API nothing."""
        url = (self.home / "secrets" / "database_url").read_text().strip()
        return psycopg.connect(libpq_url(url), autocommit=True)

    def pids(self) -> dict[str, int]:
        """The first process of every service."""
        entries = json.loads((self.home / "state.json").read_text())["entries"]
        return {entry["name"]: entry["pid"] for entry in entries if entry["pid"]}

    def wait_for_nodes(self) -> None:
        """Wait until every node has joined and beats. Raises BenchError after 30 s."""
        deadline = time.monotonic() + 30
        with self.client() as client:
            while sum(node.state == "ready" for node in client.nodes.list()) < self.nodes:
                if time.monotonic() > deadline:
                    raise BenchError("the nodes did not join within 30 s")
                time.sleep(0.1)

    def _run(self, timeout_s: float, *arguments: str) -> float:
        began = time.monotonic()
        try:
            done = subprocess.run(
                [*TRELLIS, *arguments], cwd=self.home, env=self._environment(), capture_output=True, text=True,
                stdin=subprocess.DEVNULL, check=False, timeout=timeout_s,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise BenchError(f"`trellis {arguments[0]}` took more than {timeout_s:.0f} s") from error
        if done.returncode:
            raise BenchError(f"`trellis {arguments[0]}` failed: {(done.stdout + done.stderr).strip()[-2000:]}")
        return time.monotonic() - began

    def _environment(self) -> dict[str, str]:
        kept = {name: text for name, text in os.environ.items() if not name.startswith("TRELLIS_")}
        return {**kept, "TRELLIS_HOME": str(self.home), "PYTHONPATH": str(ROOT), "COLUMNS": "200"}


@contextmanager
def folder_for_stack(nodes: int) -> Iterator[Stack]:
    """A stack that is not up yet; whatever of it runs in the end is stopped, and its folder removed."""
    # The servers' account must be able to pass through, which mkdtemp's 0700 would forbid.
    folder = Path(tempfile.mkdtemp(prefix="trellis-bench-"))
    folder.chmod(0o711)
    (folder / "home").mkdir(mode=0o711)
    port = free_port()
    stack = Stack(folder / "home", port, free_port(avoid=(port,)), nodes)
    try:
        yield stack
    finally:
        if (stack.home / "state.json").exists() or (stack.home / "lock").exists():
            stack.down()
        shutil.rmtree(folder, ignore_errors=True)
