"""The platform's own processes as services: their commands, what each may know, and when it counts as up."""

import http.client
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

from app.cli.accounts import Account, current
from app.cli.cluster import Machine
from app.cli.files import make_folder, write_private
from app.cli.home import Home
from app.cli.ports import LOOPBACK, answers
from app.cli.services import Service
from app.core.settings import Settings
from trellis.settings import names
from trellis.simulation import HostPlan
from trellis.wire import pack

# Of the caller's variables these do not reach our processes: they would lead libpq or Python elsewhere.
_STRAY = ("PG", "PYTHON", "TRELLIS_")
_KEPT = ("PYTHONPATH", "PYTHONWARNINGS")
# What a stack wires by itself; every other setting may be given to `trellis up`.
_WIRED = ("HOME", "SECRET_KEY", "PUBLIC_URL", "DATABASE_URL", "BROKER_URL")
SERVER_TUNING = names(Settings) - {f"TRELLIS_{name}{suffix}" for name in _WIRED for suffix in ("", "_FILE")}
# A node knows no server code, nor the server the node's: the names are told twice, and a test compares them.
NODE_TUNING = frozenset(
    {
        "TRELLIS_CPUS", "TRELLIS_MEMORY", "TRELLIS_ISOLATION", "TRELLIS_JOB_UID", "TRELLIS_TIMEZONE",
        "TRELLIS_CONTAINER_SOCKET", "TRELLIS_CONTAINER_OPTIONS", "TRELLIS_CODE_CACHE", "TRELLIS_ENVIRONMENT_CACHE", "TRELLIS_PACKAGE_INDEX", "TRELLIS_PACKAGE_LINKS",
        "TRELLIS_ON_JOIN", "TRELLIS_PROLOG", "TRELLIS_EPILOG", "TRELLIS_HEALTH_CHECK", "TRELLIS_HOOK_WITHIN_S",
        "TRELLIS_HEALTH_EVERY_S", "TRELLIS_DEVICE_RECORD",
    }
)  # fmt: skip
SWEEP = "import sys, pathlib; from agent.sweep import stop_all; stop_all(pathlib.Path(sys.argv[1]), float(sys.argv[2]))"
SWEEP_S = 10.0
# What the host of simulated nodes is called among the services.
SIMULATED = "simulated"
_PACED = ("heartbeat_s", "lease_s", "node_lost_s")
_JOINED = re.compile(rb"joined (\d+) of (\d+)")
# So many beat every five seconds without anybody noticing.
_USUAL_PACE_NODES = 2000
_PACE: dict[str, Any] = {f"TRELLIS_{f.name.upper()}": f.default for f in fields(Settings) if f.name in _PACED}
# To start, and for each node: on a slow machine.
_HOST_READY_S, _NODE_READY_S = 60.0, 0.1


@dataclass(frozen=True, slots=True)
class Wiring:
    """Where everything is and who runs it. Of secrets it holds the files only."""

    home: Home
    account: Account
    code: Path  # the folder of the packages: where `python -m` finds them
    environment: Mapping[str, str]  # the caller's
    database: dict[str, str]  # TRELLIS_DATABASE_URL or TRELLIS_DATABASE_URL_FILE
    broker: dict[str, str]  # TRELLIS_BROKER_URL or TRELLIS_BROKER_URL_FILE
    port: int
    flower_port: int

    @property
    def url(self) -> str:
        """The API and the dashboard."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def flower_url(self) -> str:
        """Flower."""
        return f"http://{LOOPBACK}:{self.flower_port}"

    def server_environment(self) -> dict[str, str]:
        """What a process of the control plane is given."""
        secrets = self.home.path / "secrets"
        return {
            **self._common(),
            **self._given(SERVER_TUNING),
            **self.database,
            **self.broker,
            "HOME": str(self.home.server),
            "TRELLIS_HOME": str(self.home.server),
            "TRELLIS_SECRET_KEY_FILE": str(secrets / "secret_key"),
            "TRELLIS_PUBLIC_URL": self.url,
        }

    def node_environment(self, name: str, profile: str, token: Path) -> dict[str, str]:
        """What a node is given: no database, no key of the control plane; of the broker it is told when it joins."""
        return {
            **self._common(),
            **self._given(NODE_TUNING),
            "TRELLIS_HOME": str(self.home.node(name)),
            "TRELLIS_URL": self.url,
            "TRELLIS_NAME": name,
            "TRELLIS_JOIN_TOKEN_FILE": str(token),
            **({"TRELLIS_PROFILE": profile} if profile else {}),
        }

    def host_environment(self, plan: Path, token: Path) -> dict[str, str]:
        """What a host of simulated nodes is given: likewise."""
        return {
            **self._common(),
            "TRELLIS_HOME": str(self.home.node(SIMULATED)),
            "TRELLIS_URL": self.url,
            "TRELLIS_PLAN": str(plan),
            "TRELLIS_JOIN_TOKEN_FILE": str(token),
        }

    def _given(self, settings: frozenset[str]) -> dict[str, str]:
        return {name: self.environment[name] for name in sorted(settings) if self.environment.get(name)}

    def _common(self) -> dict[str, str]:
        kept = {key: text for key, text in self.environment.items() if key in _KEPT or not key.startswith(_STRAY)}
        return {"PATH": os.defpath, **kept, "PYTHONUNBUFFERED": "1"}


def api(wiring: Wiring) -> Service:
    """The HTTP interface."""
    argv = _python(
        "gunicorn", "app.wsgi:app", "--worker-class", "gthread", "--workers", "1", "--threads", "320",
        "--bind", f"{LOOPBACK}:{wiring.port}", "--no-control-socket", "--graceful-timeout", "3", "--keep-alive", "30",
    )  # fmt: skip
    return _service(wiring, "api", argv, partial(_is_healthy, wiring.port), url=wiring.url)


def control(wiring: Wiring) -> Service:
    """The worker that schedules, relays events and answers `trellis.direct`."""
    argv = _celery(
        "tasks.control", "worker", "-Q", "control,scheduling,direct", "-n", "control@%h", "--loglevel", "INFO"
    )
    return _service(wiring, "control", argv, _says(wiring, "control", " ready."))


def beat(wiring: Wiring) -> Service:
    """The clock."""
    argv = _celery("tasks.beat", "beat", "--scheduler", "celery.beat:Scheduler", "--pidfile=", "--loglevel", "INFO")
    return _service(wiring, "beat", argv, _says(wiring, "beat", "Starting"))


def flower(wiring: Wiring) -> Service:
    """The view on the tasks, behind the same accounts."""
    argv = _celery("tasks.flower", "flower", f"--address={LOOPBACK}", f"--port={wiring.flower_port}")
    return _service(wiring, "flower", argv, partial(answers, wiring.flower_port), url=wiring.flower_url)


def node(wiring: Wiring, machine: Machine, join_token: str) -> Service:
    """One node with a home of its own. It keeps our own rights: it gives each job a user of its own."""
    name, profile = machine.name, machine.profile
    home = make_folder(wiring.home.node(name))
    token = wiring.home.keep_secret(f"join_{name}", join_token, current())
    argv = _python("tasks.node_command", "--join", wiring.url, "--name", name, "--home", str(home))
    if profile:
        argv += ("--profile", profile)
    environment = wiring.node_environment(name, profile, token)
    return Service(
        name=name,
        argv=argv,
        environment=environment,
        log=wiring.home.logs / f"{name}.log",
        ready=_says(wiring, name, " ready."),
        cwd=wiring.code,
        sweep=False,  # its jobs outlive it
        after_stop=partial(_end_jobs, home, environment, wiring.code),
    )


def host(wiring: Wiring, plan: HostPlan, join_token: str, told: Callable[[int, int], None]) -> Service:
    """One process for all nodes of a simulated cluster; `told` hears how many of how many have joined."""
    home = make_folder(wiring.home.node(SIMULATED))
    file = write_private(home / "plan.json", json.dumps(pack(plan)))
    token = wiring.home.keep_secret(f"join_{SIMULATED}", join_token, current())
    said, count = _says(wiring, SIMULATED, " ready."), sum(len(group.names) for group in plan.nodes)
    log, heard = wiring.home.logs / f"{SIMULATED}.log", [0]

    def ready() -> bool:
        joined = _JOINED.findall(log.read_bytes()) if log.exists() else []
        if joined and int(joined[-1][0]) > heard[0]:
            heard[0] = int(joined[-1][0])
            told(heard[0], count)
        return said()

    return Service(
        name=SIMULATED,
        argv=_python("tasks.host_command"),
        environment=wiring.host_environment(file, token),
        log=log,
        ready=ready,
        cwd=wiring.code,
        ready_s=_HOST_READY_S + count * _NODE_READY_S,
    )


def pace_for(nodes: int, environment: Mapping[str, str]) -> dict[str, str]:
    """How often so many nodes beat: more than two thousand more rarely, and all that follows from it; nothing where the
    caller has said something of it.
    """
    factor = nodes / _USUAL_PACE_NODES
    if factor <= 1 or any(environment.get(name) for name in _PACE):
        return {}
    return {name: f"{usual * factor:.1f}" for name, usual in _PACE.items()}


def _service(wiring: Wiring, name: str, argv: tuple[str, ...], ready: Callable[[], bool], url: str = "") -> Service:
    return Service(
        name=name,
        argv=argv,
        environment=wiring.server_environment(),
        log=wiring.home.logs / f"{name}.log",
        ready=ready,
        cwd=wiring.code,
        account=wiring.account,
        url=url,
    )


def _python(module: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", module, *arguments)


def _celery(app: str, command: str, *arguments: str) -> tuple[str, ...]:
    return _python("celery", "-A", app, command, *arguments)


def _is_healthy(port: int) -> bool:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=1)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _says(wiring: Wiring, name: str, words: str) -> Callable[[], bool]:
    """Whether the log has the words since now: a Celery process tells nobody but its log that it is ready."""
    log = wiring.home.logs / f"{name}.log"
    start = log.stat().st_size if log.exists() else 0

    def said() -> bool:
        if not log.exists():
            return False
        with log.open("rb") as file:
            file.seek(start if log.stat().st_size >= start else 0)
            return words.encode() in file.read(2**20)

    return said


def _end_jobs(home: Path, environment: Mapping[str, str], code: Path) -> None:
    argv = [sys.executable, "-c", SWEEP, str(home), str(SWEEP_S)]
    # Whatever it says is not for the screen: the next start of the node reports what became of its jobs.
    with suppress(subprocess.TimeoutExpired):
        subprocess.run(argv, env=dict(environment), cwd=code, capture_output=True, check=False, timeout=SWEEP_S + 10)
