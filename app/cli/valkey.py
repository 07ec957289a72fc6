"""Valkey, the Redis-protocol broker, for one machine: durable to the second, on the loopback, by password."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path

from app.cli.accounts import Account
from app.cli.files import make_folder, write_private
from app.cli.ports import LOOPBACK
from app.cli.services import Service


@dataclass(frozen=True, slots=True)
class Valkey:
    """One server with its files below `folder`; `program` is `valkey-server` or `redis-server`."""

    program: Path
    folder: Path
    account: Account
    port: int
    password: str
    log: Path

    @property
    def url(self) -> str:
        """How Celery reaches it, password included."""
        return f"redis://:{self.password}@{LOOPBACK}:{self.port}/0"

    def prepare(self) -> bool:
        """Write the configuration; whether the data folder was made."""
        make_folder(self.folder, self.account)
        data = self.folder / "data"
        made = not data.exists()
        make_folder(data, self.account)
        # A file, not arguments: the password must not show in a process list.
        write_private(self._config, self._settings(data), self.account)
        return made

    def service(self) -> Service:
        """The server as the supervisor runs it."""
        return Service(
            name="valkey",
            argv=(str(self.program), str(self._config)),
            environment={"PATH": os.defpath, "HOME": str(self.folder), "LC_ALL": "C", "TZ": "UTC"},
            log=self.log,
            ready=self.is_ready,
            cwd=self.folder,
            account=self.account,
        )

    def is_ready(self) -> bool:
        """Whether it takes our password and has read its data."""
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=1) as connection:
                connection.sendall(f"AUTH {self.password}\r\nPING\r\nQUIT\r\n".encode())
                with connection.makefile("rb") as answer:
                    return answer.readline() == b"+OK\r\n" and answer.readline() == b"+PONG\r\n"
        except OSError:
            return False

    @property
    def _config(self) -> Path:
        return self.folder / "valkey.conf"

    def _settings(self, data: Path) -> str:
        return "\n".join(
            (
                f"bind {LOOPBACK}",
                f"port {self.port}",
                "protected-mode yes",
                f"requirepass {self.password}",
                f'dir "{data}"',
                "daemonize no",
                'save ""',
                # The defaults lose the queue in a crash; this loses a second of it, and the outbox sends that again.
                "appendonly yes",
                "appendfsync everysec",
                # A broker that forgets messages to save memory would be worse than one that refuses them.
                "maxmemory-policy noeviction",
                "",
            )
        )
