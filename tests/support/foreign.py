"""Servers that this machine's own packages bring: what a person may already have and point Trellis at."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from app.cli.accounts import for_servers
from app.cli.files import make_folder
from app.cli.ports import answers, free_port
from app.cli.postgres import Postgres
from app.cli.services import Service
from app.cli.supervisor import Supervisor
from app.cli.valkey import Valkey
from tests.support.services import wait_until

_POSTGRES = Path("/usr/lib/postgresql")
_RABBIT = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
RABBIT_READY_S = 90.0


@contextmanager
def debians_postgres(folder: Path) -> Iterator[str]:
    """The distribution's PostgreSQL; the URL as people write it."""
    programs = sorted(_POSTGRES.glob("*/bin/postgres"))
    if not programs:
        pytest.skip(f"no PostgreSQL of the distribution's in {_POSTGRES}")
    server = Postgres(
        program=programs[0], folder=folder / "postgres", account=for_servers(), port=free_port(),
        superuser_password="superuser", password="password", log=folder / "postgres.log", durable=False,
    )  # fmt: skip
    server.prepare()
    with _kept(server.service()):
        server.ensure_database()
        yield server.url.replace("postgresql+psycopg://", "postgresql://")


@contextmanager
def debians_redis(folder: Path) -> Iterator[str]:
    """The distribution's Redis."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed")
    server = Valkey(
        program=Path(program), folder=folder / "redis", account=for_servers(), port=free_port(), password="password",
        log=folder / "redis.log",
    )  # fmt: skip
    server.prepare()
    with _kept(server.service()):
        yield server.url


@contextmanager
def rabbitmq(folder: Path) -> Iterator[str]:
    """The distribution's RabbitMQ, with its files below `folder` and a name server of its own."""
    epmd = shutil.which("epmd")
    if not _RABBIT.exists() or epmd is None:
        pytest.skip("rabbitmq-server is not installed")
    home = make_folder(folder / "rabbitmq")
    port, names = free_port(), free_port()
    plugins, settings = home / "plugins", home / "rabbitmq.conf"
    plugins.write_text("[].\n")
    settings.write_text(f"listeners.tcp.1 = 127.0.0.1:{port}\n")
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(home), "ERL_EPMD_PORT": str(names), "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": f"trellis{port}@localhost", "RABBITMQ_DIST_PORT": str(free_port(avoid=[port, names])),
        "RABBITMQ_MNESIA_BASE": str(home / "data"), "RABBITMQ_LOG_BASE": str(home / "logs"), "RABBITMQ_LOGS": "-",
        "RABBITMQ_PID_FILE": str(home / "pid"), "RABBITMQ_ENABLED_PLUGINS_FILE": str(plugins),
        "RABBITMQ_CONFIG_FILE": str(settings), "RABBITMQ_CONF_ENV_FILE": str(home / "no-such-file"),
    }  # fmt: skip
    log = folder / "rabbitmq.log"
    with _process([epmd, "-port", str(names), "-address", "127.0.0.1"], environment, folder / "epmd.log"):
        wait_until(lambda: answers(names), RABBIT_READY_S, "Erlang's name server")
        with _process([str(_RABBIT)], environment, log) as server:
            wait_until(
                lambda: server.poll() is not None or "Server startup complete" in log.read_text(),
                RABBIT_READY_S,
                "RabbitMQ",
            )
            assert server.poll() is None, log.read_text()
            yield f"amqp://guest:guest@127.0.0.1:{port}//"


BROKERS = {"redis": debians_redis, "rabbitmq": rabbitmq}


@contextmanager
def servers(folder: Path, broker: str) -> Iterator[dict[str, str]]:
    """The settings that name the distribution's PostgreSQL and one of its brokers."""
    folder.chmod(0o711)
    with ExitStack() as held:
        database_url = held.enter_context(debians_postgres(folder))
        broker_url = held.enter_context(BROKERS[broker](folder))
        yield {"TRELLIS_DATABASE_URL": database_url, "TRELLIS_BROKER_URL": broker_url}


@contextmanager
def _kept(service: Service) -> Iterator[None]:
    supervisor = Supervisor()
    try:
        supervisor.start([service])
        yield
    finally:
        supervisor.stop()


@contextmanager
def _process(argv: list[str], environment: Mapping[str, str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv, env=dict(environment), stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
