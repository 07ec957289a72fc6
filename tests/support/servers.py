"""Runs PostgreSQL and Valkey for one test session: `python -m tests.support.servers FOLDER`.

Ends, and removes the folder, when its standard input closes: a test session that is killed leaves nothing behind.
"""

import json
import secrets
import shutil
import sys
from pathlib import Path

from app.cli.accounts import for_servers
from app.cli.binaries import POSTGRES, VALKEY, find_program
from app.cli.errors import StackError
from app.cli.files import write_private
from app.cli.ports import free_port
from app.cli.postgres import Postgres
from app.cli.supervisor import Supervisor
from app.cli.valkey import Valkey


def build(folder: Path, *, durable: bool = False) -> tuple[Postgres, Valkey]:
    """Both servers below `folder` on free ports, prepared but not started."""
    account = for_servers()
    folder.chmod(0o711)
    copies = folder / "bin"
    copies.mkdir(mode=0o755, exist_ok=True)
    port = free_port()
    postgres = Postgres(
        program=find_program(POSTGRES, account, copies),
        folder=folder / "postgres",
        account=account,
        port=port,
        superuser_password=secrets.token_hex(16),
        password=secrets.token_hex(16),
        log=folder / "postgres.log",
        durable=durable,
    )
    valkey = Valkey(
        program=find_program(VALKEY, account, copies),
        folder=folder / "valkey",
        account=account,
        port=free_port(avoid=[port]),
        password=secrets.token_hex(16),
        log=folder / "valkey.log",
    )
    postgres.prepare()
    valkey.prepare()
    return postgres, valkey


def main(folder: Path) -> None:
    """Serve until standard input closes; the addresses are in `servers.json` once both answer."""
    supervisor = Supervisor()
    try:
        write_private(folder / "servers.json", json.dumps(_start(supervisor, folder)))
        sys.stdin.read()
    finally:
        supervisor.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _start(supervisor: Supervisor, folder: Path) -> dict[str, str]:
    try:
        postgres, valkey = build(folder)
        supervisor.start([postgres.service()], [valkey.service()])
        postgres.ensure_database()
    except StackError as error:
        return {"error": str(error)}
    return {"database_url": postgres.url, "broker_url": valkey.url}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
