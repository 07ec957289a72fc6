import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import psycopg
import pytest

from app.cli.accounts import for_servers
from app.cli.errors import StackError
from app.cli.postgres import Postgres
from app.cli.supervisor import Keeper, Supervisor
from app.cli.valkey import Valkey
from tests.support.servers import build
from tests.support.services import wait_until


@dataclass
class Running:
    postgres: Postgres
    valkey: Valkey
    supervisor: Supervisor

    def keeper(self, name: str) -> Keeper:
        return next(k for k in self.supervisor.keepers if k.service.name == name)

    def kill(self, name: str) -> None:
        keeper = self.keeper(name)
        assert keeper.process is not None
        old = keeper.process
        os.kill(old.pid, signal.SIGKILL)
        wait_until(lambda: keeper.process is not old and keeper.service.ready(), 30, f"{name} to come back")


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with TemporaryDirectory(prefix="trellis-test-") as folder:
        postgres, valkey = build(Path(folder), durable=True)
        supervisor = Supervisor()
        try:
            supervisor.start([postgres.service()], [valkey.service()])
            postgres.ensure_database()
            yield Running(postgres, valkey, supervisor)
        finally:
            supervisor.stop()


def connect(postgres: Postgres) -> psycopg.Connection:
    return psycopg.connect(postgres.url.replace("+psycopg", ""), autocommit=True)


def ask(valkey: Valkey, command: str) -> bytes:
    with socket.create_connection(("127.0.0.1", valkey.port), timeout=5) as connection:
        connection.sendall(f"AUTH {valkey.password}\r\n{command}\r\nQUIT\r\n".encode())
        with connection.makefile("rb") as answer:
            assert answer.readline() == b"+OK\r\n"
            return answer.readline()


def test_a_committed_row_survives_the_kill_of_postgres(running: Running) -> None:
    with connect(running.postgres) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    running.kill("postgres")
    with connect(running.postgres) as connection:
        assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)


def test_a_queued_message_survives_the_kill_of_valkey(running: Running) -> None:
    assert ask(running.valkey, "RPUSH queue message") == b":1\r\n"
    wait_until(lambda: b"message" in _appended(running.valkey), 5, "the message to be written")
    running.kill("valkey")
    assert ask(running.valkey, "LLEN queue") == b":1\r\n"


def test_the_role_of_the_platform_is_no_superuser(running: Running) -> None:
    with connect(running.postgres) as connection:
        row = connection.execute("SELECT rolsuper, rolcreatedb FROM pg_roles WHERE rolname = current_user").fetchone()
    assert row == (False, True)


def test_no_server_runs_as_root_and_no_password_is_in_an_argument(running: Running) -> None:
    for name in ("postgres", "valkey"):
        process = running.keeper(name).process
        assert process is not None
        seen = psutil.Process(process.pid)
        assert set(seen.uids()) == {for_servers().uid}
        assert seen.uids().real != 0
        line = " ".join(seen.cmdline())
        assert running.postgres.password not in line
        assert running.valkey.password not in line


def test_a_wrong_password_is_refused_by_both(running: Running) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(running.postgres.url.replace("+psycopg", "").replace(running.postgres.password, "guess"))
    with socket.create_connection(("127.0.0.1", running.valkey.port), timeout=5) as connection:
        connection.sendall(b"PING\r\n")
        assert connection.recv(100).startswith(b"-NOAUTH")


def test_data_of_another_major_version_is_a_sentence(running: Running) -> None:
    version = running.postgres.data / "PG_VERSION"
    stored = version.read_text()
    version.write_text("12\n")
    try:
        with pytest.raises(StackError, match=r"written by PostgreSQL 12.*TRELLIS_HOME"):
            running.postgres.prepare()
    finally:
        version.write_text(stored)


def test_the_servers_of_a_test_session_are_shared_by_its_workers(
    services: object, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert json.dumps(str(services)).count("127.0.0.1") == 2


def _appended(valkey: Valkey) -> bytes:
    return b"".join(file.read_bytes() for file in (valkey.folder / "data" / "appendonlydir").glob("*.aof"))


def test_the_lock_of_a_server_that_nobody_has_buried_is_taken_away() -> None:
    with TemporaryDirectory(prefix="trellis-test-") as folder:
        postgres, _ = build(Path(folder))
        lock = postgres.data / "postmaster.pid"
        dead = subprocess.Popen([sys.executable, "-c", ""])
        wait_until(lambda: psutil.Process(dead.pid).status() == psutil.STATUS_ZOMBIE, 30, "a zombie")
        lock.write_text(f"{dead.pid}\n")
        postgres.prepare()
        assert not lock.exists()
        dead.wait()
        lock.write_text(f"{os.getpid()}\n")  # of one that lives, PostgreSQL itself is the judge
        postgres.prepare()
        assert lock.exists()
