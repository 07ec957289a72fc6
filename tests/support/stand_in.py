"""`trellis up`, `down` and `status` with stand-ins for the platform's own processes, on real PostgreSQL and Valkey.

`python -m tests.support.stand_in up ...`. Each stand-in writes its name to `server/ended` in the home when it is asked to stop.
"""

import sys

import typer

from app.cli import commands, platform, running, stack
from app.cli.accounts import current
from app.cli.grants import Grant, Wish
from app.cli.platform import Wiring
from app.cli.ports import LOOPBACK, answers
from app.cli.services import Service

PROGRAM = """
import pathlib, signal, socket, sys
name, port, ended = sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3])
def stop(*_):
    with ended.open("a") as file:
        file.write(name + chr(10))
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
if port:
    server = socket.create_server(("127.0.0.1", port))
print(name, "is ready.", flush=True)
while True:
    signal.pause()
"""


def stand_in(wiring: Wiring, name: str, port: int = 0) -> Service:
    """A process that does nothing, well."""
    log = wiring.home.logs / f"{name}.log"
    ended = wiring.home.server / "ended"
    return Service(
        name=name,
        argv=(sys.executable, "-c", PROGRAM, name, str(port), str(ended)),
        environment={},
        account=current() if name.startswith("node") else wiring.account,
        log=log,
        ready=(lambda: answers(port)) if port else (lambda: log.exists() and b"is ready." in log.read_bytes()),
        url=f"http://{LOOPBACK}:{port}" if port else "",
    )


def patch() -> None:
    """Put the stand-ins in the place of what they stand for."""
    platform.api = lambda wiring: stand_in(wiring, "api", wiring.port)
    platform.flower = lambda wiring: stand_in(wiring, "flower", wiring.flower_port)
    platform.control = lambda wiring: stand_in(wiring, "control")
    platform.beat = lambda wiring: stand_in(wiring, "beat")
    platform.node = lambda wiring, machine, *_: stand_in(wiring, machine.name)
    stack.run_bootstrap = _bootstrap
    running.UP = ("-m", "tests.support.stand_in", "up")


def _bootstrap(wiring: Wiring, wish: Wish) -> Grant:
    assert wiring.database
    assert wiring.broker
    return Grant("first-password" if wish.client_key else None, "key", dict.fromkeys(wish.nodes, "token"))


def main() -> None:
    """Entry."""
    patch()
    program = typer.Typer()
    program.command()(commands.up)
    program.command()(commands.down)
    program.command()(commands.status)
    program()


if __name__ == "__main__":
    main()
