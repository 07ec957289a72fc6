"""PostgreSQL for one machine: made once, owned by an unprivileged account, reached on the loopback by password."""

import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg
from psycopg import sql

from app.cli.accounts import Account
from app.cli.errors import StackError
from app.cli.files import make_folder, write_private
from app.cli.ports import LOOPBACK
from app.cli.services import Service, identity

ROLE = "trellis"
DATABASE = "trellis"
SUPERUSER = "postgres"
_BURIAL_S = 10.0


@dataclass(frozen=True, slots=True)
class Postgres:
    """One cluster below `folder`.

    program: the `postgres` executable; `initdb` lies beside it.
    durable: false only for tests, where a power cut may lose rows.
    """

    program: Path
    folder: Path
    account: Account
    port: int
    superuser_password: str
    password: str
    log: Path
    durable: bool = True

    @property
    def data(self) -> Path:
        """Where the rows are."""
        return self.folder / "data"

    @property
    def url(self) -> str:
        """How SQLAlchemy reaches the database, password included."""
        return f"postgresql+psycopg://{ROLE}:{self.password}@{LOOPBACK}:{self.port}/{DATABASE}"

    def prepare(self) -> bool:
        """Make the cluster if there is none; whether it was made. Raises StackError."""
        make_folder(self.folder, self.account)
        if self.data.exists():
            self._check_major()
            self._bury_the_dead()
            return False
        building = self.folder / "data.new"
        shutil.rmtree(building, ignore_errors=True)  # left by one that was interrupted
        passwords = write_private(self.folder / "initdb.password", self.superuser_password, self.account)
        try:
            self._initdb(building, passwords)
        finally:
            passwords.unlink(missing_ok=True)
        building.rename(self.data)
        return True

    def service(self) -> Service:
        """The server as the supervisor runs it."""
        return Service(
            name="postgres",
            argv=(str(self.program), "-D", str(self.data), *self._options()),
            environment=_environment(self.folder),
            log=self.log,
            ready=self.is_ready,
            cwd=self.folder,
            account=self.account,
            stop_signal=signal.SIGINT,  # "fast": open sessions are ended, then a clean shutdown
            stop_s=30.0,
        )

    def is_ready(self) -> bool:
        """Whether it answers a query."""
        try:
            with self._connect():
                return True
        except psycopg.OperationalError:
            return False

    def ensure_database(self) -> None:
        """Make the platform's own role and database; the role is no superuser, so that a flaw in a statement stays
        a flaw in a database and does not become a shell."""
        with self._connect() as connection:
            exists = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (ROLE,)).fetchone()
            verb = sql.SQL("ALTER ROLE {} PASSWORD {}" if exists else "CREATE ROLE {} LOGIN CREATEDB PASSWORD {}")
            connection.execute(verb.format(sql.Identifier(ROLE), sql.Literal(self.password)))
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone():
                statement = sql.SQL("CREATE DATABASE {} OWNER {}")
                connection.execute(statement.format(sql.Identifier(DATABASE), sql.Identifier(ROLE)))

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(
            host=LOOPBACK, port=self.port, user=SUPERUSER, password=self.superuser_password, dbname="postgres",
            autocommit=True, connect_timeout=2,
        )  # fmt: skip

    def _options(self) -> list[str]:
        settings = {
            "listen_addresses": LOOPBACK,
            "port": str(self.port),
            "unix_socket_directories": "",  # a socket's path may have 107 bytes, and a checkout may lie deep
            "max_connections": "250",
            "shared_buffers": "128MB",
            "wal_level": "minimal",
            "max_wal_senders": "0",
            "jit": "off",
            "random_page_cost": "1.1",  # what is read is in memory, or on flash
            "log_line_prefix": "%m [%p] ",
            "password_encryption": "scram-sha-256",
        }
        if not self.durable:
            settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]

    def _initdb(self, target: Path, passwords: Path) -> None:
        argv = [
            str(self.program.with_name("initdb")), "-D", str(target), "-U", SUPERUSER, "-A", "scram-sha-256",
            "--no-locale", "-E", "UTF8", "--pwfile", str(passwords), *([] if self.durable else ["--no-sync"]),
        ]  # fmt: skip
        done = subprocess.run(
            argv, cwd=self.folder, env=_environment(self.folder), capture_output=True, text=True, check=False,
            **identity(self.account),
        )  # fmt: skip
        if done.returncode:
            reason = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
            raise StackError(f"PostgreSQL could not make its files in {self.folder}: {' '.join(reason)}")

    def _bury_the_dead(self) -> None:
        """Take away the lock of a server that was killed with us and that nobody has buried.

        PostgreSQL takes a zombie for a living server. Init buries it, sooner or later; in a container whose first
        process is no init, nobody ever does.
        """
        lock = self.data / "postmaster.pid"
        try:
            dead = psutil.Process(int(lock.read_text().split()[0]))
            if dead.status() != psutil.STATUS_ZOMBIE:
                return
        except (FileNotFoundError, psutil.NoSuchProcess):
            return
        ends = time.monotonic() + _BURIAL_S  # its sessions notice its death by themselves
        while any(_works_in(self.data, process) for process in psutil.process_iter()):
            if time.monotonic() > ends:
                return
            time.sleep(0.05)
        lock.unlink(missing_ok=True)

    def _check_major(self) -> None:
        stored = (self.data / "PG_VERSION").read_text().strip()
        offered = major_of(self.program)
        if stored != offered:
            raise StackError(
                f"The data in {self.data} was written by PostgreSQL {stored}, and this installation brings PostgreSQL "
                f"{offered}, which can't read it. Install the Trellis it came from and export the data there, "
                "or set TRELLIS_HOME to a new folder to begin afresh."
            )


def _works_in(folder: Path, process: psutil.Process) -> bool:
    try:
        return process.cwd() == str(folder)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def major_of(program: Path) -> str:
    """The major version of a `postgres` executable, such as `18`."""
    # "postgres (PostgreSQL) 18.6", on Debian followed by " (Debian 15.18-0+deb12u1)"
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    return done.stdout.split()[2].partition(".")[0]


def _environment(folder: Path) -> dict[str, str]:
    # Nothing of the caller's: PGDATA, PGPORT and the like would lead the server astray.
    return {"PATH": os.defpath, "HOME": str(folder), "LC_ALL": "C", "TZ": "UTC"}
